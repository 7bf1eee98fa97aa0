"""Match two views of a photograph as one would with cv2.SIFT, and measure how well it went.

python examples/demo.py                      a photograph and a synthetic second view of it
python examples/demo.py one.jpg other.jpg    your own two
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from pictures import corner_error, draw_matches, photograph, read, second_view, write

import cv_superpoint

LIMIT = 2.0
"""Mean corner error in pixels above which the demonstration counts as failed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Match two pictures.")
    parser.add_argument("pictures", nargs="*", help="two files; none: a bundled photograph")
    parser.add_argument("--output", type=Path, default=Path("matches.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) not in (0, 2):
        parser.error("name two pictures, or none")
    image0 = read(args.pictures[0]) if args.pictures else photograph("astronaut")
    image1, truth = (read(args.pictures[1]), None) if args.pictures else second_view(image0)

    detector = cv_superpoint.SuperPointFeature2D.create(maxKeypoints=1000, weights=args.weights)
    print(detector.info())
    keypoints0, descriptors0 = detector.detectAndCompute(image0, None)
    keypoints1, descriptors1 = detector.detectAndCompute(image1, None)
    print(f"keypoints     {len(keypoints0)} and {len(keypoints1)}")
    if not keypoints0 or not keypoints1:
        print("no homography")
        return 1

    matches = cv2.BFMatcher(detector.defaultNorm(), crossCheck=True).match(
        descriptors0, descriptors1
    )
    print(f"matches       {len(matches)}")
    if len(matches) < 4:
        print("no homography")
        return 1

    points0 = np.array([keypoints0[match.queryIdx].pt for match in matches], np.float32)
    points1 = np.array([keypoints1[match.trainIdx].pt for match in matches], np.float32)
    homography, mask = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 3.0)
    inliers = mask.reshape(-1) > 0
    print(f"inliers       {inliers.sum()} ({inliers.mean():.0%})")
    write(args.output, draw_matches(image0, image1, points0[inliers], points1[inliers]))
    if homography is None:
        print("no homography")
        return 1
    if truth is None:
        return 0
    error = corner_error(homography.astype(np.float64), truth, image0)
    print(f"corner error  {error:.2f} px (mean over the four corners; the limit is {LIMIT:g})")
    return int(error > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
