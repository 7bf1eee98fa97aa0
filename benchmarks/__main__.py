"""Command line: ``python -m benchmarks speed``. Each command is a function in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from benchmarks.busy import busy
from benchmarks.gpu import gpu
from benchmarks.growth import growth
from benchmarks.kernels import kernels
from benchmarks.matching import matching
from benchmarks.parts import parts
from benchmarks.pipeline import pipeline
from benchmarks.precision import precision
from benchmarks.soak import soak
from benchmarks.speed import processes, speed
from benchmarks.throughput import throughput
from benchmarks.training import train
from benchmarks.training_data import data
from cv_superpoint.cli.command import Program, run_program
from cv_superpoint.cli.output import DONE, Output

COMMANDS: dict[str, Callable[..., None]] = {
    "speed": speed,
    "processes": processes,
    "pipeline": pipeline,
    "matching": matching,
    "precision": precision,
    "throughput": throughput,
    "busy": busy,
    "growth": growth,
    "parts": parts,
    "soak": soak,
    "train": train,
    "data": data,
    "kernels": kernels,
    "gpu": gpu,
}


@dataclass(frozen=True)
class _Benchmark:
    """A function with its options."""

    work: Callable[[], None]

    def run(self, output: Output) -> int:
        self.work()
        return DONE


def _later(function: Callable[..., None]) -> Any:
    """The same options, for a call after they are read: what it raises is no wrong usage."""

    @wraps(function)
    def options(**given: Any) -> Callable[[], None]:
        return partial(function, **given)

    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    program = Program(
        name="python -m benchmarks",
        description="Time and memory of everything; docs/results/performance.md has the figures.",
        commands={name: _later(function) for name, function in COMMANDS.items()},
        examples={
            "speed": "whole calls of every backend, SIFT and ORB",
            "pipeline": "two images to a homography",
        },
    )
    return run_program(lambda: _Benchmark(program.choose(given)))


if __name__ == "__main__":
    raise SystemExit(main())
