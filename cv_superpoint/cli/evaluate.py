"""``cv-superpoint evaluate``: protocols, detectors and data in, tables out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, PARTLY, Output
from cv_superpoint.evaluation.run import EvaluateConfig, tables


@dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Measure any detector on pairs of known geometry under a named protocol."""

    HELP: ClassVar[Help] = Help(
        examples=(
            "evaluate --data photographs --protocol warp --detectors superpoint,sift,orb",
            "evaluate --data hpatches --protocol auc --weights superpoint-lite --out results",
        ),
        results=(
            "printed: tables of figures with 95 % intervals",
            "--out/results.json and results.md: the same; pairs.csv: figures of every pair",
            "--out/matches_DETECTOR_best.png and _worst.png: two pairs; bars_SUBSET.png",
        ),
        first=(
            "data",
            "protocol",
            "detectors",
            "matchers",
            "weights",
            "out",
            "refine",
            "pairs_per_image",
        ),
    )

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        # Detectors of the user's own: last, so that they hide no installed module.
        sys.path.append(str(Path.cwd()))
        text, complete = tables(self)
        output.say(text)
        return DONE if complete else PARTLY
