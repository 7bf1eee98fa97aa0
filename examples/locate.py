"""Find a template in a scene: a label on a shelf, a page on a desk, a sign in a street.

python examples/locate.py                           a piece cut from a photograph, turned, resized
python examples/locate.py template.jpg scene.jpg    your own; --rotations if it may lie sideways
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from pictures import Image, Matrix, corner_error, corners, photograph, read, transform, write

import cv_superpoint


def cut_template(scene: Image) -> tuple[Image, Matrix]:
    """A piece of the scene, turned by 15 degrees, enlarged by a quarter, brighter and noisy.

    Returns:
        The template and the homography from it to the scene.
    """
    width, height = 240, 200
    centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    cos, sin = 0.8 * np.cos(np.deg2rad(15)), 0.8 * np.sin(np.deg2rad(15))
    x, y = scene.shape[1] * 0.56, scene.shape[0] * 0.60
    to_scene = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]]) @ centre
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    template = cv2.warpPerspective(scene, to_scene, (width, height), flags=flags)
    noise = np.random.default_rng(0).normal(0, 5, template.shape)
    return np.clip(1.2 * template + 10 + noise, 0, 255).astype(np.uint8), to_scene


def is_plausible(quadrilateral: Matrix) -> bool:
    """Whether a flat thing can look like this: convex, unmirrored and not squeezed to a line."""
    sides = np.roll(quadrilateral, -1, axis=0) - quadrilateral
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    return bool(np.all(turns > 25))


def draw(scene: Image, template: Image, quadrilateral: Matrix) -> Image:
    """The scene with the outline, the template's top edge in red, beside the template."""
    canvas = np.full((max(len(scene), len(template)), 0, 3), 40, np.uint8)
    marked = scene.copy()
    outline = np.rint(quadrilateral).astype(np.int32)
    cv2.polylines(marked, [outline], True, (0, 255, 0), 3, cv2.LINE_AA)
    cv2.line(marked, outline[0].tolist(), outline[1].tolist(), (0, 0, 255), 3, cv2.LINE_AA)
    for picture in (template, marked):
        missing = len(canvas) - len(picture)
        padded = np.pad(picture, ((0, missing), (0, 0), (0, 0)), constant_values=40)
        canvas = np.concatenate([canvas, padded], axis=1)
    return canvas


def main() -> int:
    parser = argparse.ArgumentParser(description="Find a template in a scene.")
    parser.add_argument("pictures", nargs="*", help="template and scene; none: a photograph")
    parser.add_argument("--rotations", action="store_true", help="try all four quarter turns")
    parser.add_argument("--output", type=Path, default=Path("located.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) not in (0, 2):
        parser.error("name a template and a scene, or nothing")
    scene = read(args.pictures[1]) if args.pictures else photograph("stereo_motorcycle")
    template, truth = (read(args.pictures[0]), None) if args.pictures else cut_template(scene)

    # No limit on the keypoints: the template's may be weak ones of the scene.
    detector = cv_superpoint.SuperPointFeature2D.create(weights=args.weights)
    rotations = (0, 90, 180, 270) if args.rotations else (0,)
    result = cv_superpoint.match_pair(template, scene, detector, rotations=rotations)
    print(f"matches       {len(result)}, inliers {result.inliers.sum()}")
    if result.homography is None or not result.reliable:
        print("not found")
        return 1
    quadrilateral = transform(corners(template), result.homography)
    if not is_plausible(quadrilateral):
        print("not found")
        return 1
    print("found at      " + "  ".join(f"({x:.1f}, {y:.1f})" for x, y in quadrilateral))
    if truth is not None:
        error = corner_error(result.homography, truth, template)
        print(f"corner error  {error:.2f} px (mean over the four corners)")
    write(args.output, draw(scene, template, quadrilateral))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
