"""The stages of one run directory, in order; each goes on where it was stopped."""

from __future__ import annotations

import functools
import glob
import logging
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cv_superpoint.cli.output import print_line
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network import NetworkConfig
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import load_weights
from train.config import RunConfig
from train.data.images import load_readable, to_tensor
from train.data.photographs import Photographs, look_at
from train.export import export, folded_weights, network_of
from train.learning import checkpoint
from train.learning.loop import Trainer
from train.learning.model import TrainingNorm, from_folded, unfold_batchnorm
from train.reporting.pictures import save_drawings
from train.reporting.summary import write_report
from train.runtime import distributed
from train.settings import RunSettings
from train.stages.adapt import adapt, cache_folder, read_labels
from train.stages.joint import Joint, JointConfig
from train.stages.magicpoint import MagicPoint, best_threshold

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 16


class Run:
    """A configuration, a run directory and photographs.

    Args:
        config: The recipe.
        run_dir: Checkpoints, labels and results.
        images: Folder of photographs; drawings if left out.
        start: Folded weights (a bundled name or a file) to start from instead of MagicPoint.
        shard: (k, n): adaptation does every n-th photograph from the k-th on. Processes of
            ``torchrun`` share the photographs by themselves.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        images: Path | None,
        start: str | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.folder = images
        self.start = start
        self.settings = RunSettings.read(run_dir)
        self._found: Photographs | None = None
        self.shard = shard or (distributed.rank(), distributed.world_size())

    def all(self) -> None:
        """Every stage in turn."""
        if not self.starts_from_weights:
            self.magicpoint()
        if self.network.descriptor_dim:
            for round_ in range(1, self.config.rounds + 1):
                self.adapt(round_)
                self.joint(round_)
            if self.config.refinement:
                self.refine()
        if distributed.rank() == 0:
            self.export()
            self.evaluate()

    def stages(self) -> list[str]:
        """Names of the checkpoints of all stages, in their order."""
        if not self.network.descriptor_dim:
            return ["magicpoint"]
        rounds = [joint_name(round_) for round_ in range(1, self.config.rounds + 1)]
        return ["magicpoint", *rounds, *(["refine"] if self.config.refinement else [])]

    @functools.cached_property
    def network(self) -> NetworkConfig:
        """The architecture that is trained; a detector without descriptors gets a head for them."""
        if self.start is None:
            return self.config.network
        start = load_weights(self.start).config
        length = start.descriptor_dim or self.config.network.descriptor_dim
        return replace(start, descriptor_dim=length)

    @property
    def starts_from_weights(self) -> bool:
        """Whether there is no stage magicpoint."""
        return self.start is not None or self.config.teacher is not None

    @property
    def left_out(self) -> dict[str, str]:
        """Pictures that are none of the photographs, by name, and why; none before a look."""
        return {} if self._found is None else dict(self._found.left_out)

    def path(self, name: str) -> Path:
        """Path of a stage's checkpoint."""
        return self.run_dir / f"{name}.pt"

    def report(self) -> None:
        """Gather curves and pictures of what was run so far in one file."""
        if distributed.rank() == 0 and (self.run_dir / "tensorboard").exists():
            log.info("wrote %s", write_report(self.run_dir))

    def magicpoint(self) -> None:
        """Train the detector on synthetic shapes."""
        stage = self.config.magicpoint
        task = MagicPoint(stage, self.config.seed, self.config.network)
        Trainer(task, stage.loop, self.run_dir).fit()

    def adapt(self, round_: int = 1) -> None:
        """Label the photographs with the detector of the round before."""
        config, seed = self.config.adapt, self.config.seed
        adapt(self.detector(round_), self.split()[0], self.run_dir, config, seed, self.shard)
        distributed.wait()

    def joint(self, round_: int = 1) -> None:
        """Train detector and descriptors on the labelled photographs."""
        stage = self.config.joint
        self._train_joint(stage, round_, joint_name(round_), self._before(round_, stage.norm))

    def refine(self) -> None:
        """Train on, on the labels of the last round, with the keypoints of both images compared."""
        last, stage = self.config.rounds, self.config.refine
        start = self._stage_weights(joint_name(last), stage.norm)
        self._train_joint(stage, last, "refine", start)

    def export(self) -> None:
        """Write the weights of the last stage that has any."""
        source = self.last_stage()
        path = self.run_dir / f"{exported_name(source)}.safetensors"
        recipe = self.settings.recipe(asdict(self.config))
        images, sizes = self.split()[0], self.config.adapt.images
        # The levels that suit the weights before suit those that went on from them.
        scales = None if self.start is None else load_weights(self.start).scales
        corners = None
        if source.stem == "magicpoint":
            corners = best_threshold(
                network_of(source), self.config.seed, self.config.magicpoint.data
            )
        export(source, path, images, sizes, recipe, self.left_out, scales, corners)
        log.info("wrote %s", path)

    def evaluate(self) -> None:
        """Compare the exported weights with SIFT and ORB on warps of the held-out photographs.

        Those of a network without descriptors are compared with Harris on drawings.
        """
        weights = self.run_dir / f"{exported_name(self.last_stage())}.safetensors"
        if not weights.exists():
            raise ValueError(f"{weights} is missing; run the stage export first")
        config = EvaluateConfig(
            protocol="synthetic",
            detectors=("superpoint,harris",),
            images=self.config.magicpoint.validation_images,
            weights=str(weights),
            out=self.run_dir / "evaluation",
        )
        if self.network.descriptor_dim:
            held_out = self.split()[1]
            folder = self.photographs().folder
            config = replace(
                config,
                data=folder,
                protocol="warp",
                detectors=(),
                # Names, not patterns: "a[1].jpg" is a file.
                only=tuple(glob.escape(path.relative_to(folder).as_posix()) for path in held_out),
            )
        print_line(evaluate(config).to_markdown(), sys.stdout)

    def photographs(self) -> Photographs:
        """The user's images, or drawings in their place, looked at once."""
        if self._found is None:
            folder = self.folder or self._draw()
            if distributed.rank() > 0:
                distributed.wait()  # the first reads them, the others what it found
            self._found = look_at(folder, self.run_dir / "photographs.json", self.run_dir)
            if distributed.rank() == 0:
                distributed.wait()
        return self._found

    def _draw(self) -> Path:
        folder = self.run_dir / "drawings"
        side = self.config.adapt.images.shorter_side
        # Whole cells; those that this cuts off come back when the drawings are read.
        size = (-(-side // CELL_SIZE) * CELL_SIZE, side * 4 // 3 // CELL_SIZE * CELL_SIZE)
        data = replace(self.config.magicpoint.data, size=size)
        save_drawings(folder, self.config.seed + 1, self.config.drawings, data)
        return folder

    def split(self) -> tuple[list[Path], list[Path]]:
        """Photographs to train on, and those held out to watch the run."""
        found = self.photographs()
        names = list(found.contents)
        order = np.random.default_rng((self.config.seed, 3)).permutation(len(names))
        shuffled = [names[position] for position in order]
        held_out = shuffled[: self.config.held_out]
        if any(self.path(name).exists() for name in self.stages()[1:]):
            # Once training has begun they stay the same, whatever becomes of the others.
            held_out = [
                name for name in self.settings.held_out if name in found.contents
            ] or held_out
        kept = set(held_out)
        return (
            [found.folder / name for name in shuffled if name not in kept],
            [found.folder / name for name in held_out],
        )

    def detector(self, round_: int) -> NetworkWeights:
        """The folded network that labels the photographs of a round."""
        if round_ > 1:
            return folded_weights(self.path(joint_name(round_ - 1)))
        labels_first = self.config.teacher or self.start
        if labels_first is not None:
            return load_weights(labels_first)
        return folded_weights(self.path("magicpoint"))

    def last_stage(self) -> Path:
        """Checkpoint of the stage that came furthest.

        Raises:
            ValueError: If there is none.
        """
        rounds = [joint_name(k) for k in range(self.config.rounds, 0, -1)]
        for name in ("refine", *rounds, "magicpoint"):
            if self.path(name).exists():
                return self.path(name)
        raise ValueError(f"nothing to export in {self.run_dir}; train first")

    def _before(self, round_: int, norm: TrainingNorm) -> dict[str, Tensor] | None:
        """The weights that joint training of a round starts from; None to start from nothing."""
        if round_ > 1:
            return self._stage_weights(joint_name(round_ - 1), norm)
        if self.start is None:
            if self.config.teacher is not None:
                return None
            return self._stage_weights("magicpoint", norm)
        net = load_weights(self.start).net
        if norm == "none":
            return from_folded(net).state_dict()
        sizes = self.config.adapt.images
        read = islice(load_readable(self.split()[0], sizes), CALIBRATION_IMAGES)
        images = [to_tensor(image) for image in read]
        h, w = np.min([image.shape[1:] for image in images], axis=0)
        batch = torch.stack([image[:, :h, :w] for image in images]).float() / 255
        return unfold_batchnorm(net, batch).state_dict()

    def _stage_weights(self, name: str, norm: TrainingNorm) -> dict[str, Tensor]:
        """The averaged weights of a stage, folded where the next one has no normalisation."""
        if norm == "none":
            return from_folded(folded_weights(self.path(name)).net).state_dict()
        return checkpoint.weights_of(checkpoint.load(self.path(name)))

    def _train_joint(
        self, stage: JointConfig, round_: int, name: str, start: dict[str, Tensor] | None
    ) -> None:
        labels, seed = self.config.adapt, self.config.seed
        training, held_out = self.split()
        folder = cache_folder(self.run_dir, self.detector(round_), labels, seed)
        images = read_labels(folder, training, labels)
        # Another seed for every round: other warps, another order.
        task = Joint(stage, seed + round_ - 1, images, held_out, labels.images, name, self.network)
        if start is not None:
            task.start_from(start)
        Trainer(task, stage.loop, self.run_dir).fit()


def exported_name(stage: Path) -> str:
    """Name of the weights that the checkpoint of a stage becomes."""
    return "magicpoint" if stage.stem == "magicpoint" else "superpoint"


def joint_name(round_: int) -> str:
    """Name of the checkpoint of a round of joint training."""
    return "joint" if round_ == 1 else f"joint{round_}"
