"""Options as the types that the program works with: what is unambiguous is taken, the rest refused.

Whole floats and numpy's scalars are numbers; True is no count, and "5" no number.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from cv_superpoint.errors import FeatureError
from cv_superpoint.pictures.conversions import describe

AUTO = "auto"


LARGEST = 2**31 - 1
"""Whole number: what ``cv2.FileStorage`` and the libraries below hold."""


def as_count(name: str, value: Any, least: int = 0, also: str = "") -> int:
    """A whole number.

    Args:
        name: Name of the option, for the error.
        value: An integer of any kind, or a float without a fraction.
        least: Smallest value that is allowed.
        also: What else may be given, for the error.

    Raises:
        FeatureError: If it is anything else.
    """
    number = _plain(value)
    if not isinstance(number, (bool, np.bool_)):
        try:
            count = operator.index(number)
        except TypeError:
            whole = float(number) if isinstance(number, Real) else math.nan
            count = int(whole) if whole.is_integer() else least - 1
        if count > LARGEST:
            raise FeatureError(f"{name} must be at most {LARGEST}, got {_shown(value)}")
        if count >= least:
            return count
    wanted = f"a whole number, at least {least}{also}"
    raise FeatureError(f"{name} must be {wanted}, got {_shown(value)}")


def as_number(name: str, value: Any, wanted: str = "a number") -> float:
    """A float.

    Args:
        name: Name of the option, for the error.
        value: A number of any kind.
        wanted: What it must be, for the error.

    Raises:
        FeatureError: If it is no number.
    """
    number = _plain(value)
    if isinstance(number, Real) and not isinstance(number, (bool, np.bool_)):
        return float(number)
    raise FeatureError(f"{name} must be {wanted}, got {_shown(value)}")


def as_flag(name: str, value: Any) -> bool:
    """True or False; 1 and 0 as well, as OpenCV's flags often are.

    Raises:
        FeatureError: If it is anything else, a word for example.
    """
    flag = _plain(value)
    if isinstance(flag, (bool, np.bool_)) or (isinstance(flag, Real) and flag in (0, 1)):
        return bool(flag)
    raise FeatureError(f"{name} must be True or False, got {_shown(value)}")


def as_limit(value: Any) -> int:
    """How many keypoints are kept at most; -1 for all.

    Args:
        value: A count. -1, None and, as in ``cv2.SIFT``, 0 mean all.

    Raises:
        FeatureError: If it is anything else.
    """
    if value is None:
        return -1
    return as_count("max_keypoints", value, -1, " (-1, 0 or None keeps all)") or -1


def as_scales(value: Any) -> tuple[float, ...]:
    """The levels of a pyramid.

    Args:
        value: Numbers, or one; None means the image alone.

    Raises:
        FeatureError: If it is anything else.
    """
    wanted = "a number or several, such as (1, 0.5)"
    if value is None:
        return (1.0,)
    scales = _plain(value)
    if isinstance(scales, Iterable) and not isinstance(scales, (str, bytes)):
        return tuple(as_number("scales", scale, wanted) for scale in scales)
    return (as_number("scales", scales, wanted),)


def check_scales(value: Any) -> tuple[float, ...]:
    """The levels of a pyramid that a detector can have, see :func:`as_scales`.

    Raises:
        FeatureError: If there is none, one is out of range, or two are the same.
    """
    scales = as_scales(value)
    if not scales or not all(0.01 <= scale <= 8 for scale in scales):
        raise FeatureError(f"scales must be one or more in [0.01, 8], got {scales}")
    if len(set(scales)) != len(scales):
        raise FeatureError(f"scales must differ from each other, got {scales}")
    return scales


def as_device(value: Any) -> str:
    """The name of a device.

    Args:
        value: A name in any case, a ``torch.device``, or None for "auto".

    Raises:
        FeatureError: If it is anything else.
    """
    if value is None:
        return AUTO
    if _is_of_torch(value, "device"):
        return str(value)
    if isinstance(value, str) and value:
        return value.lower()
    raise FeatureError(
        f"device must be a name such as 'cpu' or 'cuda:0', a torch.device or None, got "
        f"{_shown(value)}"
    )


def as_name(name: str, value: Any) -> str:
    """The name of a backend or a precision.

    Args:
        name: Name of the option, for the error.
        value: A name, a ``torch.dtype``, or None for "auto".

    Raises:
        FeatureError: If it is anything else.
    """
    if value is None:
        return AUTO
    if _is_of_torch(value, "dtype"):
        return str(value).removeprefix("torch.")
    if isinstance(value, str):
        return value
    raise FeatureError(f"{name} must be a name or None, got {_shown(value)}")


def as_images(images: Any) -> list[Any]:
    """A list of images, from any iterable of them.

    Raises:
        FeatureError: If it is one image, or a name.
    """
    check_images(images)
    return list(images)


def check_images(images: Any) -> None:
    """Refuse what is not several images: iterating over an image gives its rows.

    Raises:
        FeatureError: If it is one image, a name, or nothing that can be iterated over.
    """
    is_one = isinstance(images, np.ndarray) and (
        images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4))
    )
    if is_one or isinstance(images, (str, bytes)) or not isinstance(images, Iterable):
        raise FeatureError(
            f"images must be several, such as a list, got {describe(images)}; of one image make "
            "[image], and of a video file cv_superpoint.matching.tracking.Video(name)"
        )


def _plain(value: Any) -> Any:
    """The number in an array without dimensions."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _is_of_torch(value: Any, name: str) -> bool:
    # Without importing it.
    kind = type(value)
    return kind.__module__.split(".")[0] == "torch" and kind.__name__ == name


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, bool, int, float)) else describe(value)
