"""Views of a photograph by a camera that turns, and by a camera that moves before a flat scene."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import skimage.data

FOCAL = 600.0
"""Focal length of the camera that took the photograph, in pixels."""


def photograph() -> Any:
    """400 x 600 BGR."""
    return np.ascontiguousarray(skimage.data.coffee()[..., ::-1])


def turned(
    yaw: float, pitch: float = 0, roll: float = 0, *, focal: float = FOCAL, size: Any = (300, 400)
) -> Any:
    """What a camera that turned by so many degrees sees of the photograph."""
    image = photograph()
    turn = np.eye(3)
    for axis, degrees in ((1, yaw), (0, pitch), (2, roll)):
        vector = np.zeros(3)
        vector[axis] = np.deg2rad(degrees)
        turn = cv2.Rodrigues(vector)[0] @ turn
    matrix = _intrinsics(focal, size) @ turn @ np.linalg.inv(_intrinsics(FOCAL, image.shape[:2]))
    return cv2.warpPerspective(image, matrix, (size[1], size[0]))


def oblique(corners: Any, size: Any = (400, 600)) -> Any:
    """The photograph as a mural: its corners, clockwise from the top left, at these places."""
    image = photograph()
    height, width = image.shape[:2]
    whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(whole, np.array(corners, np.float32))
    return cv2.warpPerspective(image, matrix, (size[1], size[0]))


def _intrinsics(focal: float, size: Any) -> Any:
    height, width = size
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
