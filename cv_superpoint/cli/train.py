"""``cv-superpoint train``: hands its arguments to the training program."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from cv_superpoint.cli.output import FAILED, Output

_START = """
import sys
sys.path[0] = sys.argv.pop(1)
from train.__main__ import main
main()
"""
"""``python -m train`` would run a train.py of the current folder; the package is found first."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train weights of your own; the arguments are those of python -m train (extra [train]).

    Attributes:
        arguments: Handed on as they are.
    """

    arguments: Annotated[tuple[str, ...], Positional] = ()

    def run(self, output: Output) -> int:
        """Run the program, which inference does not import; returns its exit code."""
        missing = [name for name in ("torch", "kornia", "scipy") if find_spec(name) is None]
        if missing:
            output.fail(
                f"training needs {', '.join(missing)}, not installed; "
                'pip install "cv-superpoint[train]"'
            )
            return FAILED
        packages = str(Path(__file__).parents[2])
        return subprocess.call([sys.executable, "-c", _START, packages, *self.arguments])
