"""Command line: ``cv-superpoint COMMAND``. Each command is a file; its work is the library's.

Exit codes: 0 done, 1 an error or no result, 2 wrong usage, 3 done, but some inputs were left out,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Any

import tyro

from cv_superpoint.cli.calibrate import Calibrate
from cv_superpoint.cli.command import Program, run_program
from cv_superpoint.cli.convert import Convert
from cv_superpoint.cli.detect import Detect
from cv_superpoint.cli.doctor import Doctor
from cv_superpoint.cli.evaluate import Evaluate
from cv_superpoint.cli.export import Export
from cv_superpoint.cli.extract import Extract
from cv_superpoint.cli.match import Match
from cv_superpoint.cli.stitch import Stitch
from cv_superpoint.cli.track import Track
from cv_superpoint.cli.train import Train
from cv_superpoint.cli.view import View

PROGRAM = Program(
    name="cv-superpoint",
    description="SuperPoint keypoints and descriptors: detect, match, track, stitch, extract.",
    commands={
        "match": Match,
        "view": View,
        "detect": Detect,
        "extract": Extract,
        "track": Track,
        "stitch": Stitch,
        "export": Export,
        "convert": Convert,
        "calibrate": Calibrate,
        "doctor": Doctor,
        "evaluate": Evaluate,
        "train": Train,
    },
    examples={
        "match one.jpg two.jpg": "matches and homography of two pictures: matches/matches.png",
        "view one.jpg two.jpg": "the same in the browser, next to SIFT and ORB",
        "extract photographs": "features of a folder: features.h5",
        "doctor": "what runs here, and how fast",
    },
    config=(tyro.conf.OmitArgPrefixes,),
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_program(lambda: _parse(given))


def _parse(arguments: list[str]) -> Any:
    if arguments[:1] == ["train"]:
        # Not parsed: the training program has a command line of its own.
        return Train(arguments=tuple(arguments[1:]))
    return PROGRAM.choose(arguments)
