"""A detector measured pair by pair under a protocol."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.contenders import matched
from cv_superpoint.evaluation.datasets import ImagePair
from cv_superpoint.evaluation.metrics import Array, Size
from cv_superpoint.evaluation.predictions import Detections, Finder
from cv_superpoint.evaluation.protocols import THOROUGH, Fit, Pass, Protocol, Ransac
from cv_superpoint.geometry import corner_error, warp_points
from cv_superpoint.matching.aligning import align_homography
from cv_superpoint.matching.estimators import find_model, misses, weighted_dlt
from cv_superpoint.matching.matchers import Matcher
from cv_superpoint.matching.refining import PLACED, refine_homography


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Measures of one pair; NaN where there was nothing to measure.

    ``corner_error`` is infinite where no homography was found. ``keypoints`` is the mean of both
    images, after every filter; where two passes are made, of the one that matches. ``rotation``
    is the turn of image 1 that was chosen, in degrees. ``inlier_error`` is the median distance of
    the inliers of the estimated homography from the true one, in pixels of image 1. ``correct`` is
    how many of the matches are.
    """

    name: str
    sequence: str
    kind: str
    keypoints: float = math.nan
    repeatability: float = math.nan
    localisation_error: float = math.nan
    matches: float = math.nan
    match_precision: float = math.nan
    matching_score: float = math.nan
    nn_map: float = math.nan
    correct: float = math.nan
    inliers: float = math.nan
    corner_error: float = math.nan
    inlier_error: float = math.nan
    rotation: int = 0


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What the pixels of a pair are used for after matching.

    Attributes:
        images: Both, (H, W) uint8.
        refine: Matches are placed by the pixels around them.
        align: The homography makes all of the overlap agree.
    """

    images: tuple[Array, Array]
    refine: bool
    align: bool


def evaluate_pairs(
    pairs: Iterable[ImagePair],
    find: Finder,
    protocol: Protocol,
    *,
    rotations: Sequence[int] = (0,),
    refine: bool = False,
    align: bool = False,
    matcher: Matcher | None = None,
) -> Iterator[PairResult]:
    """Measure a detector pair by pair.

    Each image of a sequence is detected once per pass, however many pairs it is in.

    Args:
        pairs: Pairs, sequence by sequence.
        find: The detector.
        protocol: What to measure, and how.
        rotations: Counter-clockwise turns of image 1 in degrees, multiples of 90. With more than
            one, each is tried and the one with the most inliers counts.
        refine: Whether matches are refined from the pixels before the homography is taken.
        align: Whether the homography then makes all of the overlap agree.
        matcher: Matcher instead of mutual nearest neighbours.
    """
    cache: dict[tuple[int, str], Detections] = {}
    current = None
    for pair in pairs:
        if pair.sequence != current:
            cache.clear()
            current = pair.sequence
        result = PairResult(name=pair.name, sequence=pair.sequence, kind=pair.kind)
        for number, step in enumerate(protocol.passes):
            (image0, image1), h_0to1 = fit_pair(pair, step.fit)
            if (number, pair.keys[0]) not in cache:
                cache[number, pair.keys[0]] = find(image0)
            tried = []
            for rotation in rotations:
                key = (number, f"{pair.keys[1]} {rotation}")
                if key not in cache:
                    cache[key] = find_turned(find, image1, rotation)
                found = (cache[number, pair.keys[0]], cache[key])
                sizes = (image0.shape[:2], image1.shape[:2])
                pixels = Pixels(images=(image0, image1), refine=refine, align=align)
                measured = measure(
                    *found,
                    h_0to1,
                    sizes,
                    step,
                    ransac=protocol.ransac,
                    pixels=pixels,
                    matcher=matcher,
                )
                tried.append(measured | {"rotation": rotation})
            best = max(tried, key=lambda measured: measured.get("inliers", 0.0))
            result = dataclasses.replace(result, **best)  # type: ignore[arg-type]
        yield result


def find_turned(find: Finder, image: Array, rotation: int) -> Detections:
    """Detections of an image after a turn, their points in the image as it was.

    Args:
        find: The detector.
        image: (H, W) uint8.
        rotation: Degrees counter-clockwise, a multiple of 90.
    """
    height, width = image.shape
    found = find(np.ascontiguousarray(np.rot90(image, rotation // 90)))
    if rotation // 90 % 4 == 0:
        return found
    x, y = found.points.T
    back = {
        1: (width - 1 - y, x),
        2: (width - 1 - x, height - 1 - y),
        3: (y, height - 1 - x),
    }[rotation // 90 % 4]
    return dataclasses.replace(found, points=np.stack(back, axis=1), seen=found.points)


def fit_pair(pair: ImagePair, fit: Fit) -> tuple[tuple[Array, Array], Array]:
    """A pair's images at the size of a pass, and the (3, 3) homography between them."""
    image0, to_fitted0 = fit.apply(pair.images[0])
    image1, to_fitted1 = fit.apply(pair.images[1])
    return (image0, image1), to_fitted1 @ pair.h_0to1 @ np.linalg.inv(to_fitted0)


def select(
    found0: Detections, found1: Detections, h_0to1: Array, sizes: tuple[Size, Size], step: Pass
) -> tuple[Detections, Detections]:
    """The keypoints that a pass keeps: suppression, then shared view, then the strongest."""
    if step.nms_radius is not None:
        radius = step.nms_radius
        found0 = found0.take(metrics.suppress_neighbours(found0.points, found0.scores, radius))
        found1 = found1.take(metrics.suppress_neighbours(found1.points, found1.scores, radius))
    if step.counting == "paper":
        keep0, keep1 = metrics.shared_view(found0.points, found1.points, h_0to1, *sizes)
        found0, found1 = found0.take(keep0), found1.take(keep1)
    return found0.strongest(step.quota), found1.strongest(step.quota)


