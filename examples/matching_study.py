"""Which matches to keep: ratio, distance, scores and guided matching, measured on warps.

python examples/matching_study.py path/to/photographs    the tables of docs/results/accuracy.md
python examples/matching_study.py                        three photographs of scikit-image
python examples/matching_study.py --matcher superpoint   the scores of a learned matcher too

Each photograph, shrunk to 480 pixels, is matched with a second view of itself: turned by up to 30
degrees, scaled by 0.7 to 1.2, foreshortened, darker and noisy. A match is correct within 3 pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pictures import Image, Matrix, corner_error, photograph, read, second_view, transform

import cv_superpoint
from cv_superpoint import Features, LightGlueMatcher, guided_matches, mutual_nearest

CORRECT = 3.0
"""Pixels within which a match is correct."""
RATIOS = (None, 0.98, 0.95, 0.9, 0.8, 0.7)
DISTANCES = (None, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6)
SCORES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
COUNTS = (32, 128, 512, 1024, 2048, 4096, 8192)


def views(folder: Path | None) -> Iterator[tuple[Image, Image, Matrix]]:
    """Photograph, second view and the homography between them, drawn with a fixed seed."""
    random = np.random.default_rng(0)
    names = sorted(map(str, folder.iterdir())) if folder else ["astronaut", "coffee", "chelsea"]
    for name in names:
        image = read(name) if folder else photograph(name)
        factor = 480 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        one = small.astype(np.uint8)
        other, truth = second_view(
            one,
            degrees=float(random.uniform(-30, 30)),
            scale=float(np.exp(random.uniform(np.log(0.7), np.log(1.2)))),
            perspective=(float(random.uniform(-6e-4, 6e-4)), float(random.uniform(-6e-4, 6e-4))),
        )
        yield one, other, truth


def is_correct(
    features0: Features, features1: Features, pairs: NDArray[np.intp], truth: Matrix
) -> NDArray[np.bool_]:
    """Which of the matches agree with the truth."""
    expected = transform(features0.keypoints[pairs[:, 0]].astype(np.float64), truth)
    missed = np.linalg.norm(expected - features1.keypoints[pairs[:, 1]], axis=1)
    correct: NDArray[np.bool_] = missed <= CORRECT
    return correct


class Row:
    """Sums over all pairs of one way of matching."""

    def __init__(self) -> None:
        self.matches = self.correct = 0
        self.errors: list[float] = []

    def add(self, one: Features, other: Features, pairs: NDArray[np.intp], truth: Matrix) -> None:
        """Count the matches of a pair, and find the homography from them."""
        self.matches += len(pairs)
        self.correct += int(is_correct(one, other, pairs, truth).sum())
        found = None
        if len(pairs) >= 4:
            found, _ = cv2.findHomography(
                one.keypoints[pairs[:, 0]], other.keypoints[pairs[:, 1]], cv2.USAC_MAGSAC, 3.0
            )
        image = np.empty(one.image_size, np.uint8)
        matrix = None if found is None else np.asarray(found, np.float64)
        self.errors.append(np.inf if matrix is None else corner_error(matrix, truth, image))

    def text(self, name: str, best: int) -> str:
        """A row of a table."""
        errors = np.array(self.errors)
        shares = " | ".join(f"{(errors <= limit).mean():.3f}" for limit in (1, 3, 5))
        precision, kept = self.correct / max(self.matches, 1), self.correct / max(best, 1)
        return f"| {name} | {self.matches} | {precision:.3f} | {kept:.3f} | {shares} |"


def nearest_ways(first: Features, second: Features) -> dict[str, NDArray[np.intp]]:
    """Mutual nearest neighbours that pass each test."""
    rows = first.descriptors, second.descriptors
    ratios = {f"ratio {ratio}": mutual_nearest(*rows, max_ratio=ratio)[0] for ratio in RATIOS}
    return ratios | {
        f"distance {distance}": mutual_nearest(*rows, max_distance=distance)[0]
        for distance in DISTANCES[1:]
    }


def learned_ways(
    matcher: LightGlueMatcher, first: Features, second: Features
) -> dict[str, NDArray[np.intp]]:
    """Matches of a learned matcher above each score."""
    rows, scores = matcher(first, second)
    return {f"learned, score above {least}": rows[scores > least] for least in SCORES}


def measure_crossover() -> None:
    """Seconds of cv2.BFMatcher and of one matrix product, in turn."""
    print(
        "\n| keypoints each | cv2.BFMatcher, ms | matrix product, ms | ratio |\n|---|---|---|---|"
    )
    random = np.random.default_rng(0)
    for count in COUNTS:
        rows = random.normal(size=(2, count, 256)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
        times: dict[str, list[float]] = {"brute": [], "product": []}
        for _ in range(3 if count > 4000 else 7):
            start = time.perf_counter()
            matcher.match(rows[0], rows[1])
            middle = time.perf_counter()
            mutual_nearest(rows[0], rows[1])
            times["brute"].append(middle - start)
            times["product"].append(time.perf_counter() - middle)
        brute, product = (1e3 * float(np.median(each)) for each in times.values())
        print(f"| {count} | {brute:.2f} | {product:.2f} | {brute / product:.1f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure ways of matching.")
    parser.add_argument("photographs", nargs="?", type=Path, help="folder; none: scikit-image's")
    parser.add_argument("--times", action="store_true", help="time the matchers instead")
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    parser.add_argument("--matcher", help="weights that have a matcher, or a matcher's file")
    args = parser.parse_args()
    if args.times:
        measure_crossover()
        return 0
    detector = cv_superpoint.SuperPointFeature2D.create(maxKeypoints=1000, weights=args.weights)
    learned = LightGlueMatcher.create(args.matcher, min(SCORES)) if args.matcher else None
    rows: dict[str, Row] = {}
    count = 0
    for one, other, truth in views(args.photographs):
        first, second = detector.extractBatch([one, other])
        ways = nearest_ways(first, second)
        if learned is not None:
            ways |= learned_ways(learned, first, second)
        result = cv_superpoint.match_pair(one, other, detector)
        ways["guided by its own homography"] = (
            ways["ratio None"]
            if result.homography is None
            else guided_matches(first, second, homography=result.homography)[0]
        )
        for name, pairs in ways.items():
            rows.setdefault(name, Row()).add(first, second, pairs, truth)
        count += 1
    print(f"{count} pairs; kept: correct matches / those of all mutual nearest neighbours")
    print("| test | matches | precision | kept | e <= 1 px | e <= 3 px | e <= 5 px |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(row.text(name.replace("ratio None", "none"), rows["ratio None"].correct))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
