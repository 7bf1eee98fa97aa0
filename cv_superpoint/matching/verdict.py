"""Whether chance explains the matches that agree: the number of false alarms.

Of two pictures that share nothing, some matches always agree with some homography. If every match
joined two points at random, how many models as good as the one found would there be among all that
the matches can give? Below :data:`LIMIT` chance is no explanation.

Sources: Moisan and Stival, "A probabilistic criterion to detect rigid point matches between two
images and estimate the fundamental matrix", IJCV 57(3), 2004; for homographies Moisan, Moulon and
Monasse, "Automatic homographic registration of a pair of images, with a contrario elimination of
outliers", IPOL 2, 2012. Written from their formulas.

Convention:
    Points are (x, y) in pixels, (0, 0) the centre of the top-left pixel; a matrix maps image 0 to
    image 1, or has ``x1' F x0 = 0``.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features

Kind = Literal["homography", "fundamental", "essential"]
Points = NDArray[np.float64]

LIMIT = -2.0
"""Decimal logarithm of the number of false alarms up to which a model is reliable: one in 100
unrelated pairs, and far fewer where it was measured (docs/results/limits.md)."""
PRECISION = 0.5
"""Pixels; no keypoint is known better, so an error below it is no further evidence."""
CELL = 4.0
"""Pixels; matches that begin and end together are one observation, as of two pyramid levels."""
NEIGHBOURHOOD = 1 / 16
"""Radius in which the density of keypoints is taken, as a share of the root of the image's area."""
_SAMPLE = 512
"""Keypoints that the density is taken from."""


class _Form(NamedTuple):
    """A kind of model: matches that fix it, models that they give at most, dimension of errors."""

    sample: int
    solutions: int
    dimension: int


_FORMS: dict[str, _Form] = {
    "homography": _Form(4, 1, 2),
    "fundamental": _Form(7, 3, 1),
    "essential": _Form(5, 10, 1),
}


def log_false_alarms(
    features0: Features,
    features1: Features,
    matches: NDArray[np.intp],
    matrix: NDArray[np.float64],
    kind: Kind,
    *,
    tries: int = 1,
) -> float:
    """Decimal logarithm of the number of false alarms of a model.

    With n matches, of which k miss the model by at most e, it is the least over k of

        tries * solutions * (n - s) * C(n, k) * C(k, s) * p(e) ** (k - s)

    where s matches fix a model and p(e) is the chance that a keypoint lies as close as e to a place
    or to an epipolar line. The papers take random points of the image: p(e) = pi e^2 / area, or
    2 e * diagonal / area. Keypoints crowd in clusters, and in a mask; so 1 / area is replaced by
    the density of the keypoints around a keypoint, where that is higher. An error is the larger
    one of both images, so that a model that maps everything to one spot has large errors.

    Args:
        features0: Features of image 0.
        features1: Features of image 1.
        matches: (M, 2) rows of both, inliers and others.
        matrix: (3, 3) homography or fundamental matrix; for "essential" the fundamental matrix in
            pixels that belongs to it.
        kind: Kind of the model.
        tries: Number of sets of matches of which this one is the best, such as rotations tried.

    Returns:
        Infinity where there are too few matches for any evidence.
    """
    form = _FORMS[kind]
    first, second = _observations(features0, features1, matches)
    errors = np.sort(_errors(first, second, np.asarray(matrix, np.float64), form.dimension))
    count = len(errors)
    if count <= form.sample:
        return math.inf
    unit = max(_chance(each, form.dimension) for each in (features0, features1))
    chance = np.minimum(1.0, unit * errors)
    kept = np.arange(form.sample + 1, count + 1)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    subsets = factorial[count] - factorial[kept] - factorial[count - kept]
    samples = factorial[kept] - factorial[form.sample] - factorial[kept - form.sample]
    tests = math.log(tries * form.solutions * (count - form.sample))
    each = subsets + samples + (kept - form.sample) * np.log(chance[kept - 1])
    return float((tests + each.min()) / math.log(10))


def _observations(
    features0: Features, features1: Features, matches: NDArray[np.intp]
) -> tuple[Points, Points]:
    """Places of the matches in both images; those that begin and end together once."""
    first = features0.keypoints[matches[:, 0]].astype(np.float64)
    second = features1.keypoints[matches[:, 1]].astype(np.float64)
    cells = np.floor(np.concatenate([first, second], axis=1) / CELL)
    rows = np.unique(cells, axis=0, return_index=True)[1]
    return first[rows], second[rows]


def _errors(first: Points, second: Points, matrix: NDArray[np.float64], dimension: int) -> Points:
    """(M,) errors to the power of the dimension, in pixels; infinite where there is no place."""
    ones = np.ones((len(first), 1))
    first, second = np.concatenate([first, ones], axis=1), np.concatenate([second, ones], axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if dimension == 1:
            lines1, lines0 = first @ matrix.T, second @ matrix
            offset = np.abs((lines1 * second).sum(axis=1))
            slopes = np.hypot(lines1[:, 0], lines1[:, 1]), np.hypot(lines0[:, 0], lines0[:, 1])
            errors = offset / np.minimum(*slopes)
        else:
            back = _inverse(matrix)
            errors = np.maximum(_distance(first, second, matrix), _distance(second, first, back))
        errors = np.maximum(errors, PRECISION) ** dimension
    return np.asarray(np.where(np.isnan(errors), np.inf, errors), np.float64)


def _distance(source: Points, target: Points, matrix: NDArray[np.float64]) -> Points:
    mapped = source @ matrix.T
    offset = mapped[:, :2] / mapped[:, 2:] - target[:, :2]
    return np.asarray(np.hypot(offset[:, 0], offset[:, 1]), np.float64)


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    except np.linalg.LinAlgError:
        return np.full((3, 3), np.nan)


def _chance(features: Features, dimension: int) -> float:
    """Share of the keypoints within 1 pixel of a place, or of a line through all of them."""
    density = _density(features)
    if dimension == 2:
        return math.pi * density
    return 2 * float(np.hypot(*np.ptp(features.keypoints, axis=0))) * density


def _density(features: Features) -> float:
    """Share of the other keypoints that lies in a square pixel near a keypoint."""
    area = features.image_size[0] * features.image_size[1]
    radius = NEIGHBOURHOOD * math.sqrt(area)
    points = features.keypoints[:: 1 + (len(features) - 1) // _SAMPLE].astype(np.float64)
    x, y = points.T
    near = np.hypot(x[:, None] - x, y[:, None] - y) < radius
    count = len(points)
    share = (near.sum() - count) / (count * (count - 1))
    return max(1 / area, float(share) / (math.pi * radius**2))
