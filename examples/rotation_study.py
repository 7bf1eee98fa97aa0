"""Matches under in-plane rotation: what a search over turns of the second picture gains.

python examples/rotation_study.py path/to/hpatches_mini/v_boat    for docs/results/limits.md
python examples/rotation_study.py                                 a photograph, turned

The folder holds 1.png (or .ppm), 2.png, ... and H_1_2, ..., the homographies from picture 1, as in
HPatches. Every method uses the same number of keypoints, and match_pair with its defaults.

- 4 turns: match_pair(..., rotations=(0, 90, 180, 270)).
- 8 turns: the same in steps of 45 degrees, on interpolated pictures.
- upright: picture 2 is turned until its dominant gradient points as that of picture 1 does.
- upright, 4 turns: then all four quarter turns, because a scene of walls and floors has two to
  four directions of equal strength.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pictures import Image, Matrix, corner_error, photograph, read, second_view, transform

import cv_superpoint
from cv_superpoint import Features, MatchResult, match_pair

CORRECT = 3.0
"""Pixels within which a match is correct."""
TURNS = (0, 90, 180, 270)


class Sift:
    """cv2.SIFT as an extractor of Features, so that it takes the same path as ours."""

    def __init__(self, count: int) -> None:
        self.sift = cv2.SIFT.create(count)

    def extract(self, image: Any, mask: Any = None) -> Features:
        """Keypoints and unit-length descriptors."""
        keypoints, descriptors = self.sift.detectAndCompute(image, mask)
        if descriptors is None:
            descriptors = np.empty((0, 128), np.float32)
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        return Features(
            keypoints=np.array([one.pt for one in keypoints], np.float32).reshape(-1, 2),
            scores=np.array([one.response for one in keypoints], np.float32),
            descriptors=(descriptors / lengths).astype(np.float32),
            sizes=np.array([one.size for one in keypoints], np.float32),
            octaves=np.zeros(len(keypoints), np.int32),
            image_size=image.shape[:2],
        )


def match_turned(
    image0: Image, image1: Image, detector: cv_superpoint.SuperPointFeature2D, degrees: float
) -> MatchResult:
    """match_pair with picture 1 turned first by any angle; coordinates are the picture's."""
    to_turned, size = turn_onto_canvas(image1.shape[:2], degrees)
    turned = cv2.warpAffine(image1, to_turned[:2], size, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(image1.shape[:2], 255, np.uint8), to_turned[:2], size)
    inside = cv2.erode(inside, np.ones((9, 9), np.uint8))
    result = match_pair(image0, turned, detector, mask1=inside)
    back = np.asarray(np.linalg.inv(to_turned), np.float64)
    keypoints = transform(result.features1.keypoints.astype(np.float64), back)
    features1 = replace(
        result.features1, keypoints=keypoints.astype(np.float32), image_size=image1.shape[:2]
    )
    homography = None if result.homography is None else back @ result.homography
    return replace(result, features1=features1, homography=homography)


def search(
    image0: Image,
    image1: Image,
    detector: cv_superpoint.SuperPointFeature2D,
    angles: Sequence[float],
) -> MatchResult:
    """The turn of picture 1, of several, that gives the most inliers."""
    results = [match_turned(image0, image1, detector, degrees) for degrees in angles]
    return max(results, key=lambda result: int(result.inliers.sum()))


def make_methods(
    count: int, ours: cv_superpoint.SuperPointFeature2D
) -> dict[str, Callable[[Image, Image], MatchResult]]:
    """What is compared, by name."""
    sift = Sift(count)

    def gradients(image0: Image, image1: Image) -> float:
        return dominant_gradient(image1) - dominant_gradient(image0)

    return {
        "SIFT": lambda one, two: match_pair(one, two, sift),
        "ours": lambda one, two: match_pair(one, two, ours),
        "ours, upright": lambda one, two: match_turned(one, two, ours, gradients(one, two)),
        "ours, 4 turns": lambda one, two: match_pair(one, two, ours, rotations=TURNS),
        "ours, 8 turns": lambda one, two: search(one, two, ours, range(0, 360, 45)),
        "ours, upright, 4 turns": lambda one, two: search(
            one, two, ours, [gradients(one, two) + turn for turn in TURNS]
        ),
    }


