"""Draw docs/shapes.jpg: corners that detectors find on drawn shapes, in noise.

Run ``python docs/draw_shapes.py``. As figure 4 of the paper: each detector shows as many of its
strongest points as the drawing has corners; green ones are within 4 pixels of one, red ones are
not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.evaluation.metrics import match_detections, suppress_neighbours
from cv_superpoint.evaluation.synthetic import NMS_RADIUS
from cv_superpoint.synthetic.photometric import PhotometricConfig
from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample

KINDS = ("lines", "polygons", "overlaps", "star", "checkerboard", "stripes", "cube", "house")
ZOOM, GAP, SEED = 2, 6, 20
RIGHT, WRONG, TRUE = (60, 200, 60), (50, 50, 230), (230, 160, 40)  # BGR

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(N, 2) points and their (N,) strengths."""


def found_by(detector: cv2.Feature2D) -> Callable[[NDArray[np.uint8]], Corners]:
    """What a detector finds, as arrays."""

    def find(image: NDArray[np.uint8]) -> Corners:
        keypoints = detector.detect(image, None)
        points = np.array([one.pt for one in keypoints], np.float64).reshape(-1, 2)
        return points, np.array([one.response for one in keypoints], np.float64)

    return find


def strongest_corners(*, harris: bool) -> Callable[[NDArray[np.uint8]], Corners]:
    """Harris or Shi-Tomasi: maxima of the measure."""

    def find(image: NDArray[np.uint8]) -> Corners:
        grey = image.astype(np.float32)
        measure = cv2.cornerHarris(grey, 3, 3, 0.04) if harris else cv2.cornerMinEigenVal(grey, 3)
        wide = cv2.dilate(measure, np.ones((5, 5)))
        y, x = np.nonzero((measure == wide) & (measure > 0))
        return np.stack([x, y], axis=1).astype(np.float64), measure[y, x].astype(np.float64)

    return find


def panel(sample: SyntheticSample, find: Callable[[NDArray[np.uint8]], Corners] | None) -> NDArray:
    """The drawing with its corners, or with what a detector finds."""
    canvas = cv2.cvtColor(cv2.resize(sample.image, None, fx=ZOOM, fy=ZOOM), cv2.COLOR_GRAY2BGR)
    points, right = sample.keypoints, np.full(len(sample.keypoints), True)
    if find is not None:
        points, strengths = find(sample.image)
        kept = suppress_neighbours(points, strengths, NMS_RADIUS)[: len(sample.keypoints)]
        points = points[kept]
        distances = match_detections(points, strengths[kept], sample.keypoints, 4.0)
        right = np.isfinite(distances)
    for (x, y), good in zip(points, right, strict=True):
        colour = TRUE if find is None else RIGHT if good else WRONG
        place = (round(x * ZOOM + 0.5), round(y * ZOOM + 0.5))
        cv2.circle(canvas, place, 5, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.circle(canvas, place, 4, colour, 2, cv2.LINE_AA)
    return canvas


def main() -> None:
    """Write the picture."""
    magicpoint = SuperPointFeature2D.create(
        weights="magicpoint", scoreThreshold=0.001, borderMargin=0, device="cpu"
    )
    rows = {
        "corners": None,
        "magicpoint": found_by(magicpoint),
        "FAST": found_by(cv2.FastFeatureDetector.create(5)),
        "Harris": strongest_corners(harris=True),
        "Shi-Tomasi": strongest_corners(harris=False),
    }
    samples = []
    for kind in KINDS:
        noisy = PhotometricConfig(probability=0.7, blur=0.8, motion=1)
        config = SyntheticConfig(size=(96, 120), shapes=(kind,), photometric=noisy)
        samples.append(draw_sample(SEED, len(samples), config))
    height, width = (side * ZOOM + GAP for side in samples[0].image.shape)
    canvas = np.full((height * len(rows), 90 + width * len(samples), 3), 255, np.uint8)
    for row, (name, find) in enumerate(rows.items()):
        top = row * height
        cv2.putText(
            canvas, name, (4, top + height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA
        )
        for column, sample in enumerate(samples):
            picture = panel(sample, find)
            left = 90 + column * width
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    target = Path(__file__).with_name("shapes.jpg")
    cv2.imwrite(str(target), canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
