"""What to do with an image that is no uint8 array: the conversion, by where it comes from.

It is told, not done: an array does not say whether channels are RGB and whether values end at 1.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np


def describe(value: Any) -> str:
    """Type of a value, and the shape and the values' type where it has them."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    kind = type(value)
    module = kind.__module__.split(".")[0]
    name = kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"
    details = [value.mode] if isinstance(getattr(value, "mode", None), str) else []
    details += [str(value.dtype), str(tuple(value.shape))] if _has_shape(value) else []
    return " ".join([name, *details])


def _has_shape(value: Any) -> bool:
    return hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple)


def remedy(value: Any) -> str:
    """How an image that is no numpy array becomes one, as a clause after a semicolon."""
    if value is None:
        return "cv2.imread gives None where it cannot read a file: check its name"
    if isinstance(value, (str, os.PathLike)):
        return f"it names a file; read it with cv2.imread({str(value)!r})"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "decode it with cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)"
    if isinstance(value, (list, tuple)):
        return (
            "lists of images go to detect, compute and extractBatch; of one image's rows make an "
            "array with np.array(image, np.uint8)"
        )
    module = type(value).__module__.split(".")[0]
    if module == "PIL" and hasattr(value, "mode"):
        return _of_pil(value.mode)
    if module == "torch" and _has_shape(value):
        return _of_torch(value)
    if module == "cv2" and hasattr(value, "download"):
        return "convert with image.download()"
    array = "image.get()" if module == "cupy" else "np.asarray(image)"
    return f"convert with {array}, and to BGR if its channels are RGB"


def _of_pil(mode: str) -> str:
    if mode == "L":
        return "convert with np.asarray(image)"
    if mode == "1" or mode[0] in "IF":
        return "convert with cv_superpoint.to_uint8(np.asarray(image))"
    return (
        "PIL's channels are RGB, OpenCV's BGR; convert with "
        "cv2.cvtColor(np.asarray(image.convert('RGB')), cv2.COLOR_RGB2BGR)"
    )


def _of_torch(tensor: Any) -> str:
    shape, text = tuple(tensor.shape), "image"
    if len(shape) == 4:
        shape, text = shape[1:], "image[0]"
    if tensor.requires_grad:
        text += ".detach()"
    if len(shape) == 3 and shape[0] == 1:
        shape, text = shape[1:], f"{text}[0]"
    is_colour = len(shape) == 3 and shape[0] == 3
    if is_colour:
        text += ".permute(1, 2, 0)"
    text += ".cpu().numpy()"
    if str(tensor.dtype) != "torch.uint8":
        bounds = ", 0, 1" if tensor.is_floating_point() else ""
        text = f"cv_superpoint.to_uint8({text}{bounds})"
    if not is_colour:
        return f"convert with {text}"
    return (
        "images in torch are (C, H, W), RGB, mostly from 0 to 1; convert with "
        f"cv2.cvtColor({text}, cv2.COLOR_RGB2BGR)"
    )


def array_remedy(image: np.ndarray[Any, Any]) -> str:
    """How an array of another type than uint8 becomes an image, as a clause after a semicolon."""
    if image.dtype.kind not in "buif":
        return "an image is numbers"
    if image.dtype.kind == "f":
        return (
            "convert with cv_superpoint.to_uint8(image, 0, 1) if it lies in [0, 1], otherwise with "
            "cv_superpoint.to_uint8(image)"
        )
    return "convert with cv_superpoint.to_uint8(image)"


def shape_remedy(image: np.ndarray[Any, Any]) -> str:
    """What an array of the wrong shape may be, as a clause after a semicolon."""
    if image.ndim == 3 and image.shape[0] in (1, 3, 4):
        return "if it is (C, H, W), convert with image.transpose(1, 2, 0); several go as a list"
    return "for several images pass a list"
