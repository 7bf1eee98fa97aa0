"""``python -m train matcher``: a matcher for a set of weights, from a folder of photographs."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output
from cv_superpoint.files.fingerprint import sha256_of
from cv_superpoint.files.record import as_stored, differences, read_record, write_record
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import LoadedMatcher, load_matcher, save_matcher
from cv_superpoint.opencv.feature2d import SuperPointFeature2D
from cv_superpoint.synthetic.photometric import Image
from cv_superpoint.weights import LoadedWeights, load_weights
from train.data.feature_pairs import extract_scenes, features_folder, scene_files
from train.data.images import ImageConfig, load_readable
from train.data.photographs import Photographs, look_at
from train.data.translate import translate_matcher
from train.export import current_commit
from train.learning import checkpoint
from train.learning.loop import Trainer
from train.runtime.process import restart_with_settings, start_logging
from train.settings import ELSEWHERE
from train.stages.matcher import MatcherTask, MatcherTrainingConfig

log = logging.getLogger(__name__)

RECORD = "matcher.json"
"""File of the settings."""
TRANSLATED = 60
"""Photographs that a start for other weights is adapted with."""


@dataclass(frozen=True, kw_only=True)
class TrainMatcher:
    """Train a matcher on the features that a set of weights finds.

    The folder of the run gets features/, extracted once, matcher.pt, from which the same command
    goes on, and matcher.safetensors at the end.

    Attributes:
        images: Folder of photographs.
        weights: Weights whose features it learns to match: a bundled name, or a file.
        start: Matcher to start with, of the same sizes. If it was trained for other weights, its
            first layer is adapted to the descriptors of these.
        run_dir: Folder of features, checkpoints and results.
        threads: Threads of the training on a CPU; 0 leaves the choice to torch.
        sizes: Working size of the photographs.
        training: How it is trained.
    """

    HELP: ClassVar[Help] = Help(
        examples=("matcher --images photographs --weights superpoint --run-dir runs/matcher",),
        results=(
            "features/: the features of the scenes, extracted once",
            "matcher.pt: the state, from which the same command goes on",
            "matcher.safetensors: the matcher, for LightGlueMatcher.create and --matcher",
        ),
        first=("images", "weights", "start", "run_dir", "threads"),
    )

    images: Path
    weights: str = "superpoint"
    start: Path | None = None
    run_dir: Path = Path("runs/matcher")
    threads: int = 0
    sizes: ImageConfig = field(
        default_factory=lambda: ImageConfig(shorter_side=320, longest_side=480)
    )
    training: MatcherTrainingConfig = field(default_factory=MatcherTrainingConfig)

    def run(self, output: Output) -> int:
        """Extract what is missing, then train to the end."""
        if not torch.cuda.is_available():
            restart_with_settings()
        start_logging()
        if self.threads:
            torch.set_num_threads(self.threads)
        checkpoint.check_folder(self.run_dir, 0)
        weights = load_weights(self.weights)
        weights.check_descriptors()
        found = look_at(self.images, self.run_dir / "photographs.json", self.run_dir)
        self._check(weights, found)
        files = self._features(weights, found)
        task = MatcherTask(self.training, files, self._start(weights, found))
        Trainer(task, self.training.loop, self.run_dir).fit()
        output.say(str(self._export(weights, task)))
        return DONE

    def _start(self, weights: LoadedWeights, found: Photographs) -> LoadedMatcher | None:
        """What the training starts with, for descriptors of these weights."""
        if self.start is None:
            return None
        start = load_matcher(self.start)
        if start.fitted_to == weights.tensor_digest:
            return start
        theirs = load_weights(start.weights)
        if theirs.tensor_digest != start.fitted_to:
            raise ValueError(
                f"{self.start} was trained for weights {start.weights} that are not here: start "
                "with a matcher of bundled weights, or with none"
            )
        photographs = list(islice(load_readable(found.paths, self.sizes), TRANSLATED))
        return translate_matcher(
            start, self._detector(start.weights), self._detector(self.weights), photographs
        )

    def _detector(self, weights: str) -> SuperPointFeature2D:
        # A thread pool of OpenCV's own would take the cores of the network.
        cv2.setNumThreads(1)
        count = self.training.features.keypoints
        return SuperPointFeature2D.create(count, weights=weights, threads=self.threads or None)

    def _export(self, weights: LoadedWeights, task: MatcherTask) -> Path:
        """Write the averaged network and the threshold that suits it."""
        state = checkpoint.load(self.run_dir / f"{MatcherTask.name}.pt")
        task.network.load_state_dict(checkpoint.weights_of(state))
        task.network.eval()
        tensors = {
            name: value.float().cpu().contiguous()
            for name, value in task.network.net.state_dict().items()
        }
        path = self.run_dir / "matcher.safetensors"
        save_matcher(
            path,
            tensors,
            MatcherConfig(**state["architecture"]),
            weights=weights.name,
            fitted_to=weights.tensor_digest,
            threshold=task.recommended(task.network),
            recipe=f"python -m train matcher, {state['samples']} pairs; all settings in {RECORD}",
            commit=current_commit(),
        )
        return path

    def _check(self, weights: LoadedWeights, found: Photographs) -> None:
        """Check that a run that was begun goes on with what it was begun with, and record it.

        Raises:
            ValueError: If something that decides the outcome differs.
        """
        if weights.config.in_channels != 1:
            raise ValueError(f"{self.weights} takes colour; scenes are grey: give other weights")
        record = self.run_dir / RECORD
        settings = {
            "weights": weights.sha256,
            "photographs": found.sha256,
            "start": None if self.start is None else sha256_of(self.start),
            "sizes": asdict(self.sizes),
            "training": asdict(self.training),
        }
        before = read_record(record)
        if before is not None and (self.run_dir / f"{MatcherTask.name}.pt").exists():
            changed = list(differences(_lasting(before), _lasting(as_stored(settings))))
            if changed:
                raise ValueError(
                    f"{self.run_dir} holds a matcher that was trained with other settings "
                    f"({'; '.join(changed)}): give the same, or another --run-dir"
                )
        write_record(record, settings)

    def _features(self, weights: LoadedWeights, found: Photographs) -> list[Path]:
        config, seed = self.training.features, self.training.seed
        folder = features_folder(
            self.run_dir, f"{weights.sha256} {found.sha256} {self.sizes}", config, seed
        )
        detector = self._detector(self.weights)
        detector.setScoreThreshold(detector.getScoreThreshold() * config.threshold)
        paths = found.paths

        def photograph(number: int) -> Image:
            """The photograph of this number, or the next that can be read."""
            turned = paths[number % len(paths) :] + paths[: number % len(paths)]
            for image in load_readable(turned, self.sizes):
                return image
            raise ValueError(f"none of the photographs of {found.folder} can be read any more")

        extract_scenes(detector, photograph, len(paths), folder, config, seed)
        files = scene_files(folder, config)
        log.info("features of %d scenes, %.0f MB", len(files), _megabytes(files))
        return files


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    training = settings["training"]
    loop = {key: value for key, value in training["loop"].items() if key not in ELSEWHERE}
    return {**settings, "training": {**training, "loop": loop}}


def _megabytes(files: list[Path]) -> float:
    return float(np.sum([path.stat().st_size for path in files])) / 2**20
