"""Local affine frames, the form of keypoints in kornia."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import require

if TYPE_CHECKING:
    import torch


def to_lafs(features: Features, *, device: str = "cpu") -> torch.Tensor:
    """(1, N, 2, 3) upright frames: the keypoint as centre, and half its size as scale.

    A frame's scale is the radius of its circle, which for a keypoint is half its diameter:
    4 pixels at full resolution.
    """
    library = require("torch", "torch")
    lafs = np.zeros((1, len(features), 2, 3), np.float32)
    lafs[0, :, 0, 0] = lafs[0, :, 1, 1] = features.sizes / 2
    lafs[0, :, :, 2] = features.keypoints
    tensor: torch.Tensor = library.from_numpy(lafs).to(device)
    return tensor


def from_lafs(lafs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) centres and (N,) diameters of (1, N, 2, 3) frames."""
    frames = lafs[0].detach().cpu().numpy().astype(np.float32)
    area = frames[:, 0, 0] * frames[:, 1, 1] - frames[:, 0, 1] * frames[:, 1, 0]
    return frames[:, :, 2], 2 * np.sqrt(np.abs(area))
