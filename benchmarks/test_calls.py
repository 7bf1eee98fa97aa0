"""Whole calls by pytest-benchmark, which keeps runs and compares them: ``make bench``.

``--benchmark-autosave`` keeps the figures, ``--benchmark-compare`` shows those of before as well.
The figures of docs/results/performance.md come from ``python -m benchmarks``, where all calls take
turns.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.contenders import our_variants, ours
from benchmarks.measure import photographs
from cv_superpoint import match_features
from cv_superpoint.geometry import warp_points
from cv_superpoint.matching.refining import refine_matches

COUNT, THREADS = 1024, 2
VARIANTS = our_variants("cpu")
NAMES = ["-".join(one) for one in VARIANTS]


@pytest.fixture(scope="module")
def photograph() -> Any:
    """480 x 640, grey."""
    cv2.setNumThreads(THREADS)
    return photographs(None, (480, 640), 1)[0]


@pytest.mark.parametrize(("backend", "precision"), VARIANTS, ids=NAMES)
def test_detect_and_compute(benchmark: Any, photograph: Any, backend: str, precision: str) -> None:
    detector = ours(backend, precision, "cpu", COUNT, THREADS)
    keypoints, descriptors = benchmark(detector.detectAndCompute, photograph, None)
    assert len(keypoints) == len(descriptors) == COUNT


def test_sift(benchmark: Any, photograph: Any) -> None:
    keypoints, _ = benchmark(cv2.SIFT.create(COUNT).detectAndCompute, photograph, None)
    assert len(keypoints) > 100


def test_match(benchmark: Any, photograph: Any) -> None:
    features = ours(*VARIANTS[0], "cpu", COUNT, THREADS).extract(photograph)
    found = benchmark(match_features, features, features)
    assert len(found) > 0.9 * len(features)


@pytest.mark.parametrize("way", ["homography", "neighbours"])
def test_refine(benchmark: Any, photograph: Any, way: str) -> None:
    """1000 matches, half a pixel off, by a homography and by the matches around each."""
    homography = np.array([[0.98, -0.05, 12], [0.04, 1.01, -8], [2e-5, -1e-5, 1]])
    other = cv2.warpPerspective(photograph, homography, (640, 480))
    rng = np.random.default_rng(0)
    points = rng.uniform((30, 30), (600, 440), (1000, 2))
    start = warp_points(homography, points) + rng.normal(0, 0.5, points.shape)
    about = homography if way == "homography" else None
    found = benchmark(refine_matches, photograph, other, points, start, about)
    assert found.moved.mean() > 0.8