def turn_onto_canvas(size: tuple[int, int], degrees: float) -> tuple[Matrix, tuple[int, int]]:
    """The turn of a (height, width) picture onto a canvas that holds it, (width, height)."""
    height, width = size
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cos, sin = np.abs(matrix[0, :2])
    canvas = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    matrix[:2, 2] += (canvas[0] - width) / 2, (canvas[1] - height) / 2
    return matrix, canvas


def dominant_gradient(image: Image) -> float:
    """Degrees of the strongest direction of the picture's gradients, as SIFT has it for a patch."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 2)
    x, y = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    angles = np.rad2deg(np.arctan2(y, x)) % 360
    histogram = np.histogram(angles, 360, (0, 360), weights=np.hypot(x, y))[0]
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 7) ** 2)
    smooth = np.convolve(np.pad(histogram, 20, mode="wrap"), kernel, mode="valid")
    return float(smooth.argmax())


def pairs(folder: Path | None, longer_side: int) -> Iterator[tuple[str, Image, Image, Matrix]]:
    """Name, pictures and true homography of each pair."""
    if folder is None:
        image, _ = resize(photograph("astronaut"), min(longer_side, 300))
        view, truth = second_view(image, degrees=100.0)
        yield "turned", image, view, truth
        return
    first = next(folder.glob("1.p[np][gm]"), None)
    if first is None:
        raise SystemExit(f"{folder} holds no 1.png or 1.ppm")
    image0, scale0 = resize(read(str(first)), longer_side)
    for path in sorted(folder.glob("H_1_*")):
        index = path.name.removeprefix("H_1_")
        image1, scale1 = resize(read(str(first.with_stem(index))), longer_side)
        yield f"1 -> {index}", image0, image1, scale1 @ np.loadtxt(path) @ np.linalg.inv(scale0)


def resize(image: Image, longer_side: int) -> tuple[Image, Matrix]:
    """The picture at most so long, and the map of its pixels, whose centres stay centres."""
    scale = min(1.0, longer_side / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    x, y = size[0] / image.shape[1], size[1] / image.shape[0]
    return resized, np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])


def turn_and_scale(truth: Matrix, image: Image) -> tuple[float, float]:
    """Degrees, counter-clockwise, and size ratio of a homography in the picture's centre."""
    height, width = image.shape[:2]
    centre = np.array([[width, height], [width + 2, height], [width, height + 2]]) / 2.0
    origin, along_x, along_y = transform(centre, truth)
    x, y = along_x - origin, along_y - origin
    degrees = np.rad2deg(np.arctan2(y[0] - x[1], x[0] + y[1]))
    return float(degrees), float(np.sqrt(abs(x[0] * y[1] - x[1] * y[0])))


def matching_score(result: MatchResult, truth: Matrix) -> float:
    """Correct matches over the keypoints in the shared view, mean of both pictures."""
    if len(result) == 0:
        return 0.0
    missed = transform(result.points0.astype(np.float64), truth) - result.points1
    correct = int((np.linalg.norm(missed, axis=1) <= CORRECT).sum())
    shares = []
    for features, other, homography in (
        (result.features0, result.features1, truth),
        (result.features1, result.features0, np.asarray(np.linalg.inv(truth), np.float64)),
    ):
        x, y = transform(features.keypoints.astype(np.float64), homography).T
        height, width = other.image_size
        shared = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        shares.append(correct / max(int(shared.sum()), 1))
    return float(np.mean(shares))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure matching under in-plane rotation.")
    parser.add_argument("folder", nargs="?", type=Path, help="a sequence in HPatches' layout")
    parser.add_argument("--keypoints", type=int, default=1000)
    parser.add_argument("--longer-side", type=int, default=640)
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    ours = cv_superpoint.SuperPointFeature2D.create(args.keypoints, weights=args.weights)
    methods = make_methods(args.keypoints, ours)
    print(f"{ours.info()}; {args.keypoints} keypoints, longer side {args.longer_side}\n")
    print("| pair | turn | scale | method | matches | inliers | M. score | corner error |")
    print("|---|---|---|---|---|---|---|---|")
    for name, image0, image1, truth in pairs(args.folder, args.longer_side):
        degrees, scale = turn_and_scale(truth, image0)
        for method, run in methods.items():
            result = run(image0, image1)
            error = "none"
            if result.homography is not None:
                error = f"{corner_error(result.homography, truth, image0):.1f}"
            print(
                f"| {name} | {degrees:.0f} | {scale:.2f} | {method} | {len(result)} "
                f"| {result.inliers.sum()} | {matching_score(result, truth):.3f} | {error} |"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
