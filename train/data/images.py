"""Photographs: any folder tree, any format that OpenCV reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cv_superpoint.network import CELL_SIZE

SUFFIXES = {
    *(".bmp", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}


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


def list_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted.

    Raises:
        ValueError: If there are none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"no images below {folder}; known formats: {', '.join(sorted(SUFFIXES))}")
    return paths


def load_image(path: Path, config: ImageConfig) -> npt.NDArray[np.uint8]:
    """A photograph at working size.

    Args:
        path: Of the image.
        config: The working size.

    Returns:
        uint8, (H, W) or, in colour, (H, W, 3) RGB as the networks take it; H and W are multiples
        of 8.

    Raises:
        ValueError: If OpenCV cannot read it.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR if config.colour else cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"cannot read {path} as an image; convert or remove it")
    if config.colour:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    factor = config.shorter_side / min(image.shape[:2])
    width, height = round(image.shape[1] * factor), round(image.shape[0] * factor)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, (width, height), interpolation=method)
    h, w = (min(n, config.longest_side) // CELL_SIZE * CELL_SIZE for n in image.shape[:2])
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return np.ascontiguousarray(image[top : top + h, left : left + w], dtype=np.uint8)


def to_tensor(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    """(H, W) or (H, W, C) uint8 -> (C, H, W) uint8, the layout of a network's input."""
    channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(channels))
