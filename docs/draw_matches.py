"""Draw docs/matches.png, the README's picture: a scene of synthetic shapes seen from two sides.

Run `python docs/draw_matches.py`. Drawn, not photographed, so that the picture is ours to give.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cv_superpoint import SuperPointFeature2D, match_pair
from cv_superpoint.geometry import HomographyConfig
from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample

PANEL = (160, 208)
SHAPES = ("house", "checkerboard", "star", "cube", "polygons", "stripes")


def scene() -> np.ndarray:
    """Six drawings side by side in two rows, each with a tint of its own."""
    upright = HomographyConfig(scale=(0.9, 1.1), rotation=0.3, corner_jitter=0.1)
    panels = []
    for index, shape in enumerate(SHAPES):
        config = SyntheticConfig(size=PANEL, shapes=(shape,), homography=upright, clean=True)
        drawing = draw_sample(29, index, config).image.astype(np.float32)
        tint = cv2.cvtColor(np.uint8([[[30 * index, 70, 255]]]), cv2.COLOR_HSV2BGR)[0, 0] / 255
        panels.append(np.clip(drawing[:, :, None] * tint, 0, 255).astype(np.uint8))
    return np.vstack([np.hstack(panels[:3]), np.hstack(panels[3:])])


def main() -> None:
    """Write the picture."""
    first = scene()
    height, width = first.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    seen = np.float32([[70, 30], [560, 5], [600, 240], [25, 305]])
    view = cv2.getPerspectiveTransform(corners, seen)
    second = cv2.warpPerspective(first, view, (width, height), borderValue=(60, 60, 60))
    noise = np.random.default_rng(0).normal(0, 4, second.shape)
    second = np.clip(0.75 * second + 20 + noise, 0, 255).astype(np.uint8)
    result = match_pair(first, second, SuperPointFeature2D.create(400, device="cpu"))
    picture = result.draw(first, second, limit=90)
    cv2.imwrite(str(Path(__file__).with_name("matches.png")), picture)
    print(f"{len(result)} matches, {result.inliers.sum()} inliers")


if __name__ == "__main__":
    main()
