"""Results of an evaluation: summaries, JSON and Markdown tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint.evaluation.datasets import Skipped
from cv_superpoint.evaluation.measure import PairResult
from cv_superpoint.evaluation.statistics import Estimate, accuracy, area_under_curve, estimate
from cv_superpoint.files import write_file

Summary = dict[str, dict[str, Estimate]]
"""Subset ("all", "viewpoint", ...) -> measure -> its value."""

CORNER_THRESHOLDS = (1, 3, 5)
"""Pixels of corner error."""
EXACT = (0.25, 0.5)
"""Pixels of corner error that refined matches are asked about."""
MATCHED_COLUMNS = ("matches", "correct")
"""What a table has beside a protocol's columns where matchers are compared."""
REFINED_COLUMNS = (*(f"accuracy_{t}" for t in EXACT), "inlier_error")
"""What a table has beside a protocol's columns where matches are refined."""

HEADERS = {
    "keypoints": "keypoints",
    "repeatability": "rep.",
    "localisation_error": "loc. err",
    "average_precision": "AP",
    "matches": "matches",
    "match_precision": "match precision",
    "matching_score": "M. score",
    "nn_map": "NN mAP",
    "correct": "correct",
    "inliers": "inliers",
    "corner_error": "corner err",
    "inlier_error": "inlier err",
    **{f"accuracy_{t}": f"e={t}" for t in (*EXACT, *CORNER_THRESHOLDS)},
    **{f"auc_{t}": f"AUC@{t}" for t in CORNER_THRESHOLDS},
    **{f"pose_auc_{angle}": f"AUC@{angle}°" for angle in (5, 10, 20)},
    "pose_error": "pose err",
}

_MEANS = (
    "keypoints",
    "repeatability",
    "localisation_error",
    "matches",
    "match_precision",
    "matching_score",
    "nn_map",
    "correct",
    "inliers",
    "inlier_error",
)
_COUNTS = ("keypoints", "matches", "correct", "inliers")
_PER_PAIR = (
    "keypoints",
    "repeatability",
    "matches",
    "match_precision",
    "matching_score",
    "inliers",
    "corner_error",
    "pose_error",
)


def summarise(results: Sequence[PairResult], *, resamples: int = 1000, seed: int = 0) -> Summary:
    """Every measure over each kind of pair and over all of them.

    Args:
        results: One per pair.
        resamples: Number of resamples of the bootstrap over sequences; 0 leaves the intervals out.
        seed: Seed of the bootstrap.
    """
    kinds = list(dict.fromkeys(result.kind for result in results))
    subsets = [(kind, [r for r in results if r.kind == kind]) for kind in kinds]
    if len(kinds) == 1:
        subsets = []
    summary: Summary = {}
    for name, subset in [*subsets, ("all", list(results))]:
        over = partial(
            estimate, groups=[r.sequence for r in subset], resamples=resamples, seed=seed
        )
        summary[name] = {key: over(_values(subset, key)) for key in _MEANS}
        errors = _values(subset, "corner_error")
        statistics: tuple[tuple[str, Callable[..., float]], ...] = (
            ("accuracy", accuracy),
            ("auc", area_under_curve),
        )
        for measure, statistic in statistics:
            exact = EXACT if measure == "accuracy" else ()
            for threshold in (*exact, *CORNER_THRESHOLDS):
                summary[name][f"{measure}_{threshold}"] = over(
                    errors, statistic=partial(statistic, threshold=threshold)
                )
    return summary


def _values(results: Sequence[PairResult], key: str) -> Any:
    return np.array([getattr(result, key) for result in results], np.float64)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that an evaluation found out.

    Attributes:
        protocol: Name of the protocol.
        settings: Whatever else decides the figures.
        columns: Measures in the tables.
        summaries: Per detector.
        results: Per detector, one record per pair or image.
        skipped: What the reader left out.
        left_out: Images among them, which cannot be read.
        differences: A table of them, in Markdown.
    """

    protocol: str
    settings: Mapping[str, Any]
    columns: tuple[str, ...]
    summaries: Mapping[str, Summary]
    results: Mapping[str, Sequence[Mapping[str, Any]]]
    skipped: Sequence[Skipped] = ()
    left_out: Sequence[Skipped] = ()
    differences: str = ""

    def to_json(self) -> str:
        """One JSON document; what could not be measured, or is infinite, is null."""
        document = {
            "protocol": self.protocol,
            "settings": self.settings,
            "skipped": [item._asdict() for item in self.skipped],
            "detectors": {
                label: {
                    subset: {key: dataclasses.asdict(value) for key, value in measures.items()}
                    for subset, measures in summary.items()
                }
                for label, summary in self.summaries.items()
            },
            "results": self.results,
        }
        return json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The protocol, a table per subset, the intervals, and what was skipped."""
        parts = [f"# Protocol `{self.protocol}`", ""]
        subsets = list(next(iter(self.summaries.values())))
        for subset in subsets:
            rows = {label: summary[subset] for label, summary in self.summaries.items()}
            count = max(value.count for row in rows.values() for value in row.values())
            title = f"{self.protocol}, {subset} ({count})"
            header = [title, *(HEADERS[key] for key in self.columns)]
            parts += table(
                header,
                [
                    [label, *(show(k, row[k].value) for k in self.columns)]
                    for label, row in rows.items()
                ],
            )
            if all(math.isnan(row[key].low) for row in rows.values() for key in self.columns):
                continue  # A single sequence, or no resamples: there are no intervals.
            header[0] = "95 % intervals"
            parts += table(
                header,
                [
                    [label, *(show_interval(key, row[key]) for key in self.columns)]
                    for label, row in rows.items()
                ],
            )
        if self.differences:
            parts.append(self.differences)
        if self.skipped:
            parts += [f"Skipped ({len(self.skipped)}):", ""]
            parts += [f"- {item.name}: {item.reason}" for item in self.skipped]
            parts.append("")
        return "\n".join(parts)

    def pairs_markdown(self) -> str:
        """A table of single pairs per detector."""
        parts = []
        for label, records in self.results.items():
            keys = [key for key in _PER_PAIR if key in records[0]]
            header = [f"{self.protocol}, {label}", *(HEADERS[key] for key in keys)]
            parts += table(
                header, [[r["name"], *(show(key, r[key]) for key in keys)] for r in records]
            )
        return "\n".join(parts)

    def write(self, folder: Path) -> None:
        """Write results.json, results.md and pairs.csv into a folder, made if missing."""
        rows = io.StringIO()
        writer = csv.writer(rows)
        fields = list(next(iter(self.results.values()))[0])
        writer.writerow(["protocol", "detector", *fields])
        for label, records in self.results.items():
            for record in records:
                writer.writerow([self.protocol, label, *(record[key] for key in fields)])
        texts = {"results.json": self.to_json(), "results.md": self.to_markdown()}
        for name, text in (texts | {"pairs.csv": rows.getvalue()}).items():
            # Names of pairs come from files, which may have names that are no UTF-8.
            write_file(folder / name, text.encode("utf-8", "backslashreplace"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, padded so that it also reads well in a terminal."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 2) for width in widths)
    return [line(header), f"|{rule}|", *map(line, rows), ""]


def show(key: str, value: float) -> str:
    """A measure's value as text of a table."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "none"
    return f"{value:.0f}" if key in _COUNTS else f"{value:.3f}"


def show_interval(key: str, value: Estimate) -> str:
    """A measure's interval as text of a table."""
    return "–" if math.isnan(value.low) else f"{show(key, value.low)}–{show(key, value.high)}"


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
