"""The homography between two pictures of a flat scene (or from a turning camera), and an overlay.

python examples/homography.py                      a photograph and a synthetic second view of it
python examples/homography.py one.jpg other.jpg    your own two; --rotations if turned sideways

The overlay shows the first picture, warped onto the second, in red and the second in cyan: where
they agree it is grey, where they do not there are coloured fringes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pictures import corner_error, photograph, read, second_view, write

import cv_superpoint
from cv_superpoint.matching.drawing import draw_overlay


def main() -> int:
    parser = argparse.ArgumentParser(description="Estimate a homography.")
    parser.add_argument("pictures", nargs="*", help="two files; none: a bundled photograph")
    parser.add_argument("--rotations", action="store_true", help="try all four quarter turns")
    parser.add_argument("--output", type=Path, default=Path("homography.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) not in (0, 2):
        parser.error("name two pictures, or none")
    image0 = read(args.pictures[0]) if args.pictures else photograph("coffee")
    image1, truth = (read(args.pictures[1]), None) if args.pictures else second_view(image0)

    detector = cv_superpoint.SuperPointFeature2D.create(maxKeypoints=1000, weights=args.weights)
    rotations = (0, 90, 180, 270) if args.rotations else (0,)
    result = cv_superpoint.match_pair(image0, image1, detector, rotations=rotations)
    print(f"keypoints     {len(result.features0)} and {len(result.features1)}")
    print(f"matches       {len(result)}")
    print(f"inliers       {result.inliers.sum()} at a turn of {result.rotation} degrees")
    if result.homography is None or not result.reliable:
        print("no homography: chance explains the matches that agree, as with unrelated pictures")
        return 1
    print(f"homography\n{np.array2string(result.homography, precision=6, suppress_small=True)}")
    if truth is not None:
        error = corner_error(result.homography, truth, image0)
        print(f"corner error  {error:.2f} px (mean over the four corners)")
    write(args.output, draw_overlay(image0, image1, result.homography))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
