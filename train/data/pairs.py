"""Warped pairs of photographs with pseudo-labels: the training set of the joint stage.

Every pair depends on ``(seed, index)``, the photographs and their labels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cv_superpoint.geometry import (
    HomographyConfig,
    Matrix,
    inside,
    sample_homography,
    smoothed,
    translate,
    valid_mask,
    warp_image,
    warp_points,
)
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.synthetic.photometric import Image, PhotometricConfig, photometric
from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample
from train.data.images import ImageConfig, load_or_none, to_tensor
from train.data.labels import labels_from_points, one_per_cell, valid_cells


@dataclass(frozen=True)
class LabelledImage:
    """A photograph and its keypoints: (N, 2) as (x, y) of the image at working size."""

    path: Path
    keypoints: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """How a pair is made of one photograph.

    Attributes:
        size: (height, width) of both images, multiples of 8.
        mild: Warp of one image.
        strong: Warp of the other one; a random draw decides which is which.
        photometric: Changes of both.
        border: Pixels next to the photograph's border that do not count.
        soft: Sub-pixel labels instead of one hard pixel.
        drawings: Share of the pairs that show a synthetic drawing instead of a photograph. Its
            labels are its vertices, which no detector had to find; descriptors do not learn from
            it, since one corner of a chequerboard is like another.
        zooms: Sizes that a photograph is shown at, as factors of the working size; pairs take them
            in turn. Larger ones are blurred more, and show less of the photograph.
    """

    size: tuple[int, int] = (192, 256)
    mild: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.7, 1.2), rotation=0.2, corner_jitter=0.06, translation=0.05, flip=0.5
        )
    )
    strong: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.55, 1.2), rotation=0.7, any_angle=0.15, corner_jitter=0.16, translation=0.08
        )
    )
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    border: float = 3.0
    soft: bool = True
    drawings: float = 0.0
    zooms: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.zooms or min(self.zooms) <= 0:
            raise ValueError(f"zooms must be positive factors, got {self.zooms}")
        if not 0 <= self.drawings <= 1:
            raise ValueError(f"drawings must be a share in [0, 1], got {self.drawings}")
        if min(self.size) < CELL_SIZE or any(side % CELL_SIZE for side in self.size):
            raise ValueError(f"size must be multiples of {CELL_SIZE}, got {self.size}")


@dataclass(frozen=True)
class View:
    """One image of a pair.

    Attributes:
        image: (H, W) or (H, W, 3) RGB, uint8.
        keypoints: (N, 2) labels inside the image.
        valid: (H, W) boolean, pixels that show the photograph.
        homography: Homography from the photograph to the image.
        drawn: Whether it is a drawing and not a photograph.
    """

    image: Image
    keypoints: npt.NDArray[np.float64]
    valid: npt.NDArray[np.bool_]
    homography: Matrix
    drawn: bool = False


def make_view(
    photo: Image,
    keypoints: npt.NDArray[np.float32],
    homography: Matrix,
    config: PairConfig,
    rng: np.random.Generator,
) -> View:
    """Warp a photograph and its labels, and change its look."""
    smooth = smoothed(photo, homography, config.size)
    image = photometric(rng, warp_image(smooth, homography, config.size), config.photometric)
    valid = valid_mask(homography, (photo.shape[0], photo.shape[1]), config.size, config.border)
    points = warp_points(homography, keypoints)
    points = points[inside(points, config.size)]
    x, y = np.round(points).astype(np.int64).T
    return View(image, points[valid[y, x]], valid, homography)


def make_pair(
    rng: np.random.Generator,
    photo: Image,
    keypoints: npt.NDArray[np.float32],
    config: PairConfig,
) -> tuple[View, View]:
    """Two views of a random part of a photograph; ``H_0to1`` is ``H1 @ inv(H0)`` of the views."""
    room = np.array([photo.shape[1] - config.size[1], photo.shape[0] - config.size[0]])
    corner = rng.uniform(np.minimum(room, 0), np.maximum(room, 0) + 1e-9)
    frame = translate(*-corner)
    views = [
        make_view(photo, keypoints, sample_homography(rng, config.size, warp) @ frame, config, rng)
        for warp in (config.mild, config.strong)
    ]
    if rng.random() < 0.5:
        views.reverse()
    return views[0], views[1]


def correspondences(
    rng: np.random.Generator, first: View, second: View
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """One point for every cell of the first image, and where it lies in the second.

    A cell's point is its keypoint if it has one (descriptors are read there), else a random pixel.

    Args:
        rng: Source of randomness.
        first: Image 0.
        second: Image 1.

    Returns:
        Points of image 0 and of image 1, each (H/8 * W/8, 2), and which are visible in both: none
        in drawings.
    """
    size = (first.image.shape[0], first.image.shape[1])
    rows, columns = size[0] // CELL_SIZE, size[1] // CELL_SIZE
    j, i = np.meshgrid(np.arange(columns), np.arange(rows))
    points = np.stack([j.ravel(), i.ravel()], axis=1) * CELL_SIZE
    points = points + rng.uniform(-0.5, CELL_SIZE - 0.5, points.shape)
    kept = first.keypoints[one_per_cell(rng, first.keypoints, size)]
    pixels = np.round(kept).astype(np.int64)
    points[pixels[:, 1] // CELL_SIZE * columns + pixels[:, 0] // CELL_SIZE] = kept
    there = warp_points(second.homography @ np.linalg.inv(first.homography), points)
    visible = inside(there, size) & inside(points, size) & (not first.drawn)
    there[~visible] = 0
    points[~visible] = 0
    for view, where in ((first, points), (second, there)):
        x, y = np.round(where).astype(np.int64).T
        visible &= view.valid[y, x]
    return points.astype(np.float32), there.astype(np.float32), visible


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng((seed, epoch, 1)).permutation(count)


def photograph(seed: int, index: int, count: int) -> int:
    """Which of ``count`` photographs pair ``index`` shows.

    Every one comes once before any comes twice, in a new order each time.
    """
    epoch, position = divmod(index, count)
    return int(_order(seed, epoch, count)[position])


def draw(
    seed: int, index: int, sizes: ImageConfig, config: PairConfig
) -> tuple[Image, npt.NDArray[np.float32]]:
    """A drawing of the size of the pair to be made of it, and its vertices."""
    data = SyntheticConfig(size=config.size, clean=True, colour=sizes.colour)
    sample = draw_sample(seed, index, data)
    return sample.image, sample.keypoints.astype(np.float32)


class WarpedPairs(Dataset[dict[str, Tensor]]):
    """Map-style endless set for a ``DataLoader``: item -> two images, their labels, the points."""

    def __init__(
        self, seed: int, images: Sequence[LabelledImage], sizes: ImageConfig, config: PairConfig
    ) -> None:
        self.seed = seed
        self.images = images
        self.sizes = sizes
        self.config = config

    def views(self, index: int) -> tuple[View, View, np.random.Generator]:
        """The two views of pair ``index``, and the generator for what follows."""
        rng = np.random.default_rng((self.seed, index))
        if self.config.drawings and rng.random() < self.config.drawings:
            photo, keypoints = draw(self.seed, index, self.sizes, self.config)
            first, second = make_pair(rng, photo, keypoints, self.config)
            return replace(first, drawn=True), replace(second, drawn=True), rng
        photo, keypoints = self._photograph(index)
        return *make_pair(rng, photo, keypoints, self.config), rng

    def _photograph(self, index: int) -> tuple[Image, npt.NDArray[np.float32]]:
        """The photograph of pair ``index``, or the next that can be read, and its keypoints."""
        zoom = self.config.zooms[index % len(self.config.zooms)]
        first = photograph(self.seed, index, len(self.images))
        count = len(self.images)
        for step in range(count):
            chosen = self.images[(first + step) % count]
            loaded = load_or_none(chosen.path, self.sizes, zoom)
            if loaded is not None:
                photo, frame = loaded
                return photo, warp_points(frame, chosen.keypoints).astype(np.float32)
        raise ValueError(f"none of the {count} photographs can be read any more")

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first, second, rng = self.views(index)
        item: dict[str, Tensor] = {}
        for name, view in (("0", first), ("1", second)):
            targets = labels_from_points(
                rng, view.keypoints, self.config.size, soft=self.config.soft
            )
            item[f"image{name}"] = to_tensor(view.image)
            item[f"valid{name}"] = torch.from_numpy(valid_cells(view.valid))
            item[f"targets{name}"] = torch.from_numpy(targets)
        homography = second.homography @ np.linalg.inv(first.homography)
        item["homography"] = torch.from_numpy(homography / homography[2, 2]).float()
        points = correspondences(rng, first, second)
        names = ("points0", "points1", "visible")
        return item | {k: torch.from_numpy(v) for k, v in zip(names, points, strict=True)}
