"""Ranges for 8 bits on a user's photographs, and what 8 bits cost there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import choose, make_backend
from cv_superpoint.errors import PictureError, SuperPointError
from cv_superpoint.evaluation.paired import REFERENCE, Comparison, compare
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs, resize
from cv_superpoint.files.listing import list_pictures
from cv_superpoint.pictures.arrays import to_channels
from cv_superpoint.pictures.reading import picture_or_why
from cv_superpoint.weights import LoadedWeights

SIZE = (240, 320)
"""Height and width of the middle of each photograph, which is all that is used."""


def spread_photographs(folder: Path, count: int) -> list[Path]:
    """Picture files of a folder and its subfolders, ``count`` at most, at equal distances.

    Raises:
        SuperPointError: If there is no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise SuperPointError(f"{folder} is not a folder; give one that holds photographs")
    paths = [path for path, _ in list_pictures([folder]).pictures]
    if not paths:
        raise SuperPointError(f"no picture in {folder}; name another folder")
    places = np.linspace(0, len(paths) - 1, min(count, len(paths)))
    return [paths[round(place)] for place in places]


def crops(paths: Iterable[Path], channels: int) -> Iterator[NDArray[np.uint8]]:
    """The middle of each photograph that can be read, as a network takes it.

    Args:
        paths: Paths of the files.
        channels: 1 for grey, 3 for RGB.

    Yields:
        (H, W, channels) of :data:`SIZE`, of the photograph scaled so that it covers that.
    """
    height, width = SIZE
    for path in paths:
        picture = picture_or_why(path, grey=channels == 1)
        if isinstance(picture, PictureError):
            continue
        image = picture.pixels
        image = resize(image, max(height / image.shape[0], width / image.shape[1]))
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        crop = to_channels(image[top : top + height, left : left + width], channels)
        yield crop.reshape(height, width, channels)


def compare_int8(
    weights: LoadedWeights, photographs: Path, pairs_per_image: int, *, backend: str = "auto"
) -> dict[str, Comparison]:
    """float32 and int8 on warped pairs of a folder's photographs.

    Raises:
        ImportError: If nothing that computes in 8 bits is installed.
        FeatureError: If this CPU does not.
    """
    config = WarpConfig(pairs_per_image=pairs_per_image, seed=7)
    candidates = {
        name: make_backend(weights, choose(backend=which, device="cpu", precision=name))
        for name, which in ((REFERENCE, "auto"), ("int8", backend))
    }
    pairs = WarpedPhotographs(root=photographs, config=config)
    return compare(pairs, PROTOCOLS["warp"], weights, candidates)
