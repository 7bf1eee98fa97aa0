"""Features at chosen places."""

from __future__ import annotations

from typing import Any

import numpy as np

from cv_superpoint import Features


def made_features(points: Any, size: tuple[int, int], *, seed: int = 0) -> Features:
    """Features at chosen points with random descriptors."""
    rows = np.random.default_rng(seed).normal(size=(len(points), 256)).astype(np.float32)
    return Features(
        keypoints=np.asarray(points, np.float32).reshape(-1, 2),
        scores=np.linspace(0.9, 0.1, len(points), dtype=np.float32),
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        sizes=np.full(len(points), 8, np.float32),
        octaves=np.zeros(len(points), np.int32),
        image_size=size,
    )
