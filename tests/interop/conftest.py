from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data
from made import made_features
from pinned import PINNED

from cv_superpoint import Features, MatchResult, SuperPointFeature2D, match_pair


@pytest.fixture(scope="session")
def stereo() -> tuple[Any, Any]:
    """A real pair of photographs, 500 x 741 BGR: rectified, the second camera to the right."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return np.ascontiguousarray(left[..., ::-1]), np.ascontiguousarray(right[..., ::-1])


@pytest.fixture(scope="session")
def pair(stereo: tuple[Any, Any]) -> MatchResult:
    """The pair with bundled weights: 400 keypoints each, matched and verified."""
    detector = SuperPointFeature2D.create(400, **PINNED)
    result = match_pair(*stereo, detector, model="fundamental", threshold=2.0)
    assert result.inliers.sum() > 100
    return result


@pytest.fixture
def empty() -> Features:
    """Features of an image without any."""
    return made_features(np.empty((0, 2)), (60, 80))
