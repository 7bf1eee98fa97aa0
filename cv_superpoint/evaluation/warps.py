"""Pairs made from any photographs: seeded random homographies and photometric changes.

No download is needed, so this is what a training validates on. The distribution is fixed here,
apart from the one that training samples, so that a changed recipe does not change the ruler.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np

from cv_superpoint.errors import PictureError, SuperPointError
from cv_superpoint.evaluation.datasets import ImagePair, Skipped
from cv_superpoint.evaluation.metrics import Array, Size
from cv_superpoint.files.listing import list_pictures
from cv_superpoint.pictures.reading import picture_or_why


@dataclass(frozen=True, kw_only=True)
class WarpConfig:
    """Distribution of the ``warp`` pairs; every quantity is drawn anew for each pair.

    Attributes:
        size: Height and width of both images.
        pairs_per_image: Pairs from each photograph.
        seed: Seed that, with the photograph's name and the pair's number, determines the pair.
        margin: The photograph is resized to cover ``margin`` times the size, so that most of
            the second image shows photograph too; what lies outside is black.
        rotation: Degrees, uniform in +-rotation.
        scale: Log-uniform between 1 / scale and scale.
        translation: Share of each side, uniform in +-translation.
        perspective: Shift of each corner as a share of each side, uniform in +-perspective.
        contrast: Log-uniform gain between 1 / contrast and contrast, about mid-grey.
        brightness: Grey levels of 255, uniform in +-brightness.
        noise: Highest standard deviation of the Gaussian noise, in grey levels of 255.
        blur: Highest standard deviation of the Gaussian blur, in pixels.
    """

    size: Size = (240, 320)
    pairs_per_image: int = 2
    seed: int = 0
    margin: float = 1.1
    rotation: float = 25.0
    scale: float = 1.3
    translation: float = 0.1
    perspective: float = 0.15
    contrast: float = 1.4
    brightness: float = 30.0
    noise: float = 14.0
    blur: float = 1.0

    def __post_init__(self) -> None:
        if min(self.size) < 16:
            raise SuperPointError(f"size must be at least 16 x 16 pixels, got {self.size}")
        if self.pairs_per_image < 1:
            raise SuperPointError(f"pairs_per_image must be at least 1, got {self.pairs_per_image}")
        if self.margin < 1 or self.scale < 1 or self.contrast < 1:
            raise SuperPointError("margin, scale and contrast must be at least 1")
        if not 0 <= self.perspective < 0.5:
            raise SuperPointError(f"perspective must be in [0, 0.5), got {self.perspective}")


@dataclass(frozen=True, kw_only=True)
class WarpedPhotographs:
    """``warp`` pairs of every image under a folder.

    Attributes:
        root: Folder, searched with its subfolders.
        config: What to draw.
        only: Glob patterns of relative names; images that match none are passed over.
        left_out: Images that cannot be read; some only show when the pairs are made.

    Raises:
        ValueError: If there is no image.
    """

    root: Path
    config: WarpConfig = WarpConfig()
    only: tuple[str, ...] = ()
    paths: list[Path] = field(default_factory=list, init=False, repr=False)
    skipped: list[Skipped] = field(default_factory=list, init=False, repr=False)
    left_out: list[Skipped] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise SuperPointError(f"{self.root} is not a folder; give one that holds photographs")
        listing = list_pictures([self.root])
        self.paths.extend(path for path, name in listing.pictures if self._is_wanted(name))
        others = (name for _, name in listing.others if self._is_wanted(name))
        self.skipped.extend(Skipped(name, "not an image") for name in others)
        for each in listing.left_out:
            if self._is_wanted(each.name):
                self._leave_out(each.name, each.why)
        if not self.paths:
            raise SuperPointError(f"no image in {self.root} that is asked for")

    def _is_wanted(self, name: str) -> bool:
        return not self.only or any(fnmatch(name, pattern) for pattern in self.only)

    def _leave_out(self, name: str, why: str) -> None:
        entry = Skipped(name, why)
        if entry not in self.left_out:  # the pairs are made more than once
            self.left_out.append(entry)
            self.skipped.append(entry)

    def __len__(self) -> int:
        return len(self.paths) * self.config.pairs_per_image

    def __iter__(self) -> Iterator[ImagePair]:
        for name, photograph in self.photographs():
            for number in range(self.config.pairs_per_image):
                yield warp_pair(photograph, name, number, self.config)

    def photographs(self) -> Iterator[tuple[str, Array]]:
        """Relative name and (H, W) uint8 image of each that can be read."""
        for path in self.paths:
            name = path.relative_to(self.root).as_posix()
            photograph = picture_or_why(path, grey=True)
            if isinstance(photograph, PictureError):
                self._leave_out(name, str(photograph).removeprefix(f"{path}: "))
            else:
                yield name, photograph.pixels


def warp_pair(photograph: Array, name: str, number: int, config: WarpConfig) -> ImagePair:
    """Make one pair.

    Args:
        photograph: (H, W) uint8.
        name: Name of the photograph.
        number: Number of the pair among those of the photograph.
        config: What to draw.

    Returns:
        The centre of the photograph and a warped view of it, both changed photometrically.
    """
    # The name, not the position in the folder: another photograph must not change this pair.
    rng = np.random.default_rng(
        [config.seed, zlib.crc32(name.encode("utf-8", "surrogateescape")), number]
    )
    height, width = config.size
    factor = config.margin * max(height / photograph.shape[0], width / photograph.shape[1])
    photograph = resize(photograph, factor)
    top = (photograph.shape[0] - height) // 2
    left = (photograph.shape[1] - width) // 2
    first = photograph[top : top + height, left : left + width]
    h_0to1 = sample_view(config, rng)
    from_photograph = h_0to1 @ np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
    second = np.asarray(cv2.warpPerspective(photograph, from_photograph, (width, height)))
    images = (change_photometry(first, config, rng), change_photometry(second, config, rng))
    pair = f"{name} {number}"
    return ImagePair(
        name=pair,
        sequence=name,
        kind="warp",
        images=images,
        h_0to1=h_0to1,
        keys=(f"{pair} a", f"{pair} b"),
    )


def sample_view(config: WarpConfig, rng: np.random.Generator) -> Array:
    """Draw a (3, 3) float64 homography: perspective, then scale and rotation, then translation."""
    height, width = config.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5
    shift = rng.uniform(-config.perspective, config.perspective, (4, 2)) * (width, height)
    perspective = cv2.getPerspectiveTransform(
        corners.astype(np.float32), (corners + shift).astype(np.float32)
    )
    angle = math.radians(rng.uniform(-config.rotation, config.rotation))
    scale = config.scale ** rng.uniform(-1, 1)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    move_x, move_y = rng.uniform(-config.translation, config.translation, 2) * (width, height)
    to_centre = np.array([[1, 0, -centre_x], [0, 1, -centre_y], [0, 0, 1]])
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    back = np.array([[1, 0, centre_x + move_x], [0, 1, centre_y + move_y], [0, 0, 1]])
    homography = back @ turn @ to_centre @ perspective
    return np.asarray(homography / homography[2, 2])


def change_photometry(image: Array, config: WarpConfig, rng: np.random.Generator) -> Array:
    """Blur, gain, offset and noise of one camera shot; (H, W) uint8 in and out."""
    sigma = rng.uniform(0, config.blur)
    gain = config.contrast ** rng.uniform(-1, 1)
    offset = rng.uniform(-config.brightness, config.brightness)
    noise = rng.normal(0, rng.uniform(0, config.noise), image.shape)
    # Below a third of a pixel the blur's kernel is a single tap.
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)) if sigma > 0.3 else image
    changed = (blurred.astype(np.float64) - 128) * gain + 128 + offset + noise
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


def resize(image: Array, factor: float) -> Array:
    """Scale both sides of an image by about ``factor`` (to whole pixels)."""
    height, width = image.shape[:2]
    size = (math.ceil(width * factor), math.ceil(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how))
