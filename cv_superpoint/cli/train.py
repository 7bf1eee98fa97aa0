"""``cv-superpoint train``: the training program in the place of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from cv_superpoint.cli.output import FAILED, Output, settle

_START = """
import sys
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
from train.__main__ import main
sys.exit(main())
"""
"""Not ``python -m train``, which runs a train.py of the current folder: this looks nowhere there,
and where the package is first."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train weights of your own; the arguments are those of python -m train (extra [train]).

    Attributes:
        arguments: Arguments of the training program, unchanged.
    """

    arguments: Annotated[tuple[str, ...], Positional] = ()

    def run(self, output: Output) -> int:
        """Run the program, which inference does not import; on Windows, returns its exit code."""
        needed = ("torch", "kornia", "tensorboard")
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            output.fail(
                f"training needs {', '.join(missing)}, not installed; "
                'pip install "cv-superpoint[train]"'
            )
            return FAILED
        packages = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", _START, packages, *self.arguments]
        if sys.platform != "win32":
            # One process: Ctrl-C and SIGTERM reach the training, which then saves a checkpoint.
            settle()
            os.execv(sys.executable, command)
        return subprocess.call(command)
