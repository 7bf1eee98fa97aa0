"""Draw docs/matches.jpg, the README's picture: two views of a photograph, matched.

Run ``python docs/draw_matches.py``. The photograph is "coffee" of scikit-image, by Rachel Michetti,
given to the public domain (CC0).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data

from cv_superpoint import SuperPointFeature2D, match_pair

SIZE = (600, 400)
"""Width and height of both views."""


def views() -> tuple[np.ndarray, np.ndarray]:
    """The photograph, and the same cup from the side, in less light, with noise."""
    first = cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2BGR)
    width, height = SIZE
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    seen = np.float32([[150, -20], [590, 90], [520, 420], [20, 330]])
    view = cv2.getPerspectiveTransform(corners, seen)
    second = cv2.warpPerspective(first, view, SIZE, borderValue=(24, 24, 24))
    noise = np.random.default_rng(0).normal(0, 6, second.shape)
    return first, np.clip(0.6 * second + noise, 0, 255).astype(np.uint8)


def main() -> None:
    """Write the picture."""
    first, second = views()
    result = match_pair(first, second, SuperPointFeature2D.create(500, device="cpu"))
    picture = result.draw(first, second, limit=60)
    target = Path(__file__).with_name("matches.jpg")
    cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(f"{len(result)} matches, {result.inliers.sum()} inliers")


if __name__ == "__main__":
    main()
