"""The steps of :mod:`cv_superpoint.decoding.arrays` as batched torch: same results, any device.

No shape depends on data and nothing synchronises, so that a CUDA graph can hold them; where a step
has a gradient, it passes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.decoding.arrays import SUBPIXEL_RADIUS


def local_maxima(heatmap: Tensor, threshold: float, radius: int) -> Tensor:
    """As :func:`cv_superpoint.decoding.arrays.local_maxima`, ties included.

    Args:
        heatmap: (B, H, W) probabilities.
        threshold: That a maximum has to exceed.
        radius: No two maxima lie within this Chebyshev distance, in pixels.

    Returns:
        (B, H, W) bool.
    """
    found = heatmap > threshold
    if radius == 0:
        return found
    found = found & (heatmap == _window_maximum(heatmap, radius))
    # Of equal maxima within reach the first in raster order stays; float64 counts far enough.
    pixels = heatmap[0].numel()
    order = torch.arange(pixels, 0, -1, dtype=torch.float64, device=heatmap.device)
    rank = torch.where(found, order.view_as(heatmap[0]), 0.0)
    return found & (rank == _window_maximum(rank, radius))


def keypoint_scores(
    heatmap: Tensor, threshold: float, nms_radius: int, score_radius: int
) -> tuple[Tensor, Tensor]:
    """What :func:`cv_superpoint.decoding.arrays.keypoints` finds, as maps.

    Args:
        heatmap: (B, H, W) probabilities.
        threshold: Of the score.
        nms_radius: As ``radius`` of :func:`local_maxima`.
        score_radius: Pixels.

    Returns:
        Which pixels are keypoints, (B, H, W) bool, and the scores (B, H, W) of all pixels, with
        gradients.
    """
    share = threshold / (2 * score_radius + 1) ** 2
    found = local_maxima(heatmap.detach(), share, nms_radius)
    if score_radius == 0:
        return found, heatmap
    scores = F.avg_pool2d(
        heatmap[:, None], 2 * score_radius + 1, stride=1, padding=score_radius, divisor_override=1
    )[:, 0]
    return found & (scores.detach() > threshold), scores


def _window_maximum(maps: Tensor, radius: int) -> Tensor:
    # One axis after the other: 2 (2 r + 1) comparisons for each pixel instead of their square.
    # As far as there are pixels, however large the radius is.
    up, left = (min(radius, length - 1) for length in maps.shape[-2:])
    maps = F.max_pool2d(maps[:, None], (2 * up + 1, 1), stride=1, padding=(up, 0))
    return F.max_pool2d(maps, (1, 2 * left + 1), stride=1, padding=(0, left))[:, 0]


def soft_argmax(heatmap: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Where the 5 x 5 windows around pixels have their weight.

    Args:
        heatmap: (B, H, W) probabilities.
        rows: (B, N) pixels.
        columns: (B, N).

    Returns:
        Means (B, N, 2) as (x, y) relative to the pixel, without the bound of
        :func:`cv_superpoint.decoding.arrays.refine`, and the variances (B, N) around them, in
        pixels squared; 0 for a window of zeros.
    """
    radius = SUBPIXEL_RADIUS
    offsets = torch.arange(-radius, radius + 1, device=heatmap.device)
    padded = F.pad(heatmap, (radius,) * 4)
    width = padded.shape[2]
    around = ((offsets + radius)[:, None] * width + offsets + radius).flatten()
    index = (rows * width + columns)[:, :, None] + around
    patches = (
        padded.flatten(1).gather(1, index.flatten(1)).view(*rows.shape, len(offsets), len(offsets))
    )
    share = patches / patches.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    x, y = share.sum(dim=2), share.sum(dim=3)
    mean = torch.stack([(x * offsets).sum(dim=2), (y * offsets).sum(dim=2)], dim=2)
    square = (x + y) @ (offsets**2).to(share.dtype)
    return mean, square - (mean**2).sum(dim=2)
