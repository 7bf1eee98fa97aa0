"""Differentiable keypoints of a heatmap: what inference decodes, as tensors with gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cv_superpoint.decoding.tensors import local_maxima, logits_to_heatmap, soft_argmax
from cv_superpoint.grid import CELL_SIZE

NMS_RADIUS = 4
NEARBY = 3
"""Pixels within which a keypoint of another view is the same one."""


class SoftKeypoints(NamedTuple):
    """The strongest keypoints of a batch, padded to K per image.

    Attributes:
        points: (B, K, 2) as (x, y) pixels: probability-weighted means, with gradients.
        spread: (B, K) variance of the 5 x 5 window around its mean, pixels squared.
        valid: (B, K) boolean, which of them are keypoints.
        nearby: (B, H, W) probability of a keypoint within ``NEARBY`` pixels (Chebyshev) of each
            pixel; 0 where keypoints do not count.
    """

    points: Tensor
    spread: Tensor
    valid: Tensor
    nearby: Tensor


def soft_keypoints(
    logits: Tensor, valid: Tensor, count: int, threshold: float, border: int = NMS_RADIUS
) -> SoftKeypoints:
    """Maxima of the heatmap and the soft-argmax around each, as ``cv_superpoint.decoding`` does.

    Which pixels are maxima is a choice without gradient; where exactly a keypoint lies has one.
    Unlike inference the position is not held within half a pixel of the maximum: a bound would
    stop the gradient just where it is needed most.

    Args:
        logits: (B, 65, h, w).
        valid: (B, h, w) boolean, cells in which keypoints count.
        count: K, at most.
        threshold: Smallest probability of a maximum.
        border: Pixels at the borders without keypoints.
    """
    heat = logits_to_heatmap(logits.float())
    height, width = heat.shape[1:]
    with torch.no_grad():
        pixels = valid.repeat_interleave(CELL_SIZE, 1).repeat_interleave(CELL_SIZE, 2)
        pixels[:, :border] = pixels[:, height - border :] = False
        pixels[:, :, :border] = pixels[:, :, width - border :] = False
        maxima = local_maxima(heat, threshold, NMS_RADIUS) & pixels
        scores = torch.where(maxima, heat, 0).flatten(1)
        best, index = scores.topk(min(count, scores.shape[1]), dim=1)
        rows, columns = index // width, index % width
    shift, spread = soft_argmax(heat, rows, columns)
    points = torch.stack([columns, rows], dim=2) + shift
    return SoftKeypoints(points, spread, best > 0, window_sum(heat, NEARBY) * pixels)


def window_sum(maps: Tensor, radius: int) -> Tensor:
    """Sums of the square windows around every pixel; outside a map everything is 0.

    As ``avg_pool2d``, which a CPU takes six times as long for, with its gradient.

    Args:
        maps: (B, H, W).
        radius: Windows have 2 radius + 1 pixels a side.

    Returns:
        (B, H, W).
    """
    summed: Tensor = _WindowSum.apply(maps, radius)  # type: ignore[no-untyped-call]
    return summed


class _WindowSum(torch.autograd.Function):
    """A pixel is in another's window if that one is in its own: the gradient is the same sum."""

    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor, radius: int) -> Tensor:
        ctx.radius = radius  # type: ignore[attr-defined]
        return _sum_along(_sum_along(maps, 1, radius), 2, radius)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        radius = ctx.radius  # type: ignore[attr-defined]
        return _sum_along(_sum_along(gradient, 1, radius), 2, radius), None


def _sum_along(maps: Tensor, axis: int, radius: int) -> Tensor:
    length = maps.shape[axis]
    total = maps.clone()
    for shift in range(1, min(radius, length - 1) + 1):
        rest = length - shift
        total.narrow(axis, 0, rest).add_(maps.narrow(axis, shift, rest))
        total.narrow(axis, shift, rest).add_(maps.narrow(axis, 0, rest))
    return total


def warp(homography: Tensor, points: Tensor) -> Tensor:
    """Points (B, K, 2) through homographies (B, 3, 3).

    Points that a homography sends to infinity or behind the camera come out far away.
    """
    mapped = F.pad(points, (0, 1), value=1.0) @ homography.transpose(1, 2)
    depth = mapped[..., 2:]
    return torch.where(depth > 1e-6, mapped[..., :2] / depth.clamp(min=1e-6), 1e6)
