"""Contenders of one detector on the same pairs: what a matcher gains over the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.results import HEADERS, table
from cv_superpoint.evaluation.statistics import mcnemar, paired_difference

MEANS = ("match_precision", "matching_score", "matches", "correct", "nn_map", "inliers")
ERRORS = {"accuracy_": "corner_error", "auc_": "corner_error", "pose_auc_": "pose_error"}
"""Measures of how many errors lie below a threshold, and of which errors."""


def difference_table(
    results: Mapping[str, Sequence[Any]],
    bases: Mapping[str, str],
    columns: Sequence[str],
    *,
    resamples: int = 1000,
) -> str:
    """Markdown: paired differences with 95 % intervals; of accuracies, pairs gained and lost.

    Args:
        results: One per pair, by label, all of the same pairs.
        bases: What each label is compared with; "" for nothing.
        columns: Columns of the protocol's table.
        resamples: Number of resamples of the bootstrap over sequences.

    Returns:
        Nothing where there is nothing to compare.
    """
    kept = [key for key in columns if key in MEANS or _threshold(key)]
    rows = [
        [
            f"{label} − {base}",
            *(_cell(results[label], results[base], key, resamples) for key in kept),
        ]
        for label, base in bases.items()
        if base
    ]
    if not rows:
        return ""
    header = ["paired difference (95 %)", *(HEADERS[key] for key in kept)]
    return "\n".join(table(header, rows))


def _threshold(key: str) -> tuple[str, float] | None:
    """Which errors a measure counts, and up to where."""
    for prefix, errors in ERRORS.items():
        if key.startswith(prefix):
            return errors, float(key.removeprefix(prefix))
    return None


def _values(found: Sequence[Any], key: str) -> Array:
    """(N,) one for each pair, whose mean is the measure."""
    limit = _threshold(key)
    if limit is None:
        return np.array([getattr(one, key) for one in found], np.float64)
    errors = np.array([getattr(one, limit[0]) for one in found], np.float64)
    if key.startswith("accuracy_"):
        return (errors <= limit[1]).astype(np.float64)
    # The area under the steps of one pair.
    return np.asarray(np.maximum(0, 1 - errors / limit[1]))


def _cell(found: Sequence[Any], base: Sequence[Any], key: str, resamples: int) -> str:
    values, reference = _values(found, key), _values(base, key)
    groups = [one.sequence for one in found]
    change = paired_difference(values, reference, groups, resamples=resamples)
    digits = 0 if key in ("matches", "correct", "inliers") else 3
    if np.isnan(change.value):
        return "–"
    text = f"{change.value:+.{digits}f}"
    if not np.isnan(change.low):
        text += f" ({change.low:+.{digits}f} to {change.high:+.{digits}f})"
    if key.startswith("accuracy_"):
        gained, lost, probability = mcnemar(reference > 0, values > 0)
        text += f"; +{gained} -{lost}, p {probability:.2f}"
    return text
