"""Picture files made for a test: with an orientation, with any type of values."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import skimage.data
import tifffile
from PIL import Image, ImageOps

RGB = np.ascontiguousarray(skimage.data.astronaut()[20:180, 150:360])
"""160 x 210 of a face: no two turns of it are alike."""


def with_orientation(kind: str, value: int, rgb: np.ndarray = RGB) -> bytes:
    """A JPEG, PNG, WEBP, TIFF or AVIF file whose stored pixels are ``rgb``."""
    image, file = Image.fromarray(rgb), io.BytesIO()
    if kind == "TIFF":
        image.save(file, kind, tiffinfo={274: value})
        return file.getvalue()
    exif = Image.Exif()
    exif[274] = value
    options = {"WEBP": {"lossless": True}, "PNG": {}}.get(kind, {"quality": 95})
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


def upright(value: int, rgb: np.ndarray = RGB) -> np.ndarray:
    """What viewers show for such a file, BGR."""
    image = Image.fromarray(rgb)
    image.getexif()[274] = value
    return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image))[..., ::-1])


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """A TIFF file of these values."""
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()
