"""What a training step costs: the network alone, and the trainer against the bare step."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from benchmarks import publish
from benchmarks.measure import machine, photographs
from cv_superpoint.network.torch_network import NetworkConfig
from train.data.images import ImageConfig
from train.data.pairs import LabelledImage
from train.learning.loop import LoopConfig, Task, Trainer
from train.learning.model import TrainingNetwork, TrainingNorm
from train.recipes import LITE, default, lite
from train.runtime.process import memory_format, wants_bfloat16
from train.stages.joint import Joint, JointConfig
from train.stages.magicpoint import MagicPoint

SIZE = (240, 320)
NETWORKS = {"default": NetworkConfig(), "lite": LITE}
_MEMORY_FORMATS = {torch.contiguous_format: "contiguous", torch.channels_last: "channels last"}
_VARIANTS: tuple[tuple[TrainingNorm, bool], ...] = (
    ("before_relu", False),
    ("none", False),
    ("none", True),
)
"""Normalisation, and whether the first stage is frozen."""

Precision = Literal["float32", "bfloat16"]
Step = Callable[[], None]


def network_step(
    config: NetworkConfig,
    *,
    batch: int,
    bfloat16: bool,
    memory: torch.memory_format,
    norm: TrainingNorm,
    frozen: bool,
) -> Step:
    """Forward and backward of the network alone, on random images of :data:`SIZE`."""
    network = TrainingNetwork(0, replace(config, norm=norm))
    network.to(memory_format=memory)  # type: ignore[call-overload]
    if frozen:
        network.freeze_stem()
    images = torch.rand(batch, 1, *SIZE, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, dense = network(images)
        loss = logits.float().square().mean() + dense.float()[:, :8].square().mean()
        torch.autograd.backward(loss)

    return step


def joint_task(config: NetworkConfig, joint: JointConfig, folder: Path) -> Task[Any]:
    """Pairs of one photograph with random labels."""
    path = folder / "photograph.png"
    cv2.imwrite(str(path), photographs(None, (480, 640), 1)[0])
    keypoints = np.random.default_rng(0).uniform(0, 239, (300, 2)).astype(np.float32)
    return Joint(joint, 0, [LabelledImage(path, keypoints)], [], ImageConfig(), network=config)


def trainer_steps(task: Task[Any], loop: LoopConfig, folder: Path) -> tuple[Step, Step]:
    """The bare step on one batch in memory, and the trainer's, which also makes its samples."""
    trainer = Trainer(task, loop, folder)
    batches, calculate = trainer.batches(), trainer.parallel_loss()
    kept = next(batches)
    optimizer = torch.optim.Adam(task.parameters(), fused=True)

    def bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.bfloat16):
            loss, _ = task.loss(kept)
        torch.autograd.backward(loss)
        optimizer.step()

    return bare, lambda: trainer.train_step(batches, calculate)


def seconds_of(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each step, in turn, after one warm-up of each."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if index:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def train(*, threads: int = 2, batch: int = 8, rounds: int = 5, page: bool = False) -> None:
    """Time training steps on the CPU: the network alone, and the trainer against the bare step.

    Args:
        threads: Threads of torch.
        batch: Images of the network alone; pairs of the trainer.
        rounds: Steps of each variant, in turn, after a warm-up.
        page: Put the tables into docs/results/performance.md.
    """
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    precisions: list[Precision] = ["float32"]
    if wants_bfloat16("auto", device):
        precisions.append("bfloat16")
    steps, labels = {}, {}
    for name, config in NETWORKS.items():
        for precision in precisions:
            for memory, called in _MEMORY_FORMATS.items():
                for norm, frozen in _VARIANTS:
                    key = f"{name} {precision} {called} {norm} {frozen}"
                    steps[key] = network_step(
                        config, batch=batch, bfloat16=precision == "bfloat16", memory=memory,
                        norm=norm, frozen=frozen,
                    )  # fmt: skip
                    taken = memory == memory_format(device, bfloat16=precision == "bfloat16")
                    labels[key] = [
                        name, precision, called + (", taken" if taken else ""),
                        "none" if norm == "none" else "batch", "frozen" if frozen else "learns",
                    ]  # fmt: skip
    alone = seconds_of(steps, rounds)
    header = [
        "network",
        "precision",
        "maps",
        "normalisation",
        "first stage",
        "ms an image",
    ]
    rows = [[*labels[key], f"{1e3 * alone[key] / batch:.1f}"] for key in steps]
    text = publish.facts(machine("cpu", threads)) + ". "
    text += f"Forward and backward of the network alone, {batch} images of 240 x 320:\n\n"
    text += publish.table(header, rows)
    text += "\n\nThe trainer against the bare step (loss, gradient and update of one batch in "
    text += f"memory), {batch} drawings or pairs of the recipe's size:\n\n"
    text += publish.table(
        ["network", "stage", "precision", "bare, ms each", "trainer, ms each", "bare / trainer"],
        _trainer_rows(precisions, batch, rounds),
    )
    print(text)
    if page:
        publish.replace_block(publish.PERFORMANCE, "train_cpu", text)


def _trainer_rows(precisions: list[Precision], batch: int, rounds: int) -> list[list[str]]:
    rows = []
    for name, stage, recipe in (
        ("default", "magicpoint", default()),
        ("default", "joint", default()),
        ("lite", "joint", lite()),
    ):
        for precision in precisions:
            config = recipe.magicpoint if stage == "magicpoint" else recipe.joint
            loop = replace(config.loop, precision=precision, batch_size=batch, workers=1)
            with tempfile.TemporaryDirectory() as folder:
                task: Task[Any] = (
                    MagicPoint(recipe.magicpoint, 0, NETWORKS[name])
                    if stage == "magicpoint"
                    else joint_task(NETWORKS[name], recipe.joint, Path(folder))
                )
                bare, whole = trainer_steps(task, loop, Path(folder))
                taken = seconds_of({"bare": bare, "trainer": whole}, rounds)
            ms = [1e3 * taken[key] / batch for key in ("bare", "trainer")]
            cells = [f"{ms[0]:.0f}", f"{ms[1]:.0f}", f"{ms[0] / ms[1]:.2f}"]
            rows.append([name, stage, precision, *cells])
    return rows
