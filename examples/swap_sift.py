"""The same pipeline with cv2.SIFT and with SuperPoint: only the constructor differs.

python examples/swap_sift.py                      a photograph and a synthetic second view of it
python examples/swap_sift.py one.jpg other.jpg    your own two
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from pictures import Image, Matrix, corner_error, draw_matches, photograph, read, second_view, write

import cv_superpoint

Detector: TypeAlias = "cv2.SIFT | cv_superpoint.SuperPointFeature2D"


def match(
    name: str, detector: Detector, image0: Image, image1: Image, truth: Matrix | None
) -> Image | None:
    """Match, print the figures and draw the inliers; None if there are none."""
    keypoints0, descriptors0 = detector.detectAndCompute(image0, None)
    keypoints1, descriptors1 = detector.detectAndCompute(image1, None)
    if descriptors0 is None or descriptors1 is None:
        print(f"{name:<11} no keypoints")
        return None
    matcher = cv2.BFMatcher(detector.defaultNorm(), crossCheck=True)
    matches = matcher.match(descriptors0, descriptors1)
    line = f"{name:<11} keypoints {len(keypoints0)} and {len(keypoints1)}  matches {len(matches)}"
    if len(matches) < 4:
        print(line)
        return None
    points0 = np.array([keypoints0[match.queryIdx].pt for match in matches], np.float32)
    points1 = np.array([keypoints1[match.trainIdx].pt for match in matches], np.float32)
    homography, mask = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 3.0)
    inliers = mask.reshape(-1) > 0
    line += f"  inliers {inliers.sum()} ({inliers.mean():.0%})"
    if homography is not None and truth is not None:
        error = corner_error(homography.astype(np.float64), truth, image0)
        line += f"  corner error {error:.2f} px"
    print(line)
    picture = draw_matches(image0, image1, points0[inliers], points1[inliers])
    cv2.putText(picture, name, (12, 36), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 5, cv2.LINE_AA)
    cv2.putText(picture, name, (12, 36), cv2.FONT_HERSHEY_SIMPLEX, 1, (255,) * 3, 2, cv2.LINE_AA)
    return picture


def main() -> int:
    parser = argparse.ArgumentParser(description="Match two pictures with SIFT and SuperPoint.")
    parser.add_argument("pictures", nargs="*", help="two files; none: a bundled photograph")
    parser.add_argument("--output", type=Path, default=Path("swap_sift.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) not in (0, 2):
        parser.error("name two pictures, or none")
    image0 = read(args.pictures[0]) if args.pictures else photograph("astronaut")
    image1, truth = (read(args.pictures[1]), None) if args.pictures else second_view(image0)

    detectors: dict[str, Detector] = {
        "SIFT": cv2.SIFT.create(1000),
        "SuperPoint": cv_superpoint.SuperPointFeature2D.create(1000, weights=args.weights),
    }
    drawn = [match(name, each, image0, image1, truth) for name, each in detectors.items()]
    pictures = [picture for picture in drawn if picture is not None]
    if pictures:
        write(args.output, np.concatenate(pictures))
    return int(len(pictures) < len(detectors))


if __name__ == "__main__":
    raise SystemExit(main())
