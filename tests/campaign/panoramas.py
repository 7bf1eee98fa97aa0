"""Panoramas of any pieces: one StitchError, or the same picture in every call."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from calls import PHOTOGRAPH, WHOLE, detector, image_of
from kinds import Case, check, kind

from cv_superpoint.interop.stitching import stitch


def _piece(random: np.random.Generator) -> Any:
    """A part of a photograph, sometimes turned, foreshortened, tiny or of something else."""
    height, width = random.integers(60, 260, 2)
    y, x = random.integers(0, 512 - height), random.integers(100, 360 - width // 2)
    piece = np.ascontiguousarray(PHOTOGRAPH[y : y + height, x : x + width])
    match random.integers(8):
        case 0:
            return np.ascontiguousarray(np.rot90(piece, int(random.integers(1, 4))))
        case 1:
            matrix = np.eye(3) + random.normal(0, [[0.1, 0.1, 9], [0.1, 0.1, 9], [5e-4, 5e-4, 0]])
            return cv2.warpPerspective(piece, matrix, (int(width), int(height)))
        case 2:
            shape = (int(random.integers(1, 90)), int(random.integers(1, 90)), 3)
            return image_of(int(random.integers(9999)), shape, "noise", "uint8", "plain")
        case 3:
            return cv2.cvtColor(piece, cv2.COLOR_BGR2GRAY)
    return piece


@kind
def panoramas(case: Case) -> None:
    """Two to four pieces, in both models, with another state of OpenCV's generator."""
    model = detector("ncnn", WHOLE, maxKeypoints=300)
    for _ in range(3):
        pieces = [_piece(case.random) for _ in range(int(case.random.integers(2, 5)))]
        how: Any = case.choose(["rotation", "plane"])
        case.notes[:] = [how, [each.shape for each in pieces]]
        with case.call():
            first = stitch(pieces, model, model=how)
            check(first.image.dtype == np.uint8 and first.image.ndim == 3, "a BGR picture")
            check(set(first.used) <= set(range(len(pieces))), f"used {first.used}")
            cv2.setRNGSeed(int(case.random.integers(2**31)))
            again = stitch(pieces, model, model=how)
            check(np.array_equal(first.image, again.image), "another panorama in another call")
