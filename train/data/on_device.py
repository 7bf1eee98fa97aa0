"""Warped pairs made on the training device, in batches, from photographs kept in its memory.

The twin of :class:`train.data.pairs.WarpedPairs` for accelerators that train faster than processors
warp: the same configuration, the same distribution, the same keys, shapes and meaning, but other
random numbers. The photographs lie on the device as uint8; homographies are drawn by numpy, so they
are the same on every device; everything else is batched torch.
On CUDA the order of a sum, and so its last bit, may differ from run to run.

Convention:
    As everywhere: points are (x, y), (0, 0) the centre of the top-left pixel, a homography is
    forward. Coordinates are computed in float64 and sampled in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.geometry import (
    Matrix,
    resize_matrix,
    sample_homographies,
    smoothing,
    warp_points,
)
from cv_superpoint.grid import CELL_SIZE
from train.data.augment_batch import blur, photometric_batch
from train.data.images import ImageConfig, load_or_none, to_tensor
from train.data.labels import DUSTBIN
from train.data.pairs import LabelledImage, PairConfig, draw, photograph

Batch = dict[str, Tensor]

DRAWINGS = 1000
"""Synthetic drawings that are kept beside the photographs, if pairs are to show any."""


@dataclass(frozen=True)
class ViewBatch:
    """One image of every pair of a batch.

    Attributes:
        images: (B, C, H, W) uint8.
        valid: (B, H, W) boolean, pixels that show the photograph.
        points: (B, K, 2) float64 keypoints; those that are not ``kept`` mean nothing.
        kept: (B, K) boolean, keypoints inside the image on valid pixels.
    """

    images: Tensor
    valid: Tensor
    points: Tensor
    kept: Tensor


class DevicePairs:
    """Photographs and their labels on a device, and the batches of warped pairs made of them.

    Args:
        seed: Seed of the pairs.
        images: Photographs and their keypoints.
        sizes: Working size of the photographs.
        config: How pairs are made.
        device: Device of the batches.
        rank: Rank of this process among ``world_size``; each makes its own share of a step's pairs.
        world_size: Number of processes.
    """

    def __init__(
        self,
        seed: int,
        images: Sequence[LabelledImage],
        sizes: ImageConfig,
        config: PairConfig,
        device: torch.device | str,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.seed = seed
        self.config = config
        self.device = torch.device(device)
        self.rank, self.world_size = rank, world_size
        with ThreadPoolExecutor() as pool:
            largest = max(config.zooms)
            read = list(pool.map(lambda image: load_or_none(image.path, sizes, largest), images))
            loaded = [(*each, image) for each, image in zip(read, images, strict=True) if each]
            if not loaded:
                raise ValueError(f"none of the {len(read)} photographs can be read any more")
            photos = [to_tensor(photo) for photo, _, _ in loaded]
            drawings = range(DRAWINGS if config.drawings else 0)
            drawn = list(pool.map(lambda index: draw(seed, index, sizes, config), drawings))
        photos += [to_tensor(image) for image, _ in drawn]
        labels = [warp_points(frame, image.keypoints) for _, frame, image in loaded]
        labels += [points.astype(np.float64) for _, points in drawn]
        self.photographs = len(loaded)
        self.sizes = np.array([photo.shape[1:] for photo in photos])
        height, width = self.sizes.max(axis=0)
        # One array for all: the smaller ones leave the rest of their place empty.
        self.photos = torch.zeros(
            len(photos), len(photos[0]), height, width, dtype=torch.uint8, device=self.device
        )
        for place, photo in zip(self.photos, photos, strict=True):
            place[:, : photo.shape[1], : photo.shape[2]] = photo.to(self.device)
        most = max(map(len, labels), default=0)
        keypoints = np.full((len(photos), max(most, 1), 2), np.nan)
        for row, points in zip(keypoints, labels, strict=True):
            row[: len(points)] = points
        self.keypoints = torch.from_numpy(keypoints).to(self.device)

    def batches(self, step: int, batch_size: int) -> Iterator[Batch]:
        """The batches of step ``step`` and all that follow."""
        while True:
            yield self.batch(step, batch_size)
            step += 1

    def batch(self, step: int, batch_size: int) -> Batch:
        """This process's pairs of a step; they depend on seed, step, rank and batch size only.

        Args:
            step: Optimiser step.
            batch_size: Pairs per process.

        Returns:
            What a ``DataLoader`` over :class:`WarpedPairs` collates, on the device.
        """
        first = (step * self.world_size + self.rank) * batch_size
        indices = range(first, first + batch_size)
        chosen = np.array([photograph(self.seed, i, self.photographs) for i in indices])
        rng = np.random.default_rng((self.seed, step, self.rank, 2))
        if self.config.drawings:
            drawn = rng.random(batch_size) < self.config.drawings
            chosen[drawn] = self.photographs + rng.integers(DRAWINGS, size=drawn.sum())
        generator = torch.Generator(self.device)
        generator.manual_seed(int(rng.integers(2**62)))
        # Photographs lie there at the largest size that pairs show them at, drawings at their own.
        zooms = np.array([self.config.zooms[i % len(self.config.zooms)] for i in indices])
        factors = np.where(chosen < self.photographs, zooms / max(self.config.zooms), 1.0)
        homographies = self._homographies(rng, chosen, factors)
        views = [self._view(chosen, matrices, generator) for matrices in homographies]
        between = homographies[1] @ np.linalg.inv(homographies[0])
        between /= between[:, 2:, 2:]
        batch = self._items(views[0], views[1], self._to_device(between), generator)
        if self.config.drawings:
            batch["visible"] &= self._to_device(~drawn)[:, None]
        return batch

    def _homographies(
        self,
        rng: np.random.Generator,
        chosen: npt.NDArray[np.intp],
        factors: npt.NDArray[np.float64],
    ) -> tuple[Matrix, Matrix]:
        """Homographies (B, 3, 3) from the photographs to the first and to the second images.

        A pair sees its photograph made smaller by its factor.
        """
        config, count = self.config, len(chosen)
        room = (self.sizes[chosen] * factors[:, None] - config.size)[:, ::-1]
        frame = np.stack([resize_matrix(factor, factor) for factor in factors])
        frame[:, :2, 2] -= rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
        mild, strong = (
            sample_homographies(rng, config.size, warp, count) @ frame
            for warp in (config.mild, config.strong)
        )
        swap = rng.random((count, 1, 1)) < 0.5
        return np.where(swap, strong, mild), np.where(swap, mild, strong)

    def _view(
        self, chosen: npt.NDArray[np.intp], homographies: Matrix, generator: torch.Generator
    ) -> ViewBatch:
        """Warp photographs and their labels, and change their look."""
        config = self.config
        rows = self._to_device(chosen)
        sizes = self._to_device(self.sizes[chosen].astype(np.float64))
        forward = self._to_device(homographies)
        centres = (self.sizes[chosen][:, ::-1] - 1) / 2
        inverse = np.linalg.inv(homographies)
        # The centre of the photograph must be in front, whatever the sign of the matrix.
        depth = (homographies[:, 2, :2] * centres).sum(axis=1) + homographies[:, 2, 2]
        backward = self._to_device(inverse * depth[:, None, None])
        photos = self.photos[rows]
        sigma = smoothing(homographies, config.size)
        if sigma.any():
            photos = blur(photos.float(), self._to_device(sigma).float(), sigma.max())
        images, valid = warp_batch(photos, sizes, backward, config.size, config.border)
        images = photometric_batch(images, config.photometric, generator)
        points = transform(forward, self.keypoints[rows])
        kept = inside(points, config.size)
        kept &= _at(valid, torch.where(kept[..., None], points, 0.0))
        return ViewBatch(images, valid, points, kept)

    def _items(
        self, first: ViewBatch, second: ViewBatch, between: Tensor, generator: torch.Generator
    ) -> Batch:
        config = self.config
        batch: Batch = {"homography": between.float()}
        for name, view in (("0", first), ("1", second)):
            label = one_per_cell(view, config.size, generator)
            batch[f"image{name}"] = view.images
            batch[f"valid{name}"] = valid_cells(view.valid)
            batch[f"targets{name}"] = cell_targets(
                view.points, label, config.size, soft=config.soft
            )
        batch["points0"], batch["points1"], batch["visible"] = correspondences(
            first, second, between, config.size, generator
        )
        return batch

    def _to_device(self, values: npt.NDArray[Any]) -> Tensor:
        return to_device(values, self.device)


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of an array, without waiting for what a GPU is doing: it trains meanwhile."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def warp_batch(
    photos: Tensor, sizes: Tensor, inverse: Tensor, size: tuple[int, int], border: float
) -> tuple[Tensor, Tensor]:
    """Warp photographs of different sizes, continued by reflection beyond their borders.

    Args:
        photos: (B, C, H, W) uint8 or float, each in the top-left corner of its place.
        sizes: (B, 2) float64, height and width of each.
        inverse: (B, 3, 3) float64, from the warped image to the photograph, positive depth in
            front.
        size: (height, width) of the warped images.
        border: Pixels next to the photograph's border that are not valid.

    Returns:
        (B, C, height, width) float32 grey levels, and which pixels show the photograph,
        (B, height, width).
    """
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64, device=photos.device) for n in size), indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    u, v, depth = (pixels @ inverse.transpose(1, 2)).unbind(dim=-1)
    last = (sizes - 1)[:, :, None]
    bottom, right = last[:, 0], last[:, 1]
    valid = (depth > 0) & (u >= border * depth) & (v >= border * depth)
    valid &= (u <= (right - border) * depth) & (v <= (bottom - border) * depth)
    depth = torch.where(depth.abs() < 1e-9, 1e-9, depth)
    u, v = _reflect(u / depth, right), _reflect(v / depth, bottom)
    h, w = photos.shape[-2:]
    grid = torch.stack([2 * u / max(w - 1, 1) - 1, 2 * v / max(h - 1, 1) - 1], dim=-1)
    warped = F.grid_sample(
        photos.float(),
        grid.float().reshape(-1, *size, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return warped, valid.reshape(-1, *size)


def _reflect(position: Tensor, last: Tensor) -> Tensor:
    """Coordinates mirrored at the first and the last pixel centre, as BORDER_REFLECT_101."""
    period = 2 * last.clamp(min=1)
    folded = torch.remainder(position, period)
    return torch.minimum(folded, period - folded)


def transform(homographies: Tensor, points: Tensor) -> Tensor:
    """(B, 3, 3) and (B, N, 2) -> (B, N, 2); NaN for points behind the camera."""
    sign = torch.where(homographies[:, 2:, 2:] < 0, -1.0, 1.0)
    rotated = points @ homographies[:, :, :2].transpose(1, 2) + homographies[:, None, :, 2]
    rotated = rotated * sign
    depth = rotated[..., 2:]
    return rotated[..., :2] / torch.where(depth > 1e-9, depth, torch.nan)


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which (..., 2) points lie in an image; NaN never does."""
    x, y = points.unbind(dim=-1)
    return (x >= 0) & (y >= 0) & (x <= size[1] - 1) & (y <= size[0] - 1)


