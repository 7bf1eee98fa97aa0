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
_LAST_PIXEL, _LOW_BITS = (1 << 31) - 1, (1 << 32) - 1


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
    """Same as :func:`cv_superpoint.decoding.arrays.local_maxima`, ties included.

    Args:
        heatmap: (B, H, W) probabilities.
        threshold: Probability that a maximum has to exceed.
        radius: No two maxima lie within this Chebyshev distance, in pixels.

    Returns:
        (B, H, W) bool.
    """
    found = heatmap > threshold
    if radius == 0:
        return found
    found = found & (heatmap == _window_maximum(heatmap, radius))
    # Of equal maxima within reach the first in raster order stays, told by numbers that all differ.
    pixels = heatmap[0].numel()
    exact = torch.float32 if pixels < 1 << 24 else torch.float64
    order = torch.arange(pixels, 0, -1, dtype=exact, device=heatmap.device)
    rank = torch.where(found, order.view_as(heatmap[0]), 0.0)
    return found & (rank == _window_maximum(rank, radius))


def keypoint_scores(heatmap: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """What :func:`cv_superpoint.decoding.arrays.keypoints` finds, as maps.

    Args:
        heatmap: (B, H, W) probabilities.
        decoding: Options, of which threshold and radii count.

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
    """Maxima (B, H, W) of the windows around pixels, as far as there are pixels."""
    # On a CPU ``max_pool2d`` takes twenty times as long, since it looks at one channel pixel by
    # pixel; on a GPU it is a sixth of the kernels.
    way = shifted_maximum if maps.device.type == "cpu" else pooled_maximum
    for axis in (-2, -1):
        maps = way(maps, min(radius, maps.shape[axis] - 1), axis)
    return maps


def pooled_maximum(maps: Tensor, reach: int, axis: int) -> Tensor:
    """Maxima (B, H, W) over ``reach`` pixels to either side along an axis, -2 or -1."""
    side, padding = (2 * reach + 1, 1), (reach, 0)
    if axis == -1:
        side, padding = side[::-1], padding[::-1]
    return F.max_pool2d(maps[:, None], side, stride=1, padding=padding)[:, 0]


def shifted_maximum(maps: Tensor, reach: int, axis: int) -> Tensor:
    """Same as :func:`pooled_maximum`, from ever wider windows: for 4 pixels four comparisons."""
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
    mean, x, y, offsets = _windows(heatmap, rows, columns)
    square = ((x + y) * offsets**2).sum(dim=2)
    return mean, square - (mean**2).sum(dim=2)


def _windows(
    heatmap: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means (B, N, 2) of the 5 x 5 windows around pixels, their sums along y and x, and offsets."""
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
    return mean, x, y, offsets


def positions(heatmap: Tensor, rows: Tensor, columns: Tensor, decoding: Decoding) -> Tensor:
    """Where (B, N) keypoints at pixels lie: (B, N, 2) as (x, y), with gradients.

    Args:
        heatmap: (B, H, W) probabilities.
        rows: (B, N) pixels.
        columns: (B, N).
        decoding: Whether positions are refined.
    """
    points = torch.stack([columns, rows], dim=2).to(heatmap.dtype)
    if decoding.subpixel:
        shift = _windows(heatmap, rows, columns)[0]
        points = points + shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return points


def sample_cells(dense: Tensor, points: Tensor) -> Tensor:
    """Same as :func:`sample_descriptors`, but it reads only the four cells around each point.

    It needs no map of unit descriptors, and in a channels-last map reads cells as they lie.

    Args:
        dense: (B, D, h, w) of any floating type and of any length.
        points: (B, N, 2) as (x, y) pixels of the network's input.

    Returns:
        (B, N, D) unit rows, float32.
    """
    length, h, w = dense.shape[1:]
    cells = dense.permute(0, 2, 3, 1).reshape(len(dense), h * w, length)
    centres = (points - (CELL_SIZE - 1) / 2) / CELL_SIZE
    x, y = centres[..., 0].clamp(0, w - 1), centres[..., 1].clamp(0, h - 1)
    left, top = x.floor(), y.floor()
    right, bottom = (left + 1).clamp(max=w - 1), (top + 1).clamp(max=h - 1)
    x, y = x - left, y - top
    index = torch.stack([row * w + column for row in (top, bottom) for column in (left, right)], 2)
    weights = torch.stack([v * u for v in (1 - y, y) for u in (1 - x, x)], dim=2)
    # float32 holds the index of each cell of 2^24, of images of 2^30 pixels, exactly.
    index = index.long().flatten(1)[..., None].expand(-1, -1, length)
    around = cells.gather(1, index).float().view(*weights.shape, length)
    weights = weights / torch.linalg.vector_norm(around, dim=3).clamp(min=1e-12)
    return F.normalize((around * weights[..., None]).sum(dim=2), dim=2)


def strongest(scores: Tensor, found: Tensor, count: int, radius: int) -> tuple[Tensor, Tensor]:
    """The highest scores of keypoints, of equal ones the first in raster order.

    Args:
        scores: (B, H, W) float32, positive where there are keypoints.
        found: (B, H, W) bool, which pixels are keypoints, no two of them within ``radius``.
        count: Largest number of keypoints.
        radius: Distance in pixels (Chebyshev).

    Returns:
        Scores (B, K), descending, :data:`NO_KEYPOINT` in the rows left over, and flat indices of
        their pixels; K is ``count``, or :func:`most_keypoints` where that is less.
    """
    values = torch.where(found, scores, NO_KEYPOINT)
    # A square of side radius + 1 holds one keypoint at most: fewer numbers to put in order.
    sides = [min(radius + 1, length) for length in scores.shape[1:]]
    if radius:
        values, pixels = F.max_pool2d(
            values[:, None], sides, stride=sides, ceil_mode=True, return_indices=True
        )
    else:
        pixels = torch.arange(scores[0].numel(), device=scores.device).expand(len(scores), -1)
    # One number tells the order: a positive float's bits have the order of its values, and below
    # them stands the pixel, counted backwards. No two are equal, so any way to sort will do.
    bits = values.contiguous().flatten(1).view(torch.int32).long()
    keys = bits * (1 << 32) + (_LAST_PIXEL - pixels.flatten(1))
    keys = keys.topk(min(count, keys.shape[1]), dim=1).values
    pixels = _LAST_PIXEL - (keys & _LOW_BITS)
    return (keys >> 32).int().view(torch.float32), pixels


def most_keypoints(size: tuple[int, int], decoding: Decoding) -> int:
    """Largest number that :func:`strongest` gives for an image of (height, width) pixels."""
    most = 1
    for length in size:
        most *= -(-length // min(decoding.nms_radius + 1, length))
    return most


def decode_batch(
    logits: Tensor,
    dense: Tensor,
    frames: Tensor,
    allowed: Tensor | None,
    decoding: Decoding,
    room: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keypoints of a batch, strongest first, always as many rows of them.

    No shape depends on data and nothing synchronises.

    Args:
        logits: (B, 65, h, w), of any floating type; the decoding is in float32.
        dense: (B, D, h, w), of any floating type and of any length.
        frames: (B, 6) integers, pixels: height and width of the image in the top-left corner of
            what the network saw, outside of which nothing suppresses, and top, left, bottom and
            right of where keypoints may be.
        allowed: (B, 8 h, 8 w) bool, where keypoints may be, too; None for everywhere. It does not
            say which pixels suppress others.
        decoding: What is kept. ``frames`` hold its border margin, and ``room`` its count.
        room: Rows that come back, at most.

    Returns:
        How many keypoints there are (B,), which may be more than rows; points (B, K, 2) as (x, y),
        scores (B, K) with :data:`NO_KEYPOINT` in the rows left over, and descriptors (B, K, D), all
        float32; K is ``room``, or :func:`most_keypoints` where that is less.
    """
    heatmap = logits_to_heatmap(logits.float())
    height, width = heatmap.shape[1:]
    bottom, right = frames[:, 0, None, None], frames[:, 1, None, None]
    row = torch.arange(height, device=heatmap.device)[:, None]
    column = torch.arange(width, device=heatmap.device)
    heatmap = heatmap.masked_fill((row >= bottom) | (column >= right), 0)
    found, scores = keypoint_scores(heatmap, decoding)
    top, left, bottom, right = (frames[:, k, None, None] for k in range(2, 6))
    found = found & ((row >= top) & (row < bottom)) & ((column >= left) & (column < right))
    if allowed is not None:
        found = found & allowed
    values, pixels = strongest(scores, found, room, decoding.nms_radius)
    rows = torch.div(pixels, width, rounding_mode="floor")
    points = positions(heatmap, rows, pixels - rows * width, decoding)
    counts = found.flatten(1).sum(dim=1, dtype=torch.float32)
    return counts, points, values, sample_cells(dense, points)


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
    points = positions(heatmap[None], rows[None], columns[None], decoding)
    return points[0], scores[rows, columns], sample_descriptors(dense[None], points)[0]
