"""Command line: ``python -m train [STAGE] [--images DIR] [--run-dir DIR] [--recipe NAME] ...``.

The options of a stage are read in two steps: those of :class:`Stage`, among them the recipe, then
the fields of :class:`RunConfig`, whose defaults the recipe gives.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import cv2
import torch
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from cv_superpoint.cli.command import Command, Program, run_program
from cv_superpoint.cli.evaluate import Evaluate
from cv_superpoint.cli.explain import explain
from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, FAILED, PARTLY, STOPPED, Output
from cv_superpoint.cli.usage import refuse, said_in_one_line
from train.checks import check_run
from train.config import RunConfig
from train.matcher import TrainMatcher
from train.recipes import RECIPES
from train.reporting.preview.run import PreviewConfig, preview
from train.reporting.summary import SummaryConfig, write_report
from train.run import Run
from train.runtime import distributed
from train.runtime.process import restart_with_settings, start_logging
from train.stages.compact import CompactConfig, manifest_lines
from train.stages.compact import fit as fit_compaction

ACTIONABLE = (ValueError, OSError, MemoryError, cv2.error, torch.cuda.OutOfMemoryError)
"""Errors that a user can act on; other RuntimeErrors of torch are mostly the program's faults."""

if TYPE_CHECKING:
    RecipeName = str
else:
    RecipeName = Literal[tuple(sorted(RECIPES))]

Share = tuple[int, int]


def _share(words: list[str]) -> Share:
    index, _, count = words[0].partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"must be K/N with K below N, such as 0/2, got {words[0]}")
    return int(index), int(count)


