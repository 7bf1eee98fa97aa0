"""Decoding on the device, batched and without a shape that data decide.

The same steps as :mod:`cv_superpoint.decode`, so that a GPU sends back a few hundred kilobytes in
one transfer instead of its whole maps, and so that a CUDA graph can hold them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.decode import LARGEST_SHIFT, SUBPIXEL_RADIUS
from cv_superpoint.network import logits_to_heatmap, sample_descriptors

NO_KEYPOINT = -1.0
"""Score of a row without a keypoint."""


def decode_on_device(
    logits: Tensor,
    dense: Tensor,
    allowed: Tensor,
    *,
    count: int,
    threshold: float,
    radius: int,
    subpixel: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints of a batch, strongest first, always ``count`` rows of them.

    Args:
        logits: (B, 65, h, w), of any floating type; the decoding is in float32.
        dense: (B, D, h, w) unit descriptors.
        allowed: (B, H, W) bool, H <= 8 h and W <= 8 w: False outside the image's border margin
            and mask. It says where keypoints may be, not which pixels suppress others.
        count: Rows, at most H W.
        threshold: Probability that a keypoint has to exceed.
        radius: No two keypoints lie within this Chebyshev distance, in pixels.
        subpixel: Refine positions below the pixel.

    Returns:
        Points (B, count, 2) as (x, y), scores (B, count) with :data:`NO_KEYPOINT` in the rows left
        over, descriptors (B, count, D), all float32.
    """
    height, width = allowed.shape[1:]
    heatmap = logits_to_heatmap(logits.float())[:, :height, :width]
    scores = torch.where(_maxima(heatmap, threshold, radius) & allowed, heatmap, NO_KEYPOINT)
    # A stable sort keeps equal scores in raster order, which topk does not promise.
    values, order = torch.sort(scores.flatten(1), dim=1, descending=True, stable=True)
    values, order = values[:, :count], order[:, :count]
    rows = torch.div(order, width, rounding_mode="floor")
    columns = order - rows * width
    points = torch.stack([columns, rows], dim=2).float()
    if subpixel:
        points = points + _shift(heatmap, rows, columns)
    return points, values, sample_descriptors(dense.float(), points)


def _maxima(heatmap: Tensor, threshold: float, radius: int) -> Tensor:
    """As :func:`cv_superpoint.decode.local_maxima`, ties included: (B, H, W) bool."""
    found = heatmap > threshold
    if radius == 0:
        return found
    found = found & (heatmap == _window_maximum(heatmap, radius))
    # Of equal maxima within reach the first in raster order stays; float64 counts far enough.
    pixels = heatmap[0].numel()
    order = torch.arange(pixels, 0, -1, dtype=torch.float64, device=heatmap.device)
    rank = torch.where(found, order.view_as(heatmap[0]), 0.0)
    return found & (rank == _window_maximum(rank, radius))


def _window_maximum(maps: Tensor, radius: int) -> Tensor:
    # One axis after the other: 2 (2 r + 1) comparisons for each pixel instead of their square.
    window, maps = 2 * radius + 1, maps[:, None]
    maps = F.max_pool2d(maps, (window, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(maps, (1, window), stride=1, padding=(0, radius))[:, 0]


def _shift(heatmap: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """As :func:`cv_superpoint.decode.refine`, relative to the maximum: (B, N, 2)."""
    radius = SUBPIXEL_RADIUS
    offsets = torch.arange(-radius, radius + 1, device=heatmap.device)
    padded = F.pad(heatmap, (radius,) * 4)
    width = padded.shape[2]
    around = ((offsets + radius)[:, None] * width + offsets + radius).flatten()
    index = (rows * width + columns)[:, :, None] + around
    patches = padded.flatten(1).gather(1, index.flatten(1)).view(*rows.shape, len(offsets), -1)
    total = patches.sum(dim=(2, 3))
    x = (patches.sum(dim=2) * offsets).sum(dim=2) / total
    y = (patches.sum(dim=3) * offsets).sum(dim=2) / total
    # Rows without a keypoint may lie in a patch of zeros.
    shift = torch.stack([x, y], dim=2).nan_to_num(0.0)
    return shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
