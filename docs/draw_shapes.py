"""Draw docs/shapes.jpg: corners that detectors find on drawn shapes, in noise.

Run ``python docs/draw_shapes.py``. As figure 4 of the paper: each detector shows as many of its
strongest points as the drawing has corners; green ones are within 4 pixels of one, red ones are
not.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.evaluation.detectors import Harris
from cv_superpoint.evaluation.metrics import match_detections, suppress_neighbours
from cv_superpoint.evaluation.predictions import Feature2D, detect
from cv_superpoint.evaluation.synthetic import NMS_RADIUS
from cv_superpoint.synthetic.photometric import PhotometricConfig
from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample

KINDS = ("lines", "polygons", "overlaps", "star", "checkerboard", "stripes", "cube", "house")
ZOOM, GAP, SEED = 2, 6, 20
RIGHT, WRONG, TRUE = (60, 200, 60), (50, 50, 230), (230, 160, 40)  # BGR


def panel(sample: SyntheticSample, detector: Feature2D | None) -> NDArray[np.uint8]:
    """The drawing with its corners, or with what a detector finds."""
    canvas = cv2.cvtColor(cv2.resize(sample.image, None, fx=ZOOM, fy=ZOOM), cv2.COLOR_GRAY2BGR)
    points, right = sample.keypoints, np.full(len(sample.keypoints), True)
    if detector is not None:
        found = detect(detector, sample.image)
        kept = suppress_neighbours(found.points, found.scores, NMS_RADIUS)[: len(points)]
        found = found.take(kept)
        distances = match_detections(found.points, found.scores, sample.keypoints, 4.0)
        points, right = found.points, np.isfinite(distances)
    for (x, y), good in zip(points, right, strict=True):
        colour = TRUE if detector is None else RIGHT if good else WRONG
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
        "magicpoint": magicpoint,
        "FAST": cv2.FastFeatureDetector.create(5),
        "Harris": Harris(),
        "Shi-Tomasi": cv2.GFTTDetector.create(0, 1e-4, 4),
    }
    samples = []
    for kind in KINDS:
        noisy = PhotometricConfig(probability=0.7, blur=0.8, motion=1)
        config = SyntheticConfig(size=(96, 120), shapes=(kind,), photometric=noisy)
        samples.append(draw_sample(SEED, len(samples), config))
    height, width = (side * ZOOM + GAP for side in samples[0].image.shape)
    canvas = np.full((height * len(rows), 90 + width * len(samples), 3), 255, np.uint8)
    for row, (name, detector) in enumerate(rows.items()):
        top = row * height
        cv2.putText(
            canvas, name, (4, top + height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA
        )
        for column, sample in enumerate(samples):
            picture = panel(sample, detector)
            left = 90 + column * width
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    target = Path(__file__).with_name("shapes.jpg")
    cv2.imwrite(str(target), canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
