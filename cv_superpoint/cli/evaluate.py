"""``cv-superpoint evaluate``: protocols, detectors and data in, tables out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cv_superpoint.cli.output import DONE, PARTLY, Output
from cv_superpoint.evaluation.run import EvaluateConfig, tables


@dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Measure any detector on pairs of known geometry under a named protocol."""

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        # Detectors of the user's own: last, so that they hide no installed module.
        sys.path.append(str(Path.cwd()))
        text, complete = tables(self)
        output.say(text)
        return DONE if complete else PARTLY