def measure(
    found0: Detections,
    found1: Detections,
    h_0to1: Array,
    sizes: tuple[Size, Size],
    step: Pass,
    *,
    matches: Array | None = None,
    ransac: Ransac = THOROUGH,
    pixels: Pixels | None = None,
    matcher: Matcher | None = None,
) -> dict[str, float]:
    """Measure one pass over one pair.

    Args:
        found0: Detections of image 0.
        found1: Detections of image 1.
        h_0to1: (3, 3).
        sizes: Sizes of both images.
        step: What to keep and what to measure.
        matches: (M, 2) indices into ``found0`` and ``found1`` of another matcher, for which the
            detections are taken as they are; mutual nearest neighbours of the selected if None.
        ransac: How the homography is estimated.
        pixels: What the images' pixels are used for; None for nothing.
        matcher: Matcher of the selected features, instead of mutual nearest neighbours.

    Returns:
        Fields of :class:`PairResult`; without descriptors only those of the detection.
    """
    if matches is None:
        found0, found1 = select(found0, found1, h_0to1, sizes, step)
    measured = {"keypoints": (len(found0) + len(found1)) / 2}
    keep0, keep1 = metrics.shared_view(found0.points, found1.points, h_0to1, *sizes)
    if step.detection:
        measured["repeatability"], measured["localisation_error"] = metrics.repeatability(
            found0.points[keep0], found1.points[keep1], h_0to1, pooled=step.counting == "paper"
        )
    described = matches is not None or (found0.described and found1.described)
    if not step.description or not described:
        return measured
    scores = None
    if matches is None:
        distances = distances_between(found0, found1)
        if matcher is None:
            matches = metrics.mutual_matches(distances)
        else:
            matches, scores = matched(matcher, found0, found1)
        measured["nn_map"] = metrics.nearest_neighbour_map(
            distances, found0.points, found1.points, h_0to1
        )
    counts = (int(keep0.sum()), int(keep1.sum()))
    return measured | _measure_matches(
        found0.points[matches[:, 0]],
        found1.points[matches[:, 1]],
        h_0to1,
        sizes[0],
        counts,
        step,
        ransac,
        pixels,
        scores,
    )


def _measure_matches(
    points0: Array,
    points1: Array,
    h_0to1: Array,
    size0: Size,
    counts: tuple[int, int],
    step: Pass,
    ransac: Ransac,
    pixels: Pixels | None,
    scores: Array | None,
) -> dict[str, float]:
    """Measures of points (M, 2) that are matched row by row; ``counts`` are in the shared view."""
    rows = np.arange(len(points0))
    errors = metrics.match_errors(points0, points1, np.stack([rows, rows], axis=1), h_0to1)
    estimate, agree = estimate_homography(points0, points1, ransac, scores)
    if pixels is not None and pixels.refine and estimate is not None:
        exact = refine_homography(
            *pixels.images, points0, points1, estimate, threshold=ransac.threshold
        )
        if exact.accepted:
            points1, estimate = exact.points1, exact.homography
            agree = exact.moved & (misses(estimate, points0, points1) <= PLACED)
    if pixels is not None and pixels.align and estimate is not None:
        estimate = align_homography(*pixels.images, estimate).homography
    missed = np.linalg.norm(points1[agree] - warp_points(h_0to1, points0[agree]), axis=1)
    return {
        "matches": float(len(errors)),
        "correct": float((errors <= metrics.CORRECT_DISTANCE).sum()),
        "match_precision": metrics.match_precision(errors),
        "matching_score": metrics.matching_score(
            errors, *counts, of_smaller=step.counting == "plain"
        ),
        "inliers": float(agree.sum()),
        "inlier_error": float(np.median(missed)) if len(missed) else math.nan,
        "corner_error": corner_error(estimate, h_0to1, size0),
    }


def distances_between(found0: Detections, found1: Detections) -> Array:
    """(N0, N1) distances of two images' descriptors."""
    if len(found0) == 0 or len(found1) == 0:
        return np.zeros((len(found0), len(found1)))
    return metrics.descriptor_distances(
        found0.descriptors, found1.descriptors, binary=found0.binary
    )


def estimate_homography(
    points0: Array, points1: Array, ransac: Ransac, scores: Array | None = None
) -> tuple[Array | None, NDArray[np.bool_]]:
    """A homography from matched points.

    Args:
        points0: (N, 2).
        points1: (N, 2), matched row by row.
        ransac: Options of the estimator.
        scores: (N,) of the matches, by which "dlt" weights them; None weights all alike.

    Returns:
        (3, 3), or None where there is none, and which points are its inliers, (N,).
    """
    nothing = None, np.zeros(len(points0), np.bool_)
    if ransac.order:
        rows = np.random.default_rng(ransac.order).permutation(len(points0))
        back = np.argsort(rows)
        estimate, agree = estimate_homography(
            points0[rows],
            points1[rows],
            dataclasses.replace(ransac, order=0),
            None if scores is None else scores[rows],
        )
        return estimate, agree[back]
    if ransac.estimator == "dlt":
        fitted = weighted_dlt(points0, points1, scores)
        if fitted is None:
            return nothing
        return fitted, misses(fitted, points0, points1) <= ransac.threshold
    if ransac.estimator is not None:
        return find_model(points0, points1, threshold=ransac.threshold, estimator=ransac.estimator)
    if len(points0) < 4:
        return nothing
    homography, mask = cv2.findHomography(
        points0,
        points1,
        cv2.RANSAC,
        ransac.threshold,
        maxIters=ransac.iterations,
        confidence=ransac.confidence,
    )
    if homography is None:
        return nothing
    return homography, mask.reshape(-1) > 0
