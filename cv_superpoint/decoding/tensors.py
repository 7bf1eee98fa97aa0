"""The steps of :mod:`cv_superpoint.decoding.arrays` as batched torch: same results, any device.

No shape depends on data and nothing synchronises, so that a CUDA graph can hold them; where a step
has a gradient, it passes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.decoding.arrays import LARGEST_SHIFT, SUBPIXEL_RADIUS
from cv_superpoint.decoding.options import Decoding
from cv_superpoint.grid import CELL_SIZE

NO_KEYPOINT = -1.0
"""Score of a row without a keypoint."""


def logits_to_heatmap(logits: Tensor) -> Tensor:
    """Keypoint probability of every pixel: softmax over the cell, dustbin dropped (section 3.2).

    Args:
        logits: (B, 65, h, w).

    Returns:
        (B, 8 h, 8 w) probabilities in [0, 1].
    """
    probabilities = torch.softmax(logits, dim=1)[:, :-1]
    return F.pixel_shuffle(probabilities, CELL_SIZE)[:, 0]


def sample_descriptors(dense: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of the dense descriptors, made unit length (section 3.3).

    Outside the outermost cell centres the border cells are repeated.

    Args:
        dense: (B, D, h, w).
        points: (B, N, 2) as (x, y) pixels of the network's input.

    Returns:
        (B, N, D) unit rows; differentiable in ``dense`` and ``points``.
    """
    h, w = dense.shape[-2:]
    # Cell centres lie at 8 j + 3.5; align_corners=False maps index j to (2 j + 1) / w - 1.
    cells = (points - (CELL_SIZE - 1) / 2) / CELL_SIZE
    # Numbers, and no tensor made of them: a CUDA graph records no copy from the host.
    axes = [(2 * cells[..., axis] + 1) / side - 1 for axis, side in enumerate((w, h))]
    grid = torch.stack(axes, dim=-1)[:, :, None]
    sampled = F.grid_sample(
        dense.contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return F.normalize(sampled[..., 0].transpose(1, 2), dim=-1)


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


def keypoint_scores(heatmap: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """What :func:`cv_superpoint.decoding.arrays.keypoints` finds, as maps.

    Args:
        heatmap: (B, H, W) probabilities.
        decoding: Its threshold and its radii.

    Returns:
        Which pixels are keypoints, (B, H, W) bool, and the scores (B, H, W) of all pixels, with
        gradients.
    """
    found = local_maxima(heatmap.detach(), decoding.peak_threshold, decoding.nms_radius)
    radius = decoding.score_radius
    if radius == 0:
        return found, heatmap
    scores = F.avg_pool2d(
        heatmap[:, None], 2 * radius + 1, stride=1, padding=radius, divisor_override=1
    )[:, 0]
    return found & (scores.detach() > decoding.score_threshold), scores


def _window_maximum(maps: Tensor, radius: int) -> Tensor:
    # One axis after the other, and of ever wider windows: for a radius of 4 eight comparisons of
    # whole maps. On a CPU ``max_pool2d`` takes twenty times as long, since it looks at one channel
    # pixel by pixel.
    for axis in (-2, -1):
        # As far as there are pixels, however large the radius is.
        reach = min(radius, maps.shape[axis] - 1)
        padding = (0, 0, reach, reach) if axis == -2 else (reach, reach)
        maps = F.pad(maps, padding, value=-torch.inf)
        seen = 1
        while seen < 2 * reach + 1:
            step = min(seen, 2 * reach + 1 - seen)
            length = maps.shape[axis] - step
            maps = torch.maximum(maps.narrow(axis, 0, length), maps.narrow(axis, step, length))
            seen += step
    return maps


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
    square = ((x + y) * offsets**2).sum(dim=2)
    return mean, square - (mean**2).sum(dim=2)


def described(
    heatmap: Tensor, dense: Tensor, rows: Tensor, columns: Tensor, decoding: Decoding
) -> tuple[Tensor, Tensor]:
    """Positions (B, N, 2) as (x, y) and descriptors (B, N, D) of keypoints at pixels.

    Args:
        heatmap: (B, H, W) probabilities.
        dense: (B, D, h, w).
        rows: (B, N) pixels.
        columns: (B, N).
        decoding: Whether positions are refined.
    """
    points = torch.stack([columns, rows], dim=2).to(heatmap.dtype)
    if decoding.subpixel:
        shift, _ = soft_argmax(heatmap, rows, columns)
        points = points + shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return points, sample_descriptors(dense, points)


def decode_batch(
    logits: Tensor, dense: Tensor, allowed: Tensor, decoding: Decoding
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints of a batch, strongest first, always as many rows of them.

    No shape depends on data and nothing synchronises.

    Args:
        logits: (B, 65, h, w), of any floating type; the decoding is in float32.
        dense: (B, D, h, w) unit descriptors.
        allowed: (B, H, W) bool, H <= 8 h and W <= 8 w: False outside the image's border margin
            and mask. It says where keypoints may be, not which pixels suppress others.
        decoding: What is kept; ``max_keypoints`` is positive. ``allowed`` holds its border margin.

    Returns:
        Points (B, K, 2) as (x, y), scores (B, K) with :data:`NO_KEYPOINT` in the rows left over,
        descriptors (B, K, D), all float32; K is ``max_keypoints``, or H W where that is less.
    """
    height, width = allowed.shape[1:]
    heatmap = logits_to_heatmap(logits.float())[:, :height, :width]
    found, scores = keypoint_scores(heatmap, decoding)
    scores = torch.where(found & allowed, scores, NO_KEYPOINT)
    # A stable sort keeps equal scores in raster order, which topk does not promise.
    values, order = torch.sort(scores.flatten(1), dim=1, descending=True, stable=True)
    count = decoding.max_keypoints
    values, order = values[:, :count], order[:, :count]
    rows = torch.div(order, width, rounding_mode="floor")
    columns = order - rows * width
    points, descriptors = described(heatmap, dense.float(), rows, columns, decoding)
    return points, values, descriptors


def decode_image(
    heatmap: Tensor, dense: Tensor, decoding: Decoding
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints of one image, strongest first, as many rows as there are.

    Args:
        heatmap: (H, W) probabilities.
        dense: (D, h, w) unit descriptors.
        decoding: What is kept.

    Returns:
        Points (N, 2) as (x, y), scores (N,), descriptors (N, D); with gradients.
    """
    height, width = heatmap.shape
    maps = keypoint_scores(heatmap[None], decoding)
    found, scores = maps[0][0], maps[1][0]
    margin = decoding.border_margin
    found[:margin] = found[max(height - margin, 0) :] = False
    found[:, :margin] = found[:, max(width - margin, 0) :] = False
    rows, columns = torch.nonzero(found, as_tuple=True)
    best = torch.argsort(scores[rows, columns].detach(), descending=True, stable=True)
    if decoding.max_keypoints >= 0:
        best = best[: decoding.max_keypoints]
    rows, columns = rows[best], columns[best]
    points, rows_of = described(heatmap[None], dense[None], rows[None], columns[None], decoding)
    return points[0], scores[rows, columns], rows_of[0]
