"""Two precisions of one network on the same pairs, and when one keeps the accuracy of the other.

A precision keeps the accuracy where no measure can be worse than float32's by more than its
margin: the lower end of the paired difference's 95 % interval, resampled by photograph, lies above
minus the margin. That it does not is no proof of a loss: few pairs have intervals as wide as the
margins, however alike the precisions are.

RANSAC draws at random, and the least change of a position gives it other draws. So a pair's
homography is estimated from its matches in several orders, and counts with the share that is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.evaluation.datasets import ImagePair
from cv_superpoint.evaluation.measure import PairResult, evaluate_pairs
from cv_superpoint.evaluation.predictions import Detections, Finder
from cv_superpoint.evaluation.protocols import Protocol
from cv_superpoint.evaluation.results import table
from cv_superpoint.evaluation.statistics import (
    Estimate,
    finite_mean,
    paired_difference,
)
from cv_superpoint.weights import LoadedWeights

REFERENCE = "float32"
RATES = ("repeatability", "match_precision", "matching_score")
CORNERS = (1, 3, 5)
"""Pixels of corner error up to which a homography counts."""
DETECTION = RATES[:1]
"""The measures that weights without descriptors have."""
MARGINS = {**dict.fromkeys(RATES, 0.01), **{f"e <= {limit} px": 0.03 for limit in CORNERS}}
"""Loss that must be ruled out before ``precision="auto"`` may take a precision."""
FEWEST_PAIRS = 500
"""A share of fewer may change by chance in none of them, which would look like certainty."""
ORDERS = 10
"""Orders of a pair's matches. A single one moves a share of 2048 pairs by .01 or more."""
DISTANCES = (0.5, 1.0)
"""Pixels within which a keypoint of one precision is that of the other."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One precision beside float32 on the same pairs.

    Attributes:
        backend: What computed it.
        pairs: Number of pairs.
        values: Each measure of :data:`MARGINS` over all pairs; only those of :data:`DETECTION` of
            weights without descriptors.
        differences: Paired differences from float32, with intervals.
        shared: Share of the keypoints that both have, by the distance in pixels.
        cosine: Mean, of the descriptors of the keypoints that both have within 1 px.
        low_cosine: What one in a hundred of these lies below.
    """

    backend: str
    pairs: int
    values: Mapping[str, float]
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    shared: Mapping[float, float] = field(default_factory=dict)
    cosine: float = 1.0
    low_cosine: float = 1.0

    @property
    def described(self) -> bool:
        """Whether the weights have descriptors."""
        return tuple(self.values) != DETECTION

    @property
    def keeps(self) -> bool:
        """Whether a loss beyond the margin is ruled out for every measure."""
        return self.pairs >= FEWEST_PAIRS and all(
            self.differences[key].low > -MARGINS[key] for key in self.values
        )

    def record(self) -> dict[str, Any]:
        """The figures as values that JSON holds."""
        return {
            "backend": self.backend,
            "pairs": self.pairs,
            "values": dict(self.values),
            "differences": {key: asdict(one) for key, one in self.differences.items()},
            "shared": {f"{distance} px": share for distance, share in self.shared.items()},
            **({"cosine": self.cosine, "low_cosine": self.low_cosine} if self.described else {}),
            "keeps": self.keeps,
        }


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The keypoints of two sets that are each other's nearest.

    Attributes:
        count: Keypoints of the larger set.
        distances: (M,) pixels.
        cosines: (M,) of their descriptors.
    """

    count: int
    distances: NDArray[np.float64]
    cosines: NDArray[np.float64]

    def share(self, distance: float) -> float:
        """Share of the larger set that the other has within a distance; 1 of two empty sets."""
        return float((self.distances <= distance).sum() / self.count) if self.count else 1.0


def agreement(reference: Detections, other: Detections) -> Agreement:
    """Match two precisions' keypoints of one image to each other, by position."""
    count = max(len(reference), len(other))
    if not len(reference) or not len(other):
        return Agreement(count=count, distances=np.empty(0), cosines=np.empty(0))
    distance = np.linalg.norm(reference.points[:, None] - other.points, axis=2)
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    rows = np.flatnonzero(back[there] == np.arange(len(reference)))
    pairs = reference.descriptors[rows] * other.descriptors[there[rows]]
    return Agreement(
        count=count,
        distances=distance[rows, there[rows]],
        cosines=pairs.sum(axis=1, dtype=np.float64),
    )


def pooled(agreements: Iterable[Agreement]) -> Agreement:
    """The agreements of all images together, as if they were one image."""
    found = list(agreements)
    return Agreement(
        count=sum(one.count for one in found),
        distances=np.concatenate([one.distances for one in found]),
        cosines=np.concatenate([one.cosines for one in found]),
    )


