"""Command line: ``cv-superpoint COMMAND``. Each command is a file; its work is the library's.

Exit codes: 0 done, 1 an error or no result, 2 wrong usage, 3 done, but some inputs were left out,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from cv_superpoint.cli.arguments import positionals_first
from cv_superpoint.cli.convert import Convert
from cv_superpoint.cli.detect import Detect
from cv_superpoint.cli.doctor import Doctor
from cv_superpoint.cli.evaluate import Evaluate
from cv_superpoint.cli.explain import explain
from cv_superpoint.cli.export import Export
from cv_superpoint.cli.extract import Extract
from cv_superpoint.cli.match import Match
from cv_superpoint.cli.output import (
    DONE,
    FAILED,
    STOPPED,
    Output,
    settle,
    show_every_character,
)
from cv_superpoint.cli.stitch import Stitch
from cv_superpoint.cli.track import Track
from cv_superpoint.cli.train import Train
from cv_superpoint.cli.view import View

_COMMANDS = {
    "detect": Detect,
    "match": Match,
    "extract": Extract,
    "track": Track,
    "stitch": Stitch,
    "export": Export,
    "convert": Convert,
    "view": View,
    "doctor": Doctor,
    "evaluate": Evaluate,
    "train": Train,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    show_every_character()
    try:
        if given[:1] == ["train"]:
            # Not parsed: the training program has a command line of its own.
            return _run(Train(arguments=tuple(given[1:])))
        try:
            command = _parse(given)
        except BrokenPipeError:  # of the help, as in --help | head
            return DONE
        return _run(command)
    finally:
        settle()


def _run(command: Any) -> int:
    output = Output(json=getattr(command, "json", False))
    try:
        code: int = command.run(output)
    except KeyboardInterrupt:
        output.fail("stopped")
        return STOPPED
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        output.fail(line)
        return FAILED
    return code


def _parse(arguments: list[str]) -> Any:
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)]
        for name, kind in _COMMANDS.items()
    ]
    union: Any = reduce(or_, kinds)
    return tyro.cli(
        union,
        args=positionals_first(arguments, _COMMANDS),
        prog="cv-superpoint",
        description="SuperPoint keypoints and descriptors: detect, match, track, stitch, extract.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
