"""Synthetic shapes, drawn on the fly: the training set of MagicPoint (section 4 of the paper).

Every sample depends on ``(seed, index)`` and on nothing else, bit for bit, whichever process draws
it and in whatever order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.errors import SuperPointError
from cv_superpoint.geometry import HomographyConfig, inside, sample_homography
from cv_superpoint.synthetic.photometric import Image, PhotometricConfig, photometric
from cv_superpoint.synthetic.polygons import Shape, grey_paint, random_colours
from cv_superpoint.synthetic.shapes import SHAPES


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What is drawn.

    Attributes:
        size: (height, width), multiples of 8.
        shapes: Names from :data:`cv_superpoint.synthetic.shapes.SHAPES`, drawn equally often.
        homography: The view of the shape; its vertices are warped before they are drawn.
        photometric: Changes after drawing.
        clean: Skip the photometric changes (evaluation).
        soft: Sub-pixel labels instead of one hard pixel.
        labels: Keypoints are the visible vertices of the "drawing", or the "corners" that a corner
            detector finds on the clean drawing.
        colour: Three channels (RGB); every region gets a colour as light as its grey.
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
    labels: Literal["drawing", "corners"] = "drawing"
    colour: bool = False

    def __post_init__(self) -> None:
        if self.size[0] % 8 or self.size[1] % 8:
            raise SuperPointError(f"size must be multiples of 8, got {self.size}")
        if unknown := set(self.shapes) - set(SHAPES):
            raise SuperPointError(f"shapes must be among {sorted(SHAPES)}, got {sorted(unknown)}")


@dataclass(frozen=True)
class SyntheticSample:
    """One drawing: image (H, W) or (H, W, 3) RGB uint8, (N, 2) keypoints, the shape's name."""

    image: Image
    keypoints: npt.NDArray[np.float64]
    shape: str


def background(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Image:
    """A ground with soft texture: no corners, so nothing to detect."""
    finest = 24
    texture = np.zeros((finest, finest), np.float32)
    for cells in (3, 8, finest):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        strength = rng.uniform(0, 8) * (rng.random() < 0.6)
        if strength:
            enlarged = cv2.resize(coarse, (finest, finest), interpolation=cv2.INTER_CUBIC)
            texture += enlarged * np.float32(strength)
    if not texture.any():
        return np.full(size, int(ground), np.uint8)
    whole = cv2.resize(texture, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(whole + np.float32(ground), 0, 255), dtype=np.uint8)


def corner_labels(drawing: Image) -> npt.NDArray[np.float64]:
    """The corners that a detector finds on a drawing: Shi-Tomasi, then sub-pixel refinement.

    Args:
        drawing: (H, W), clean.

    Returns:
        (N, 2) points inside the image.
    """
    found = cv2.goodFeaturesToTrack(
        drawing, maxCorners=0, qualityLevel=0.05, minDistance=4, blockSize=3
    )
    if found is None or not len(found):
        return np.empty((0, 2))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 30, 0.01)
    corners = cv2.cornerSubPix(drawing, found.reshape(-1, 1, 2).copy(), (3, 3), (-1, -1), stop)
    points = corners.reshape(-1, 2).astype(np.float64)
    return points[inside(points, (drawing.shape[0], drawing.shape[1]))]


def _describe(rng: np.random.Generator, name: str, config: SyntheticConfig, ground: float) -> Shape:
    """A shape of a kind as a random camera sees it."""
    while True:
        homography = sample_homography(rng, config.size, config.homography)
        shape = SHAPES[name](rng, config.size, ground).warped(homography)
        if shape is not None:
            return shape


def draw_sample(seed: int, index: int, config: SyntheticConfig) -> SyntheticSample:
    """Draw sample ``index`` of the endless set ``seed``."""
    rng = np.random.default_rng((seed, index))
    name = config.shapes[int(rng.integers(len(config.shapes)))]
    ground = float(rng.uniform(10, 245))
    shape = _describe(rng, name, config, ground)
    canvas = background(rng, config.size, ground)
    if config.colour:
        paint = random_colours(np.random.default_rng((seed, index, 2)))
        tint = np.array(paint(ground)) - ground
        canvas = np.clip(np.rint(canvas[..., None] + tint), 0, 255).astype(np.uint8)
    else:
        paint = grey_paint
    image = shape.draw(canvas, paint)
    if shape.noise:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(shape.noise)
        image = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
    if not config.clean:
        image = photometric(rng, image, config.photometric)
    if config.labels == "corners":
        flat = np.full(config.size, int(ground), np.uint8)
        return SyntheticSample(image, corner_labels(shape.draw(flat)), name)
    return SyntheticSample(image, shape.visible_keypoints(config.size), name)
