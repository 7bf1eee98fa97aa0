"""The ``synthetic`` protocol: detections on drawn shapes against the vertices that were drawn.

Paper, section 4.1 and Table 2: average precision over all detections and corners, and the mean
distance of the correct ones, on clean drawings and on photometrically disturbed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.predictions import Finder
from cv_superpoint.evaluation.statistics import Estimate, estimate, finite_mean
from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample

COLUMNS = ("keypoints", "average_precision", "localisation_error")

NMS_RADIUS = 4
"""Pixels: applied to every detector, or those that answer one corner twice would be punished."""

_SEED = 7_000_000
"""Added to the seed, so that no drawing is one that training saw."""


@dataclass(frozen=True, kw_only=True)
class SyntheticEvaluation:
    """What is drawn.

    Attributes:
        images: Number of images of each kind, clean and noisy.
        size: Height and width, multiples of 8.
        threshold: Pixels within which a corner is found (the paper's 4).
        seed: Seed of the drawings.
    """

    images: int = 500
    size: tuple[int, int] = (120, 160)
    threshold: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise SuperPointError(f"images must be at least 1, got {self.images}")


@dataclass(frozen=True, kw_only=True)
class DrawingResult:
    """Detections of one drawing; ``distances`` are infinite for false ones.

    Corners within :data:`NMS_RADIUS` of each other count as one.
    """

    name: str
    kind: str
    shape: str
    corners: int
    scores: Array
    distances: Array

    def record(self) -> dict[str, Any]:
        """Counts for the output files."""
        correct = np.isfinite(self.distances)
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": self.shape,
            "corners": self.corners,
            "keypoints": len(self.scores),
            "correct": int(correct.sum()),
        }


def evaluate_drawings(find: Finder, config: SyntheticEvaluation) -> list[DrawingResult]:
    """Detect on every drawing."""
    results = []
    for kind in ("clean", "noise"):
        drawing = SyntheticConfig(size=config.size, clean=kind == "clean")
        for index in range(config.images):
            sample = draw_sample(_SEED + config.seed, index, drawing)
            found = find(sample.image)
            kept = metrics.suppress_neighbours(found.points, found.scores, NMS_RADIUS)
            found = found.take(kept)
            corners = np.asarray(sample.keypoints, np.float64).reshape(-1, 2)
            groups = metrics.group_corners(corners, NMS_RADIUS)
            distances = metrics.match_detections(
                found.points, found.scores, corners, config.threshold, groups
            )
            counts = ~np.isnan(distances)
            results.append(
                DrawingResult(
                    name=f"{kind} {index}",
                    kind=kind,
                    shape=sample.shape,
                    corners=len(np.unique(groups)),
                    scores=found.scores[counts],
                    distances=distances[counts],
                )
            )
    return results


def summarise_drawings(
    results: Sequence[DrawingResult], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Measures of the clean and of the noisy drawings; intervals over drawings.

    Precision and localisation error pool the detections of all drawings, so that the statistic is
    of a set of drawings and not a mean over them.
    """
    summary = {}
    for kind in dict.fromkeys(result.kind for result in results):
        subset = [result for result in results if result.kind == kind]
        names = [result.name for result in subset]
        positions = np.arange(len(subset), dtype=np.float64)
        summary[kind] = {
            key: estimate(
                positions,
                names,
                _over(subset, statistic),
                resamples=resamples,
                seed=seed,
            )
            for key, statistic in (
                ("keypoints", _mean_count),
                ("average_precision", _pooled_precision),
                ("localisation_error", _pooled_distance),
            )
        }
    return summary


def _over(
    results: Sequence[DrawingResult], statistic: Callable[[Sequence[DrawingResult]], float]
) -> Callable[[Array], float]:
    """A statistic of drawings as one of their positions, which is what a bootstrap draws."""
    return lambda positions: statistic([results[int(position)] for position in positions])


def _mean_count(results: Sequence[DrawingResult]) -> float:
    return sum(len(result.scores) for result in results) / len(results)


def _pooled_precision(results: Sequence[DrawingResult]) -> float:
    scores = np.concatenate([result.scores for result in results])
    correct = np.isfinite(np.concatenate([result.distances for result in results]))
    return metrics.average_precision(scores, correct, sum(result.corners for result in results))


def _pooled_distance(results: Sequence[DrawingResult]) -> float:
    return finite_mean(np.concatenate([result.distances for result in results]))
