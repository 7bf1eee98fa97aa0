"""Synthetic shapes, drawn on the fly: the training set of MagicPoint (section 4 of the paper).

Every sample depends on ``(seed, index)`` and on nothing else, bit for bit, whichever process draws
it and in whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from train.data.augment import Image, PhotometricConfig, photometric
from train.data.shapes import SHAPES
from train.geometry.homography import HomographyConfig, sample_homography
from train.labels import labels_from_points


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What is drawn.

    Attributes:
        size: (height, width), multiples of 8.
        shapes: Names from :data:`train.data.shapes.SHAPES`, drawn equally often.
        homography: The view of the shape; its vertices are warped before they are drawn.
        photometric: Changes after drawing.
        clean: Skip the photometric changes (evaluation).
        soft: Sub-pixel labels instead of one hard pixel.
    """

    size: tuple[int, int] = (120, 160)
    shapes: tuple[str, ...] = tuple(SHAPES)
    homography: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.6, 1.5), rotation=np.pi, corner_jitter=0.2, translation=0.15
        )
    )
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    clean: bool = False
    soft: bool = True

    def __post_init__(self) -> None:
        if self.size[0] % 8 or self.size[1] % 8:
            raise ValueError(f"size must be multiples of 8, got {self.size}")
        if unknown := set(self.shapes) - set(SHAPES):
            raise ValueError(f"shapes must be among {sorted(SHAPES)}, got {sorted(unknown)}")


@dataclass(frozen=True)
class SyntheticSample:
    """One drawing: grey image (H, W) uint8, (N, 2) visible vertices, the shape's name."""

    image: Image
    keypoints: npt.NDArray[np.float64]
    shape: str


def background(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Image:
    """A grey ground with soft texture: no corners, so nothing to detect."""
    h, w = size
    image = np.full(size, ground, np.float32)
    for cells in (3, 8, 24):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        texture = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
        image += texture * np.float32(rng.uniform(0, 8) * (rng.random() < 0.6))
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_sample(seed: int, index: int, config: SyntheticConfig) -> SyntheticSample:
    """Draw sample ``index`` of the endless set ``seed``."""
    rng = np.random.default_rng((seed, index))
    name = config.shapes[int(rng.integers(len(config.shapes)))]
    ground = float(rng.uniform(10, 245))
    shape = SHAPES[name](rng, config.size, ground)
    homography = sample_homography(rng, config.size, config.homography)
    shape = shape.warped(homography)
    image = shape.draw(background(rng, config.size, ground))
    if not config.clean:
        image = photometric(rng, image, config.photometric)
    return SyntheticSample(image, shape.visible_keypoints(config.size), name)


class SyntheticShapes(Dataset[dict[str, Tensor]]):
    """Map-style endless set for a ``DataLoader``: item -> image and cell targets."""

    def __init__(self, seed: int, config: SyntheticConfig) -> None:
        self.seed = seed
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = draw_sample(self.seed, index, self.config)
        rng = np.random.default_rng((self.seed, index, 1))
        targets = labels_from_points(rng, sample.keypoints, self.config.size, soft=self.config.soft)
        return {
            "image": torch.from_numpy(sample.image)[None],
            "targets": torch.from_numpy(targets),
        }
