"""A pair of images whose homography is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint.evaluation.datasets import ImagePair


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A photograph of 512 x 512, grey."""
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="session")
def shifted_pair(photograph: np.ndarray) -> ImagePair:
    """Two windows of 300 x 400 of it that are 37 px and 21 px apart."""
    first, second = photograph[60:360, 40:440], photograph[39:339, 77:477]
    return ImagePair(
        name="v_shift 1-2",
        sequence="v_shift",
        kind="viewpoint",
        images=(np.ascontiguousarray(first), np.ascontiguousarray(second)),
        h_0to1=np.array([[1, 0, -37], [0, 1, 21], [0, 0, 1.0]]),
        keys=("1", "2"),
    )
