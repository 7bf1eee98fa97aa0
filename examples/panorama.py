"""A panorama of two or three pictures: our keypoints in OpenCV's stitching pipeline (cv2.detail).

python examples/panorama.py                              three views cut from a photograph
python examples/panorama.py left.jpg middle.jpg right.jpg    your own, overlapping by a third

The pictures should come from one place, the camera turning; --plane is for flat scenes, such as a
wall or a page in pieces.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from pictures import Image, Matrix, photograph, read, write

import cv_superpoint
from cv_superpoint.interop.stitching import StitchError, stitch


def cut_views(image: Image, *, degrees: float = 14.0) -> list[Image]:
    """What a camera sees that stands before the photograph and turns left, ahead and right."""
    height, width, focal = 400, 340, 700.0
    to_rays = np.linalg.inv(_intrinsics(focal, image.shape[1], image.shape[0]))
    views = []
    for index, angle in enumerate(np.deg2rad([-degrees, 0, degrees])):
        turn: Matrix = np.asarray(cv2.Rodrigues(np.array([0, -angle, 0]))[0], np.float64)
        homography = _intrinsics(focal, width, height) @ turn @ to_rays
        view = cv2.warpPerspective(image, homography, (width, height))
        brighter = np.clip(view * (0.85 + 0.15 * index), 0, 255)  # as automatic exposure does
        views.append(brighter.astype(np.uint8))
    return views


def _intrinsics(focal: float, width: int, height: int) -> Matrix:
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def main() -> int:
    parser = argparse.ArgumentParser(description="Stitch a panorama.")
    parser.add_argument("pictures", nargs="*", help="two or three files; none: a photograph")
    parser.add_argument("--plane", action="store_true", help="the scene is flat")
    parser.add_argument("--megapixels", type=float, default=1.0, help="larger ones are shrunk")
    parser.add_argument("--output", type=Path, default=Path("panorama.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) == 1:
        parser.error("name two or more pictures, or none")
    if args.pictures:
        images = [read(path) for path in args.pictures]
    else:
        images = cut_views(photograph("stereo_motorcycle"))

    detector = cv_superpoint.SuperPointFeature2D.create(maxKeypoints=1500, weights=args.weights)
    try:
        panorama = stitch(
            images,
            detector,
            megapixels=args.megapixels,
            model="plane" if args.plane else "rotation",
        )
    except StitchError as error:
        print(f"no panorama: {error}")
        return 1
    for index, count in enumerate(panorama.keypoints):
        print(f"picture {index + 1}: {count} keypoints")
    for pair in panorama.pairs:
        print(
            f"pictures {pair.first + 1} and {pair.second + 1}: {pair.matches} matches, "
            f"{pair.inliers} inliers, confidence {pair.confidence:.2f}"
        )
    if panorama.focal_lengths:
        print(
            "focal lengths " + ", ".join(f"{each:.0f}" for each in panorama.focal_lengths) + " px"
        )
    write(args.output, panorama.image)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
