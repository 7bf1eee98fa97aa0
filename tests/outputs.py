"""What backends compute, in one order of memory."""

from __future__ import annotations

import numpy as np

from cv_superpoint.backends import Backend


def run_units(backend: Backend, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, h, w, 65) and unit descriptors (B, h, w, D)."""
    logits, dense = backend.run(images)
    for maps in (*logits, *dense):
        assert maps.dtype == np.float32
    rows = np.stack([np.ascontiguousarray(maps).reshape(*maps.shape[:2], -1) for maps in dense])
    return np.stack(logits), rows / np.linalg.norm(rows, axis=-1, keepdims=True)
