"""Command line: ``python -m train [STAGE] [--images DIR] [--run-dir DIR] [--recipe NAME] ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import cv2
import torch
import tyro

from cv_superpoint.cli.evaluate import main as evaluate
from cv_superpoint.cli.explain import explain
from cv_superpoint.cli.output import DONE, PARTLY, settle, show_every_character
from train.checks import check_run
from train.config import RunConfig
from train.recipes import RECIPES
from train.reporting.preview.run import main as preview
from train.reporting.summary import main as summary
from train.run import Run
from train.runtime import distributed
from train.runtime.process import restart_with_settings, start_logging

log = logging.getLogger(__name__)

ACTIONABLE = (ValueError, OSError, MemoryError, cv2.error, torch.cuda.OutOfMemoryError)
"""Of torch's other RuntimeErrors nearly all are faults of the program."""

STAGES = ("all", "magicpoint", "adapt", "joint", "refine", "export")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be K/N with K below N, such as 0/2, got {text}")
    return int(index), int(count)


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, RunConfig]:
    """Read the command line: the recipe first, then the fields that override it."""
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train a detector and its descriptors. Further options override single fields "
        "of the recipe, for example --joint.loop.minutes 90; --help-fields lists them. Commands "
        "with options of their own: python -m train evaluate, preview or summary --help.",
    )
    parser.add_argument("stage", nargs="?", default="all", choices=STAGES, help="default: all")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/default"))
    parser.add_argument("--images", type=Path, help="folder of photographs (default: drawings)")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="default")
    parser.add_argument(
        "--start", metavar="WEIGHTS", help="fine-tune these (a bundled name, such as superpoint, "
        "or a file) instead of training magicpoint",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, help="wall-clock time of the whole run, or of the one stage"
    )
    parser.add_argument("--round", type=int, default=1, help="of adapt and joint, from 1 on")
    parser.add_argument(
        "--shard", type=_shard, help="K/N: adapt every N-th photograph from K on, in one process"
    )
    parser.add_argument("--help-fields", action="store_true", help="list the recipe's fields")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] and arguments[0].startswith("--"):
        # Otherwise the value of a recipe's field would be taken for the stage.
        arguments = ["all", *arguments]
    known, rest = parser.parse_known_args(arguments)
    if known.help_fields:
        rest = ["--help"]
    config = tyro.cli(RunConfig, default=RECIPES[known.recipe](), args=rest, prog="python -m train")
    if known.minutes is not None:
        config = config.within(known.minutes, known.stage)
    if not 1 <= known.round <= config.rounds:
        parser.error(f"--round must be between 1 and --rounds {config.rounds}, got {known.round}")
    return known, config


def run_stage(known: argparse.Namespace, config: RunConfig) -> int:
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


def main() -> None:
    """Run a stage, or all; ``evaluate``, ``preview`` and ``summary`` have options of their own."""
    commands = {"evaluate": evaluate, "preview": preview, "summary": summary}
    if command := commands.get(next(iter(sys.argv[1:]), "")):
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        raise SystemExit(command(sys.argv[2:], f"python -m train {sys.argv[1]}"))
    show_every_character()
    try:
        known, config = parse()
    except BrokenPipeError:  # of the help, as in --help | head
        raise SystemExit(DONE) from None
    finally:
        settle()
    if not torch.cuda.is_available():
        restart_with_settings()
    distributed.start()
    start_logging(quiet=distributed.rank() > 0)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        status = run_stage(known, config)
    except (*ACTIONABLE, FloatingPointError) as error:
        # What the user can act on is said in one line; anything else keeps its traceback.
        raise SystemExit(f"python -m train: {explain(error) or error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        distributed.stop()
        settle()
    raise SystemExit(status)


if __name__ == "__main__":
    main()
