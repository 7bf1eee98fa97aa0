"""Summaries of measures over many pairs, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import SuperPointError

Array = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A measure over many pairs: NaN where nothing could be measured.

    Attributes:
        value: Over all pairs.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: Pairs that it was measured on.
    """

    value: float
    low: float
    high: float
    count: int


class Changes(NamedTuple):
    """Pairs that hold on one side only, and how likely such a split is by chance.

    Attributes:
        gained: Pairs that hold afterwards only.
        lost: Pairs that held before only.
        probability: Probability of a split at least as uneven if both are equally likely, of two
            sides.
    """

    gained: int
    lost: int
    probability: float


class Interval(NamedTuple):
    """Bounds of a confidence interval; both NaN where none can be given."""

    low: float
    high: float


def accuracy(errors: Array, threshold: float) -> float:
    """Share of errors up to a threshold; 0 of none."""
    return float((np.asarray(errors) <= threshold).mean()) if len(errors) else 0.0


def area_under_curve(errors: Array, threshold: float) -> float:
    """Area under accuracy as a function of the threshold, from 0 to ``threshold``, over it.

    Trapezoids between the sorted errors and the origin, as in SuperGlue's and glue-factory's
    figures; with few pairs that is up to 1 / (2 N) above the exact area under the steps.
    """
    if len(errors) == 0:
        return 0.0
    ordered = np.sort(np.asarray(errors, np.float64))
    ordered = ordered[ordered < threshold]
    recall = np.arange(len(ordered) + 1) / len(errors)
    at = np.concatenate([[0.0], ordered, [threshold]])
    height = np.append(recall, recall[-1])
    return float(((height[1:] + height[:-1]) / 2 * np.diff(at)).sum() / threshold)


def finite_mean(values: Array) -> float:
    """Mean of the values that are finite; NaN of none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def estimate(
    values: Array,
    groups: Sequence[str],
    statistic: Callable[[Array], float] = finite_mean,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A statistic of the values that are not NaN, with its interval.

    Args:
        values: (N,) one per pair.
        groups: N names, of the sequence of each pair.
        statistic: Statistic of values.
        resamples: Same as for :func:`bootstrap_interval`.
        seed: Same as for :func:`bootstrap_interval`.
    """
    measured = ~np.isnan(values)
    if not measured.any():
        return Estimate(math.nan, math.nan, math.nan, 0)
    kept = [group for group, keep in zip(groups, measured, strict=True) if keep]
    values = values[measured]
    low, high = bootstrap_interval(values, kept, statistic, resamples=resamples, seed=seed)
    return Estimate(statistic(values), low, high, len(values))


def paired_difference(
    values: Array,
    reference: Array,
    groups: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean difference of two measurements of the same pairs, with its interval.

    What makes a pair easy or hard is in both and cancels, so that the interval is many times
    narrower than those of the two means.

    Args:
        values: (N,) one per pair; NaN on either side leaves the pair out.
        reference: (N,) what is subtracted.
        groups: N names, of the sequence of each pair.
        resamples: Same as for :func:`bootstrap_interval`.
        seed: Same as for :func:`bootstrap_interval`.
    """
    difference = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    return estimate(difference, groups, resamples=resamples, seed=seed)


def mcnemar(before: Array, after: Array) -> Changes:
    """McNemar's exact test of a yes or no on the same pairs.

    Pairs count as independent here, which those of one photograph are not quite; the interval of
    :func:`paired_difference` resamples photographs.

    Args:
        before: (N,) bool.
        after: (N,) bool.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 1947, with the binomial distribution itself.
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    count = gained + lost
    tail = sum(math.comb(count, rank) for rank in range(min(gained, lost) + 1))
    return Changes(gained, lost, min(1.0, 2 * tail / 2**count))


def exact_interval(hits: int, count: int) -> Interval:
    """95 % interval of a share, from ``hits`` of ``count`` independent yes or no.

    Raises:
        ValueError: If ``count`` is not positive or ``hits`` not between 0 and it.

    Source:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
        the binomial", Biometrika 26, 1934.
    """
    if not 0 <= hits <= count or count < 1:
        raise SuperPointError(f"hits must be between 0 and count, got {hits} of {count}")
    low = 0.0 if hits == 0 else 1 - _highest_share(count - hits, count)
    return Interval(low, 1.0 if hits == count else _highest_share(hits, count))


def _highest_share(hits: int, count: int) -> float:
    """The share under which as few as ``hits`` have a chance of 2.5 %."""
    ranks = np.arange(hits + 1)
    choose = np.array([math.log(math.comb(count, rank)) for rank in range(hits + 1)])
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:  # no float lies between them
            return high
        chances = choose + ranks * math.log(middle) + (count - ranks) * math.log1p(-middle)
        if np.exp(chances).sum() > 0.025:
            low = middle
        else:
            high = middle


def bootstrap_interval(
    values: Array,
    groups: Sequence[str],
    statistic: Callable[[Array], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """95 % percentile interval from resampling whole groups.

    Pairs of one sequence share an image and are not independent, so sequences are drawn with
    replacement, each with all its pairs.

    Args:
        values: (N,) one per pair.
        groups: N names, of the sequence of each pair.
        statistic: Statistic of the values of a resample.
        resamples: How many draws.
        seed: Seed of the draws.

    Returns:
        The interval; NaN where fewer than two groups or no finite statistic leave nothing to say.
    """
    names = sorted(set(groups))
    if len(names) < 2 or resamples < 1:
        return Interval(float("nan"), float("nan"))
    label = np.asarray(groups)
    members = [np.flatnonzero(label == name) for name in names]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(names), size=(resamples, len(names)))
    found = np.array(
        [statistic(values[np.concatenate([members[i] for i in draw])]) for draw in draws]
    )
    found = found[np.isfinite(found)]
    if len(found) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(low), float(high))
