"""The trainer against the bare loop of forward, backward and step: `make bench`."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint.network.torch_network import fold_batchnorm
from train.data.images import ImageConfig
from train.data.pairs import LabelledImage
from train.learning.loop import Batch, Task, Trainer
from train.learning.model import TrainingNetwork
from train.recipes import default
from train.stages.adapt import AdaptConfig, aggregate, make_detector, sample_views
from train.stages.joint import Joint
from train.stages.magicpoint import MagicPoint

STEPS = 8


def magicpoint() -> Task:
    return MagicPoint(default().magicpoint, seed=0)


def joint(folder: Path) -> Task:
    path = folder / "photograph.png"
    cv2.imwrite(str(path), cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY))
    keypoints = np.random.default_rng(0).uniform(0, 239, (160, 2)).astype(np.float32)
    return Joint(default().joint, 0, [LabelledImage(path, keypoints)], [], ImageConfig())


def bare_step(task: Task, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss, _ = task.loss(batch)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("stage", ["magicpoint", "joint"])
def test_trainer_keeps_up_with_the_bare_loop(
    benchmark: Any, capsys: Any, tmp_path: Path, stage: str
) -> None:
    """At least 0.9 of the images per second of the same network on one batch in memory."""
    task = magicpoint() if stage == "magicpoint" else joint(tmp_path)
    config = default().magicpoint.loop if stage == "magicpoint" else default().joint.loop
    trainer = Trainer(task, config, tmp_path)
    trainer.freeze()
    batches, calculate = trainer.batches(), trainer.parallel_loss()
    batch = next(batches)
    optimizer = torch.optim.Adam(task.parameters(), fused=True)

    def train() -> None:
        for kept in itertools.repeat(batch, STEPS):
            started = time.perf_counter()
            bare_step(task, optimizer, kept)
            middle = time.perf_counter()
            trainer.train_step(batches, calculate)
            bare.append(middle - started)
            whole.append(time.perf_counter() - middle)

    bare: list[float] = []
    whole: list[float] = []
    benchmark.pedantic(train, rounds=1, warmup_rounds=1)
    ratio = float(np.sum(bare[STEPS:]) / np.sum(whole[STEPS:]))
    benchmark.extra_info["share_of_bare_loop"] = ratio
    speed = STEPS * config.batch_size / np.sum(whole[STEPS:])
    with capsys.disabled():
        print(f"\n{stage}: {speed:.1f} samples/s, {100 * ratio:.0f} % of the bare loop")
    assert ratio > 0.8


def test_adaptation(benchmark: Any, capsys: Any) -> None:
    """Views of a 240 x 320 photograph per second: the floor is the network's arithmetic."""
    net = fold_batchnorm(TrainingNetwork(0).net)
    image = np.ascontiguousarray(skimage.data.camera()[:240, :320])
    config = AdaptConfig(views=8)
    views = sample_views(np.random.default_rng(0), (240, 320), config)
    detector = make_detector(net)
    benchmark.pedantic(aggregate, args=(image, views, detector, config), rounds=3, warmup_rounds=1)
    with capsys.disabled():
        per_view = benchmark.stats.stats.median / len(views)
        rate = 1 / (100 * per_view)
        print(f"\nadaptation: {1000 * per_view:.0f} ms a view, {rate:.3f} images/s with 100 views")