def _at(mask: Tensor, points: Tensor) -> Tensor:
    """Values of (B, H, W) at the pixels nearest to (B, N, 2) points inside."""
    x, y = points.round().long().unbind(dim=-1)
    return mask.flatten(1).gather(1, y * mask.shape[2] + x)


def valid_cells(mask: Tensor) -> Tensor:
    """(B, H, W) -> (B, H/8, W/8): cells all of whose pixels are valid."""
    count, h, w = mask.shape
    cells = mask.reshape(count, h // CELL_SIZE, CELL_SIZE, w // CELL_SIZE, CELL_SIZE)
    return cells.all(dim=4).all(dim=2)


def _cells_of(points: Tensor, columns: int) -> Tensor:
    x, y = points.round().long().unbind(dim=-1)
    return y // CELL_SIZE * columns + x // CELL_SIZE


def one_per_cell(view: ViewBatch, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Choose at random which keypoint of a cell is its label: (B, K) boolean."""
    columns = size[1] // CELL_SIZE
    places = size[0] // CELL_SIZE * columns
    # Points that do not count share one more cell, the last.
    points = torch.where(view.kept[..., None], view.points, 0.0)
    cell = torch.where(view.kept, _cells_of(points, columns), places)
    lot = torch.rand(cell.shape, generator=generator, device=cell.device)
    rank = lot.argsort(dim=1).argsort(dim=1)
    best = torch.full((len(cell), places + 1), cell.shape[1], device=cell.device)
    best = best.scatter_reduce(1, cell, rank, "amin")
    return view.kept & (best.gather(1, cell) == rank)


def cell_targets(points: Tensor, label: Tensor, size: tuple[int, int], *, soft: bool) -> Tensor:
    """Cell targets as :func:`train.data.labels.labels_from_points` makes them.

    Args:
        points: (B, K, 2).
        label: (B, K) boolean, one keypoint per cell.
        size: (height, width).
        soft: Spread over the four pixels around a sub-pixel position, or one hard pixel.

    Returns:
        (B, 65, H/8, W/8) float32, summing to 1 over the channels.
    """
    h, w = size
    rows, columns = h // CELL_SIZE, w // CELL_SIZE
    points = torch.where(label[..., None], points, 0.0)
    if soft:
        corner = torch.arange(4, device=points.device)
        near = torch.stack([corner % 2, corner // 2], dim=1)
        low = points.floor()
        share = points - low
        pixels = low[:, :, None].long() + near
        weights = (1 - near - share[:, :, None]).abs().prod(dim=-1)
    else:
        pixels = points.round().long()[:, :, None]
        weights = torch.ones_like(points[..., :1])
    x, y = pixels.unbind(dim=-1)
    x, y = x.clamp(max=w - 1), y.clamp(max=h - 1)
    channel = y % CELL_SIZE * CELL_SIZE + x % CELL_SIZE
    place = (channel * rows + y // CELL_SIZE) * columns + x // CELL_SIZE
    weights = (weights * label[..., None]).float()
    targets = torch.zeros(len(points), (DUSTBIN + 1) * rows * columns, device=points.device)
    targets.scatter_add_(1, place.flatten(1), weights.flatten(1))
    targets = targets.reshape(-1, DUSTBIN + 1, rows, columns)
    # Two keypoints on either side of a cell's border may exceed one.
    targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
    targets[:, DUSTBIN] = (1 - targets.sum(dim=1)).clamp(min=0)
    return targets


def correspondences(
    first: ViewBatch,
    second: ViewBatch,
    between: Tensor,
    size: tuple[int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """One point for every cell of the first images, and where it lies in the second.

    See :func:`train.data.pairs.correspondences`.

    Returns:
        Points of both images, (B, H/8 * W/8, 2) float32 each, and which are visible in both.
    """
    rows, columns = size[0] // CELL_SIZE, size[1] // CELL_SIZE
    count, device = len(first.points), first.points.device
    i, j = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    corners = torch.stack([j, i], dim=-1).reshape(-1, 2) * CELL_SIZE
    lot = torch.rand(count, rows * columns, 2, generator=generator, device=device)
    points = corners - 0.5 + CELL_SIZE * lot.double()
    label = one_per_cell(first, size, generator)
    chosen = torch.where(label[..., None], first.points, 0.0)
    # Labels overwrite their cell's point; all other points write beyond the end.
    cell = torch.where(label, _cells_of(chosen, columns), rows * columns)
    longer = torch.cat([points, points[:, :1]], dim=1)
    points = longer.scatter(1, cell[..., None].expand(-1, -1, 2), chosen)[:, :-1]
    there = transform(between, points)
    visible = inside(points, size) & inside(there, size)
    points, there = (torch.where(visible[..., None], p, 0.0) for p in (points, there))
    visible = visible & _at(first.valid, points) & _at(second.valid, there)
    return points.float(), there.float(), visible
