"""Opt-in pickling of OpenCV's objects, for multiprocessing, caches and ``copy.copy``."""

from __future__ import annotations

import copyreg
from typing import Any

import cv2


def enable_pickling() -> None:
    """Let ``cv2.KeyPoint`` and ``cv2.DMatch`` be pickled and copied, in this process.

    It is a choice of the program, because it changes how these classes behave everywhere in it.
    A pickle can be read without it: the reader needs only cv2.
    """
    copyreg.pickle(cv2.KeyPoint, _reduce_keypoint)
    copyreg.pickle(cv2.DMatch, _reduce_match)


def _reduce_keypoint(point: cv2.KeyPoint) -> tuple[Any, ...]:
    x, y = point.pt
    fields = (x, y, point.size, point.angle, point.response, point.octave, point.class_id)
    return cv2.KeyPoint, fields


def _reduce_match(match: cv2.DMatch) -> tuple[Any, ...]:
    return cv2.DMatch, (match.queryIdx, match.trainIdx, match.imgIdx, match.distance)
