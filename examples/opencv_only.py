"""A homography in OpenCV 5 alone: from two exported files, without this package and without torch.

Make the files once, on any machine that has the package:

    cv-superpoint export detector.onnx --layout disk --size 480 640
    cv-superpoint export matcher.onnx --layout matcher
    python examples/opencv_only.py detector.onnx matcher.onnx a.jpg b.jpg --size 480 640

The same classes exist in C++. Positions are whole pixels, as cv2.DISK has them.
"""

from __future__ import annotations

import argparse
from typing import Any

import cv2
import numpy as np


def read(path: str, size: tuple[int, int]) -> Any:
    """A picture of the size that the detector was exported for, BGR."""
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path} cannot be read; name a picture")
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("detector", "matcher", "image0", "image1"):
        parser.add_argument(name)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width")
    given = parser.parse_args()
    opencv: Any = cv2
    if not hasattr(opencv, "LightGlueMatcher"):
        raise SystemExit(f"this needs OpenCV 5, which has LightGlueMatcher; got {cv2.__version__}")

    size = given.size[1], given.size[0]
    images = [read(path, given.size) for path in (given.image0, given.image1)]
    detector = opencv.DISK.create(given.detector, imageSize=size)
    matcher = opencv.LightGlueMatcher.create(given.matcher)
    (points0, rows0), (points1, rows1) = (
        detector.detectAndCompute(image, None) for image in images
    )
    if not points0 or not points1:
        print("no keypoints")
        return 1
    places0, places1 = (cv2.KeyPoint.convert(points) for points in (points0, points1))
    # Before every match: OpenCV keeps the positions of the pair before.
    matcher.setPairInfo(places0, places1, size, size)
    matches = matcher.match(rows0, rows1)
    if len(matches) < 4:
        print(f"{len(matches)} matches, too few for a homography")
        return 1
    first = np.asarray(places0)[[match.queryIdx for match in matches]]
    second = np.asarray(places1)[[match.trainIdx for match in matches]]
    homography, inliers = cv2.findHomography(first, second, cv2.USAC_MAGSAC, 3.0)
    if homography is None:
        print("no homography")
        return 1
    print(
        f"{len(points0)} and {len(points1)} keypoints, {len(matches)} matches, "
        f"{int(inliers.sum())} of them on one plane"
    )
    for row in homography:
        print(*row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
