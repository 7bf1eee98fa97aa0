"""Decoding on the device, batched and without a shape that data decide.

The same steps as :mod:`cv_superpoint.decoding.arrays`, so that a GPU sends back a few hundred
kilobytes in one transfer instead of its whole maps, and so that a CUDA graph can hold them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cv_superpoint.decoding.arrays import LARGEST_SHIFT
from cv_superpoint.decoding.tensors import keypoint_scores, soft_argmax
from cv_superpoint.network.torch_network import logits_to_heatmap, sample_descriptors

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
    score_radius: int,
    subpixel: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints of a batch, strongest first, always ``count`` rows of them.

    Args:
        logits: (B, 65, h, w), of any floating type; the decoding is in float32.
        dense: (B, D, h, w) unit descriptors.
        allowed: (B, H, W) bool, H <= 8 h and W <= 8 w: False outside the image's border margin
            and mask. It says where keypoints may be, not which pixels suppress others.
        count: Rows, at most H W.
        threshold: Score that a keypoint has to exceed.
        radius: No two keypoints lie within this Chebyshev distance, in pixels.
        score_radius: A score is the sum of the probabilities within this distance, in pixels.
        subpixel: Refine positions below the pixel.

    Returns:
        Points (B, count, 2) as (x, y), scores (B, count) with :data:`NO_KEYPOINT` in the rows left
        over, descriptors (B, count, D), all float32.
    """
    height, width = allowed.shape[1:]
    heatmap = logits_to_heatmap(logits.float())[:, :height, :width]
    found, scores = keypoint_scores(heatmap, threshold, radius, score_radius)
    scores = torch.where(found & allowed, scores, NO_KEYPOINT)
    # A stable sort keeps equal scores in raster order, which topk does not promise.
    values, order = torch.sort(scores.flatten(1), dim=1, descending=True, stable=True)
    values, order = values[:, :count], order[:, :count]
    rows = torch.div(order, width, rounding_mode="floor")
    columns = order - rows * width
    points = torch.stack([columns, rows], dim=2).float()
    if subpixel:
        shift, _ = soft_argmax(heatmap, rows, columns)
        points = points + shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return points, values, sample_descriptors(dense.float(), points)
