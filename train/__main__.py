"""Command line: ``python -m train [STAGE] [--images DIR] [--run-dir DIR] [--recipe NAME] ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro

from train import checkpoint
from train.adapt import adapt, cache_folder, read_labels
from train.config import RunConfig
from train.data.images import list_images
from train.evaluate.run import main as evaluate
from train.export import export, folded_network
from train.joint import Joint
from train.loop import Trainer
from train.magicpoint import MagicPoint
from train.preview import save_drawings, shapes_sheet
from train.recipes import RECIPES
from train.runtime import restart_with_settings, start_logging

log = logging.getLogger(__name__)

STAGES = ("all", "magicpoint", "adapt", "joint", "export", "preview")


class Run:
    """The stages of one run directory; each goes on where it was stopped."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        images: Path | None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.shard = shard
        self.config = config
        self.run_dir = run_dir
        self.folder = images

    def photographs(self) -> list[Path]:
        """The user's images, or drawings in their place."""
        if self.folder is not None:
            return list_images(self.folder)
        folder = self.run_dir / "drawings"
        sizes = self.config.adapt.images
        data = replace(
            self.config.magicpoint.data, size=(sizes.shorter_side, sizes.shorter_side * 4 // 3)
        )
        save_drawings(folder, self.config.seed + 1, self.config.drawings, data)
        return list_images(folder)

    def split(self) -> tuple[list[Path], list[Path]]:
        """Photographs to train on, and those held out to watch the run."""
        paths = self.photographs()
        order = np.random.default_rng((self.config.seed, 3)).permutation(len(paths))
        shuffled = [paths[position] for position in order]
        return shuffled[self.config.held_out :], shuffled[: self.config.held_out]

    def magicpoint(self) -> None:
        """Train the detector on synthetic shapes."""
        stage = self.config.magicpoint
        Trainer(MagicPoint(stage, self.config.seed), stage.loop, self.run_dir).fit()

    def adapt(self) -> None:
        """Label the photographs with the detector of stage 1."""
        net = folded_network(self.run_dir / "magicpoint.pt")
        config, seed = self.config.adapt, self.config.seed
        adapt(net, self.split()[0], self.run_dir, config, seed, self.shard)

    def joint(self) -> None:
        """Train detector and descriptors on the labelled photographs."""
        stage, seed, labels = self.config.joint, self.config.seed, self.config.adapt
        start = self.run_dir / "magicpoint.pt"
        training, held_out = self.split()
        folder = cache_folder(self.run_dir, folded_network(start), labels, seed)
        images = read_labels(folder, training, labels)
        task = Joint(stage, seed, images, held_out, labels.images)
        task.start_from(checkpoint.load(start)["network"])
        Trainer(task, stage.loop, self.run_dir).fit()

    def export(self) -> None:
        """Write the weights of the last stage that has any."""
        for stage, target in (("joint", "superpoint"), ("magicpoint", "magicpoint")):
            source = self.run_dir / f"{stage}.pt"
            if source.exists():
                path = self.run_dir / f"{target}.safetensors"
                sizes, recipe = self.config.adapt.images, asdict(self.config)
                export(source, path, self.split()[0], sizes, recipe)
                log.info("wrote %s", path)
                return
        raise ValueError(f"nothing to export in {self.run_dir}; train first")

    def preview(self) -> None:
        """Draw what stage 1 is shown."""
        path = self.run_dir / "shapes.png"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), shapes_sheet(self.config.seed, self.config.magicpoint.data))
        log.info("wrote %s", path)

    def all(self) -> None:
        """Every stage in turn."""
        self.magicpoint()
        self.adapt()
        self.joint()
        self.export()


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be K/N with K below N, such as 0/2, got {text}")
    return int(index), int(count)


def parse(arguments: list[str] | None = None) -> tuple[str, Run]:
    """Read the command line: the recipe first, then the fields that override it."""
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train a detector and its descriptors. Further options override single fields "
        "of the recipe, for example --joint.loop.minutes 90; --help-fields lists them. To measure "
        "detectors: python -m train evaluate --help.",
    )
    parser.add_argument("stage", nargs="?", default="all", choices=STAGES)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/default"))
    parser.add_argument("--images", type=Path, help="folder of photographs (default: drawings)")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="default")
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), help="K/N: adapt every N-th photograph from K on"
    )
    parser.add_argument("--help-fields", action="store_true", help="list the recipe's fields")
    known, rest = parser.parse_known_args(arguments)
    if known.help_fields:
        rest = ["--help"]
    config = tyro.cli(RunConfig, default=RECIPES[known.recipe](), args=rest, prog="python -m train")
    return known.stage, Run(config, known.run_dir, known.images, known.shard)


def main() -> None:
    """Run a stage, or all of them; ``evaluate`` has a command line of its own."""
    if sys.argv[1:2] == ["evaluate"]:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        raise SystemExit(evaluate(sys.argv[2:]))
    stage, run = parse()
    if not torch.cuda.is_available():
        restart_with_settings()
    start_logging()
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    getattr(run, stage)()


if __name__ == "__main__":
    main()