_SHARE = PrimitiveConstructorSpec[Share | None](
    nargs=1,
    metavar="K/N",
    instance_from_str=_share,
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda share: [f"{share[0]}/{share[1]}" if share else str(share)],
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        run_dir: Folder of checkpoints, labels and results.
        images: Folder of photographs; drawings replace them if it is left out.
        recipe: What gives the fields their defaults.
        start: Fine-tune these weights (a bundled name, such as superpoint, or a file) instead of
            training magicpoint.
        minutes: Wall-clock time of the whole run, or of the one stage.
        round: Round of adapt and joint, from 1 on.
        shard: Adapt every N-th photograph from K on, in one process.
        help_fields: List the recipe's fields.
    """

    stage: ClassVar[str]
    HELP: ClassVar[Help]

    run_dir: Path = Path("runs/default")
    images: Path | None = None
    recipe: RecipeName = "default"
    start: str | None = None
    minutes: float | None = None
    round: int = 1
    shard: Annotated[Share | None, _SHARE] = None
    help_fields: bool = False


class All(Stage):
    """Every stage in turn, then an evaluation."""

    stage = "all"
    HELP = Help(
        examples=(
            "all --images photographs --run-dir runs/mine",
            "all --images photographs --run-dir runs/mine --start superpoint --recipe finetune",
        ),
        results=(
            "magicpoint.pt, joint.pt, ...: checkpoints, from which the same command continues",
            "labels/, tensorboard/, report.html: labels of the photographs, curves and pictures",
            "superpoint.safetensors: the weights; superpoint.json: how they were made",
            "evaluation/: the comparison with SIFT and ORB on photographs that are held out",
        ),
    )


class MagicPoint(Stage):
    """Train the detector on drawings."""

    stage = "magicpoint"
    HELP = Help(
        examples=("magicpoint --images photographs --run-dir runs/mine",),
        results=(
            "magicpoint.pt: the checkpoint, from which the same command continues",
            "tensorboard/, report.html: curves, and detections on drawings",
        ),
    )


class Adapt(Stage):
    """Label the photographs with the detector of the round before."""

    stage = "adapt"
    HELP = Help(
        examples=(
            "adapt --images photographs --run-dir runs/mine",
            "adapt --images photographs --run-dir runs/mine --round 2 --shard 0/2",
        ),
        results=("labels/: a file of keypoints for each photograph; none is labelled twice",),
    )


class Joint(Stage):
    """Train detector and descriptors on the labelled photographs."""

    stage = "joint"
    HELP = Help(
        examples=(
            "joint --images photographs --run-dir runs/mine",
            "joint --images photographs --run-dir runs/mine --round 2",
        ),
        results=(
            "joint.pt, joint2.pt of round 2: checkpoints, from which the same command continues",
            "tensorboard/, report.html: curves, labels over photographs, matches of a pair",
        ),
    )


class Refine(Stage):
    """Train the last round's network on, at a higher resolution or as a whole."""

    stage = "refine"
    HELP = Help(
        examples=("refine --images photographs --run-dir runs/mine",),
        results=(
            "refine.pt: the checkpoint, from which the same command continues",
            "tensorboard/, report.html: curves, labels over photographs, matches of a pair",
        ),
    )


class Export(Stage):
    """Write superpoint.safetensors of the last stage, or magicpoint.safetensors, a detector."""

    stage = "export"
    HELP = Help(
        examples=("export --images photographs --run-dir runs/mine",),
        results=(
            "superpoint.safetensors: the weights; superpoint.json: how they were made",
            "magicpoint.safetensors and .json instead, where magicpoint is the last stage",
        ),
    )


class Preview(PreviewConfig):
    """Draw synthetic samples to look at: preview.png (with their keypoints) and shapes.png."""

    HELP: ClassVar[Help] = Help(
        examples=("preview --run-dir runs/preview", "preview --save drawings --count 1000"),
        results=(
            "preview.png: samples with their keypoints; shapes.png: a sample of every kind",
            "with --save: NAME.png and NAME.json, a sample and its keypoints",
        ),
        first=("run_dir", "rows", "save", "count", "seed"),
    )

    def run(self, output: Output) -> int:
        """Draw; the log says where."""
        preview(self)
        return DONE


class Summary(SummaryConfig):
    """Write report.html: every curve and picture of a run in one file."""

    HELP: ClassVar[Help] = Help(
        examples=("summary runs/mine",),
        results=("report.html: one file without links, in the folder of the run",),
    )

    def run(self, output: Output) -> int:
        """Write the report and print its path."""
        output.say(str(write_report(self.run_dir)))
        return DONE


class Compact(CompactConfig):
    """Fit what makes descriptors shorter to finished weights: components, and planes for bits."""

    HELP: ClassVar[Help] = Help(
        examples=("compact --weights mine.safetensors --images photographs",),
        results=(
            "mine.compact.safetensors: the components and the planes, next to the weights",
            "printed: what each format keeps on photographs that are held out",
        ),
    )

    def run(self, output: Output) -> int:
        """Write the file, and say where and with which checksum."""
        path, entry = fit_compaction(self)
        output.say(f"wrote {path}; for weights/manifest.json: {manifest_lines(entry)}")
        return DONE


STAGES = {kind.stage: kind for kind in (All, MagicPoint, Adapt, Joint, Refine, Export)}
COMMANDS: dict[str, type] = {
    **STAGES,
    "matcher": TrainMatcher,
    "evaluate": Evaluate,
    "compact": Compact,
    "preview": Preview,
    "summary": Summary,
}
PROGRAM = Program(
    name="python -m train",
    description=(
        "Train a detector and its descriptors. Without a command all stages run. Further options "
        "of a stage override single fields of the recipe, such as --joint.loop.minutes 90; "
        "--help-fields lists them."
    ),
    commands=COMMANDS,
    examples={
        "--images photographs --run-dir runs/mine": "train everything",
        "--images photographs --run-dir runs/mine --start superpoint --recipe finetune": (
            "fine-tune the bundled weights on your photographs"
        ),
        "summary runs/mine": "curves and pictures of the run: report.html",
    },
)


def parse(arguments: Sequence[str]) -> tuple[Stage, RunConfig]:
    """Read the command line of a stage; without its name, of all stages.

    Raises:
        SystemExit: The code is 2 for wrong usage, after its message, and 0 after the help.
    """
    name, *rest = _with_command(arguments)
    program = f"{PROGRAM.name} {name}"
    with said_in_one_line(program):
        known, rest = tyro.cli(STAGES[name], args=rest, prog=program, return_unknown_args=True)
        if known.help_fields:
            rest = ["--help"]
        default = RECIPES[known.recipe]()
        config = tyro.cli(RunConfig, default=default, args=rest, prog=program)
    if not 1 <= known.round <= config.rounds:
        refuse(
            f"--round must be between 1 and --rounds {config.rounds}, got {known.round}", program
        )
    if known.minutes is not None:
        if known.minutes <= 0:
            refuse(f"--minutes must be positive, got {known.minutes:g}", program)
        config = config.within(known.minutes, known.stage)
    return known, config


def _with_command(arguments: Sequence[str]) -> list[str]:
    if not arguments or (
        arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--help-all")
    ):
        return ["all", *arguments]
    return list(arguments)


def run_stage(known: Stage, config: RunConfig) -> int:
    """Do what the command line asks for.

    Returns:
        Exit status: 0, or 3 where some pictures were left out of the photographs.
    """
    run = Run(config, known.run_dir, known.images, known.start, known.shard)
    check_run(run, known.stage, known.round)
    if known.stage in ("adapt", "joint"):
        getattr(run, known.stage)(known.round)
    else:
        getattr(run, known.stage)()
    run.report()
    # torchrun would take it for a failure, and start again.
    return PARTLY if run.left_out and distributed.world_size() == 1 else DONE


@dataclass(frozen=True)
class _Training:
    """A stage with its configuration, in a process that is set up for it."""

    known: Stage
    config: RunConfig

    def run(self, output: Output) -> int:
        if not torch.cuda.is_available():
            restart_with_settings()
        distributed.start()
        start_logging(quiet=distributed.rank() > 0)
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        try:
            return run_stage(self.known, self.config)
        except (*ACTIONABLE, FloatingPointError) as error:
            # What the user can act on is said in one line; anything else keeps its traceback.
            raise SystemExit(f"{PROGRAM.name}: {explain(error) or error}") from error
        except Exception:
            traceback.print_exc()
            return FAILED
        except KeyboardInterrupt:
            return STOPPED
        finally:
            distributed.stop()


def _parse(arguments: Sequence[str]) -> Command:
    arguments = _with_command(arguments)
    PROGRAM.help_if_asked(arguments)
    if arguments[0] in STAGES:
        return _Training(*parse(arguments))
    # Of the other commands the log is all that they say of their progress.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command: Command = PROGRAM.choose(arguments)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage, or all, or another command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_program(lambda: _parse(given))


if __name__ == "__main__":
    raise SystemExit(main())
