"""Whole calls by pytest-benchmark, which keeps runs and compares them: ``make bench``.

``--benchmark-autosave`` keeps the figures, ``--benchmark-compare`` shows those of before as well.
The figures of docs/performance.md come from ``python -m benchmarks``, where all calls take turns.
"""

from __future__ import annotations

from typing import Any

import cv2
import pytest

from benchmarks.contenders import our_variants, ours
from benchmarks.measure import photographs
from cv_superpoint import match_features

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
