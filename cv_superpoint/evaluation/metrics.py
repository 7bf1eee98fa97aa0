"""Measures of keypoints, matches and homographies: arrays in, numbers out.

Sources: DeTone et al., "SuperPoint", CVPR Workshops 2018, section 7 and appendices; Mikolajczyk
and Schmid, "A performance evaluation of local descriptors", PAMI 2005.

Convention:
    Points are (N, 2) as (x, y) pixels with (0, 0) the centre of the top-left pixel, sizes are
    (height, width), and a homography ``h_0to1`` maps points of image 0 to image 1, at any
    non-zero scale. Where there is nothing to count, a rate is 0 and a mean distance is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.evaluation.statistics import finite_mean
from cv_superpoint.geometry import inside, warp_points

Array = NDArray[Any]
Size = tuple[int, int]

CORRECT_DISTANCE = 3.0
"""Pixels within which a point repeats or a match is correct (the paper's epsilon)."""


# --- geometry -------------------------------------------------------------------------------


def shared_view(
    points0: Array, points1: Array, h_0to1: Array, size0: Size, size1: Size
) -> tuple[Array, Array]:
    """Which points of each image lie inside the other one once warped.

    Returns:
        (N0,) and (N1,) bool.
    """
    keep0 = inside(warp_points(h_0to1, points0), size1)
    keep1 = inside(warp_points(np.linalg.inv(h_0to1), points1), size0)
    return keep0, keep1


def pixel_distances(points0: Array, points1: Array) -> Array:
    """(N0, N1) Euclidean distances of two sets of points of one image."""
    difference = points0[:, None, :] - points1[None, :, :]
    return np.asarray(np.hypot(difference[..., 0], difference[..., 1]))


# --- keypoints ------------------------------------------------------------------------------


def strongest(scores: Array, count: int) -> Array:
    """Indices of the ``count`` highest scores, best first; ties keep their order."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count]


def suppress_neighbours(points: Array, scores: Array, radius: int) -> Array:
    """Greedy non-maximum suppression on the pixel grid.

    A point goes when a stronger one that stays is within ``radius`` of it in x and in y
    (Chebyshev distance of the nearest pixels).

    Args:
        points: (N, 2).
        scores: (N,).
        radius: Radius in pixels.

    Returns:
        Indices of the points that stay, best first.
    """
    if len(points) == 0:
        return np.zeros(0, np.intp)
    cells = np.maximum(np.rint(points), 0).astype(np.intp)
    width, height = cells.max(axis=0) + 1
    taken = np.zeros((height, width), bool)
    kept = []
    for index in strongest(scores, len(scores)):
        x, y = cells[index]
        if not taken[y, x]:
            kept.append(index)
            taken[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = True
    return np.asarray(kept, np.intp)


def repeatability(
    points0: Array,
    points1: Array,
    h_0to1: Array,
    *,
    threshold: float = CORRECT_DISTANCE,
    pooled: bool = True,
) -> tuple[float, float]:
    """Repeatability and localisation error of two sets of keypoints (paper, appendix A).

    A point repeats when the nearest point of the other image, warped into its own image, is
    within ``threshold``: each image's points are judged in that image's pixels, so that the
    measure does not change when the images swap places.

    Args:
        points0: (N0, 2).
        points1: (N1, 2).
        h_0to1: (3, 3).
        threshold: Threshold in pixels.
        pooled: Repeating points over all points (the paper), or else the mean of the two
            images' rates and of their errors.

    Returns:
        Repeatability, and the mean distance of the repeating points (pixels, NaN if none).
    """
    if len(points0) == 0 or len(points1) == 0:
        return 0.0, float("nan")
    in_image0 = pixel_distances(points0, warp_points(np.linalg.inv(h_0to1), points1))
    in_image1 = pixel_distances(points1, warp_points(h_0to1, points0))
    nearest = [in_image0.min(axis=1), in_image1.min(axis=1)]
    if pooled:
        nearest = [np.concatenate(nearest)]
    rates = [float((distance <= threshold).mean()) for distance in nearest]
    errors = [finite_mean(distance[distance <= threshold]) for distance in nearest]
    return float(np.mean(rates)), finite_mean(np.asarray(errors))


def match_detections(
    points: Array,
    scores: Array,
    corners: Array,
    threshold: float = 4.0,
    groups: NDArray[np.intp] | None = None,
) -> Array:
    """Distance of each detection to the true corner it finds.

    From the strongest detection down, each takes the nearest corner that is still free and
    within ``threshold``, so that a corner is found once (paper, section 4.1 and Table 2).

    Args:
        points: (N, 2).
        scores: (N,).
        corners: (M, 2).
        threshold: Threshold in pixels.
        groups: (M,) from :func:`group_corners`: corners of a group count as one, and further
            detections of it are neither right nor false.

    Returns:
        (N,) pixels; infinity for a false detection, NaN for one that does not count.
    """
    distances = np.full(len(points), np.inf)
    if len(corners) == 0:
        return distances
    groups = np.arange(len(corners)) if groups is None else groups
    found = np.zeros(len(corners), bool)
    free = pixel_distances(points, corners)
    for index in strongest(scores, len(scores)):
        nearest = int(free[index].argmin())
        if free[index, nearest] <= threshold:
            group = groups[nearest]
            distances[index] = np.nan if found[group] else free[index, nearest]
            found[group] = True
            free[:, nearest] = np.inf
    return distances


def group_corners(corners: Array, radius: int) -> NDArray[np.intp]:
    """Corners that suppression cannot tell apart: it keeps one detection for each group.

    Args:
        corners: (M, 2).
        radius: Radius of the suppression, pixels.

    Returns:
        (M,) for each corner the index of the one that represents its group, within ``radius`` in x
        and in y; the corners in their order, as if each were stronger than the next.
    """
    kept = np.sort(suppress_neighbours(corners, -np.arange(len(corners)), radius))
    if len(kept) == 0:
        return kept
    pixels = np.rint(corners)
    away = np.abs(pixels[:, None] - pixels[None, kept]).max(axis=2)
    return np.asarray(kept[away.argmin(axis=1)], np.intp)


# --- matches --------------------------------------------------------------------------------


def descriptor_distances(descriptors0: Array, descriptors1: Array, *, binary: bool) -> Array:
    """(N0, N1) distances of descriptors: Euclidean, or Hamming for packed bits.

    Args:
        descriptors0: (N0, D).
        descriptors1: (N1, D).
        binary: Whether rows are bytes of bits (ORB, AKAZE) rather than vectors.
    """
    if binary:
        descriptors0 = np.unpackbits(np.asarray(descriptors0, np.uint8), axis=1)
        descriptors1 = np.unpackbits(np.asarray(descriptors1, np.uint8), axis=1)
    a, b = np.asarray(descriptors0, np.float32), np.asarray(descriptors1, np.float32)
    # |a - b|^2 of 0/1 vectors is their Hamming distance, exact in float32 below 2**24.
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * (a @ b.T)
    squared = np.maximum(squared, 0)
    return squared if binary else np.asarray(np.sqrt(squared))


def mutual_matches(distances: Array) -> Array:
    """Pairs that are each other's nearest neighbour.

    Args:
        distances: (N0, N1).

    Returns:
        (M, 2) indices into the two sets, ascending in the first.
    """
    if distances.size == 0:
        return np.zeros((0, 2), np.intp)
    forward, backward = distances.argmin(axis=1), distances.argmin(axis=0)
    first = np.arange(len(forward))
    mutual = backward[forward] == first
    return np.stack([first[mutual], forward[mutual]], axis=1)


def match_errors(points0: Array, points1: Array, matches: Array, h_0to1: Array) -> Array:
    """(M,) pixels of image 1 between each match's point and where it should be."""
    difference = warp_points(h_0to1, points0[matches[:, 0]]) - points1[matches[:, 1]]
    return np.asarray(np.hypot(difference[:, 0], difference[:, 1]))


def match_precision(errors: Array, threshold: float = CORRECT_DISTANCE) -> float:
    """Correct matches over all matches; 0 without any match."""
    return float((errors <= threshold).mean()) if len(errors) else 0.0


def matching_score(
    errors: Array,
    count0: int,
    count1: int,
    *,
    threshold: float = CORRECT_DISTANCE,
    of_smaller: bool = False,
) -> float:
    """Correct matches over the points that they could have come from.

    Args:
        errors: (M,) of :func:`match_errors`.
        count0: Points of image 0 in the shared view.
        count1: Points of image 1 in the shared view.
        threshold: Threshold in pixels.
        of_smaller: Divide by the smaller count instead of averaging over both images (the paper).
    """
    correct = int((errors <= threshold).sum())
    if count0 == 0 or count1 == 0:
        return 0.0
    if of_smaller:
        return correct / min(count0, count1)
    return (correct / count0 + correct / count1) / 2


def average_precision(scores: Array, correct: Array, total: int | None = None) -> float:
    """Area under the precision-recall curve of ranked answers.

    Answers of equal score enter together, so that their order does not matter.

    Args:
        scores: (N,) higher is better.
        correct: (N,) bool.
        total: Answers that make a recall of 1; the correct ones among ``correct`` if None.

    Returns:
        Sum over the ranking of precision times the step in recall; 0 if nothing is correct.
    """
    total = int(correct.sum()) if total is None else total
    if total == 0 or not correct.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits, rank = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    steps = np.diff(hits, prepend=0)
    return float((hits / rank * steps).sum() / total)


def nearest_neighbour_map(
    distances: Array,
    points0: Array,
    points1: Array,
    h_0to1: Array,
    threshold: float = CORRECT_DISTANCE,
) -> float:
    """NN mAP: how well descriptor distance tells right nearest neighbours from wrong ones.

    Every point's nearest neighbour is an answer, ranked by distance, in both directions; the
    two average precisions are averaged (paper, appendix B). Recall counts the correct answers
    there are, not all possible correspondences: that is the reading under which the published
    values are attainable (SIFT: .694, with matching score .313 and repeatability .495).

    Args:
        distances: (N0, N1) descriptor distances.
        points0: (N0, 2).
        points1: (N1, 2).
        h_0to1: (3, 3).
        threshold: Threshold in pixels.
    """
    if distances.size == 0:
        return 0.0
    index0, index1 = np.arange(len(points0)), np.arange(len(points1))
    forward = np.stack([index0, distances.argmin(axis=1)], axis=1)
    backward = np.stack([index1, distances.argmin(axis=0)], axis=1)
    errors0 = match_errors(points0, points1, forward, h_0to1)
    errors1 = match_errors(points1, points0, backward, np.linalg.inv(h_0to1))
    ap0 = average_precision(-distances.min(axis=1), errors0 <= threshold)
    ap1 = average_precision(-distances.min(axis=0), errors1 <= threshold)
    return (ap0 + ap1) / 2
