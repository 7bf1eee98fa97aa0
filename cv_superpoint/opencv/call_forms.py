"""The call forms of ``cv2``: two spellings of an argument, ``cv2.UMat``, preallocated outputs."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import ASSERTION_FAILED, FeatureError

P = ParamSpec("P")
T = TypeVar("T")
REQUIRED: Any = object()
"""Default of an argument that must be given in one of its spellings."""


def signature_of(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., T]], Callable[Concatenate[type[T], P], T]]:
    """Mark a class method ``create(cls, ...)`` as one that takes what the constructor takes.

    Args:
        init: The constructor.
    """

    def mark(create: Callable[..., T]) -> Callable[Concatenate[type[T], P], T]:
        create.__signature__ = signature(init)  # type: ignore[attr-defined]
        return create

    return mark


def one_of(first: Any, second: Any, name: str) -> Any:
    """The argument that was given of two spellings of the same.

    Raises:
        FeatureError: If both were given, or neither.
    """
    if (first is REQUIRED) == (second is REQUIRED):
        raise FeatureError(f"pass {name} or {name}s, and only one of them")
    return second if first is REQUIRED else first


def check_count(what: str, count: int, images: int) -> None:
    """Lists must be of one length.

    Raises:
        FeatureError: If they are not.
    """
    if count != images:
        raise FeatureError(
            f"there must be as many {what} as images, got {count} and {images}", ASSERTION_FAILED
        )


def to_host(image: Any) -> Any:
    """The array inside a ``cv2.UMat``; anything else as it is."""
    return image.get() if isinstance(image, cv2.UMat) else image


def give(rows: NDArray[Any], preallocated: Any, wants_umat: bool) -> Any:
    """Descriptors in the form the caller asked for; None (or an empty UMat) for no rows."""
    if wants_umat:
        array: Any = rows  # cv2's type stubs lack this constructor
        return cv2.UMat(array) if len(rows) else cv2.UMat()
    if len(rows) == 0:
        return None
    fits = (
        isinstance(preallocated, np.ndarray)
        and preallocated.shape == rows.shape
        and preallocated.dtype == rows.dtype
    )
    if not fits:
        return rows
    preallocated[...] = rows
    return preallocated
