"""No output takes the place of an input, by whatever name, link or case of letters it is called."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cv_superpoint.errors import SuperPointError
from cv_superpoint.files.names import AnyPath

Identity = tuple[int, int]
"""Device and number of a file on it: the same for all its names."""


class OverwriteError(SuperPointError):
    """An output of a command is one of its inputs."""


def identity(path: AnyPath) -> Identity | None:
    """What the file or folder is, links followed; None if nothing is there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def keep_inputs(inputs: Iterable[AnyPath], outputs: Iterable[AnyPath]) -> None:
    """Check that no output is a file that is read; call it before the first is written.

    Args:
        inputs: Files that are read.
        outputs: Files that are written.

    Raises:
        OverwriteError: If writing an output would destroy an input.
    """
    known = {identity(path): os.fspath(path) for path in inputs}
    known.pop(None, None)
    for output in outputs:
        what = identity(output)
        if what in known:
            text = os.fspath(output)
            same = "" if known[what] == text else f", which is the same file as {known[what]},"
            raise OverwriteError(
                f"{text}{same} is an input and would be overwritten; name another output"
            )


def is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Whether a path, links followed, lies in a folder or below it, or is that folder."""
    there = identity(folder)
    if there is None:
        return False
    real = Path(os.path.realpath(path))
    return any(identity(each) == there for each in (real, *real.parents))