def finder(backend: Backend, weights: LoadedWeights, seen: list[Detections]) -> Finder:
    """A detector of the evaluation, which appends what it finds to ``seen``."""
    detector = Detector(backend, weights.config, DetectorConfig(decoding=weights.decoding()))

    def find(image: NDArray[Any]) -> Detections:
        features = detector.extract(np.ascontiguousarray(image))
        seen.append(
            Detections(
                points=features.keypoints.astype(np.float64),
                scores=features.scores.astype(np.float64),
                descriptors=features.descriptors,
                binary=False,
            )
        )
        return seen[-1]

    return find


def compare(
    pairs: Iterable[ImagePair],
    protocol: Protocol,
    weights: LoadedWeights,
    candidates: Mapping[str, Backend],
) -> dict[str, Comparison]:
    """Measure every precision on every pair, all on one pair before the next."""
    seen: dict[str, list[Detections]] = {name: [] for name in candidates}
    finders = {name: finder(backend, weights, seen[name]) for name, backend in candidates.items()}
    results: dict[str, list[list[PairResult]]] = {name: [] for name in candidates}
    agreements: dict[str, list[Agreement]] = {name: [] for name in candidates}
    orders = ORDERS if weights.config.descriptor_dim else 1
    others = [_reordered(protocol, order) for order in range(1, orders)]
    for pair in pairs:
        for name, find in finders.items():
            seen[name].clear()
            found = list(evaluate_pairs([pair], find, protocol))
            for other in others:
                found += evaluate_pairs([pair], _again(seen[name]), other)
            results[name].append(found)
            agreements[name] += map(agreement, seen[REFERENCE], seen[name])
    measures = tuple(MARGINS) if weights.config.descriptor_dim else DETECTION
    return {
        name: _compare(
            backend, results[REFERENCE], results[name], pooled(agreements[name]), measures
        )
        for name, backend in candidates.items()
    }


def _reordered(protocol: Protocol, order: int) -> Protocol:
    """The protocol with another order of the matches, which changes no measure of the keypoints."""
    passes = tuple(replace(step, detection=False) for step in protocol.passes)
    return replace(protocol, passes=passes, ransac=replace(protocol.ransac, order=order))


def _again(found: Iterable[Detections]) -> Finder:
    """What was found, in the order in which it was asked for."""
    rest = iter(found)
    return lambda _: next(rest)


def _compare(
    backend: Backend,
    before: Sequence[Sequence[PairResult]],
    after: Sequence[Sequence[PairResult]],
    agreeing: Agreement,
    measures: Sequence[str],
) -> Comparison:
    groups = [results[0].sequence for results in before]
    reference, values = (
        {key: np.array([_measured(one, key) for one in found]) for key in measures}
        for found in (before, after)
    )
    near = agreeing.cosines[agreeing.distances <= max(DISTANCES)]
    return Comparison(
        backend=backend.info(),
        pairs=len(before),
        values={key: finite_mean(array) for key, array in values.items()},
        differences={key: paired_difference(values[key], reference[key], groups) for key in values},
        shared={distance: agreeing.share(distance) for distance in DISTANCES},
        cosine=finite_mean(near),
        low_cosine=float(np.percentile(near, 1)) if len(near) else math.nan,
    )


def _measured(results: Sequence[PairResult], key: str) -> float:
    """A measure of :data:`MARGINS` of one pair, from the results of all orders."""
    limits = {f"e <= {limit} px": limit for limit in CORNERS}
    if key in limits:
        return float(np.mean([one.corner_error <= limits[key] for one in results]))
    return float(getattr(results[0], key))


def comparison_table(comparisons: Mapping[str, Comparison]) -> str:
    """One column for each precision, float32 first, one row for each measure."""
    first = comparisons[REFERENCE]
    others = {name: one for name, one in comparisons.items() if name != REFERENCE}
    rows = [["computed by", first.backend, *(one.backend for one in others.values())]]
    rows += [
        [
            f"same keypoints within {distance:g} px",
            "",
            *(f"{one.shared[distance]:.4f}" for one in others.values()),
        ]
        for distance in DISTANCES
    ]
    if first.described:
        rows.append(
            [
                "cosine of their descriptors: mean, 1 % lowest",
                "",
                *(f"{one.cosine:.5f}, {one.low_cosine:.4f}" for one in others.values()),
            ]
        )
    for key in first.values:
        margin = MARGINS[key]
        cells = [f"{first.values[key]:.{4 if key in RATES else 3}f}"]
        cells += [_cell(one, key) for one in others.values()]
        rows.append([f"{key.replace('_', ' ')} (above -{margin:g})", *cells])
    failed = "not shown" if first.pairs >= FEWEST_PAIRS else "too few pairs to decide"
    verdicts = ["yes" if one.keeps else failed for one in others.values()]
    rows.append(["keeps the accuracy", "", *verdicts])
    return "\n".join(table(["", *comparisons], rows))


def _cell(one: Comparison, key: str) -> str:
    """Value, and paired difference with its interval."""
    digits = 4 if key in RATES else 3
    difference = one.differences[key]
    return (
        f"{one.values[key]:.{digits}f}: {difference.value:+.{digits}f} "
        f"({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
    )
