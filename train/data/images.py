"""Photographs: any folder tree, any format that OpenCV reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cv_superpoint.errors import PictureError
from cv_superpoint.geometry import Matrix, resize_matrix, translate
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.pictures.reading import load_picture

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Size at which photographs are labelled and cut into training pairs.

    Attributes:
        shorter_side: Pixels; photographs are resized, up or down, to have it.
        longest_side: The rest of a longer side is cut off, half at either end.
        colour: Three channels, RGB, for a network with ``in_channels=3``; grey otherwise.
    """

    shorter_side: int = 240
    longest_side: int = 360
    colour: bool = False

    def __post_init__(self) -> None:
        if not CELL_SIZE <= self.shorter_side <= self.longest_side:
            raise ValueError(
                f"shorter_side must be at least {CELL_SIZE} and at most longest_side, got "
                f"{self.shorter_side} and {self.longest_side}"
            )


def load_image(path: Path, config: ImageConfig) -> npt.NDArray[np.uint8]:
    """A photograph at working size, upright.

    Args:
        path: Path of the image.
        config: The working size.

    Returns:
        uint8, (H, W) or, in colour, (H, W, 3) RGB as the networks take it; H and W are multiples
        of 8.

    Raises:
        PictureError: If it cannot be read, or only in part.
    """
    return load_enlarged(path, config, 1.0)[0]


def load_enlarged(
    path: Path, config: ImageConfig, zoom: float
) -> tuple[npt.NDArray[np.uint8], Matrix]:
    """What :func:`load_image` shows, larger.

    Args:
        path: Path of the image.
        config: The working size.
        zoom: How many times as large.

    Returns:
        The picture, and the homography from the one of working size to it. At its borders it may
        show up to 8 pixels more or less.
    """
    image: npt.NDArray[Any] = load_picture(path, grey=not config.colour).pixels
    if config.colour:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    larger = replace(
        config,
        shorter_side=round(zoom * config.shorter_side),
        longest_side=round(zoom * config.longest_side),
    )
    (width, height), (top, left), (h, w) = _part(image.shape, larger)
    frame = _frame(image.shape, larger) @ np.linalg.inv(_frame(image.shape, config))
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    image = cv2.resize(image, (width, height), interpolation=method).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image[top : top + h, left : left + w]), frame


def _part(shape: tuple[int, ...], config: ImageConfig) -> tuple[tuple[int, int], ...]:
    """(width, height) to resize to; (top, left) and (height, width) of what is kept of that."""
    factor = config.shorter_side / min(shape[:2])
    height, width = (round(side * factor) for side in shape[:2])
    h, w = (min(side, config.longest_side) // CELL_SIZE * CELL_SIZE for side in (height, width))
    return (width, height), ((height - h) // 2, (width - w) // 2), (h, w)


def _frame(shape: tuple[int, ...], config: ImageConfig) -> Matrix:
    """Homography from a picture's pixels to those of what is kept of it."""
    (width, height), (top, left), _ = _part(shape, config)
    return translate(-left, -top) @ resize_matrix(width / shape[1], height / shape[0])


def load_or_none(
    path: Path, config: ImageConfig, zoom: float = 1.0
) -> tuple[npt.NDArray[np.uint8], Matrix] | None:
    """:func:`load_enlarged`; None, and a warning, for a photograph that cannot be read any more.

    Those that could not be read when the run began are not among its photographs.
    """
    try:
        return load_enlarged(path, config, zoom)
    except PictureError as error:
        tell_once(error)
        return None


def load_readable(paths: Iterable[Path], config: ImageConfig) -> Iterator[npt.NDArray[np.uint8]]:
    """The photographs that :func:`load_or_none` can read."""
    for path in paths:
        loaded = load_or_none(path, config)
        if loaded is not None:
            yield loaded[0]


def tell_once(error: PictureError) -> None:
    """Warn of a photograph that cannot be read any more, once in a process."""
    if str(error) not in _TOLD:
        _TOLD.add(str(error))
        log.warning("%s; the run goes on without it", error)


_TOLD: set[str] = set()


def to_tensor(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    """(H, W) or (H, W, C) uint8 -> (C, H, W) uint8, the axes of a network's input."""
    channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(channels))
