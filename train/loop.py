"""The training loop, the same for every stage that learns."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from train import checkpoint
from train.model import TrainingNetwork
from train.preview import Picture
from train.report import Reporter

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a stage learns.

    Attributes:
        minutes: Length of the stage in wall-clock minutes, validation included; 0 to count steps.
        steps: Length in optimiser steps when ``minutes`` is 0.
        batch_size: Samples per step.
        learning_rate: Of Adam, after the warm-up.
        warmup_steps: Steps of linear warm-up.
        flat: Share of the stage before the cosine decay to zero starts.
        freeze_stem_from: Share of the stage after which the first stage of the network stops
            learning; 1 never freezes it.
        clip_norm: Largest norm of the gradient.
        workers: Processes that prepare data; 0 prepares it in the training process.
        checkpoint_minutes: Time between checkpoints.
        validate_minutes: Time between validations.
    """

    minutes: float = 0.0
    steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    flat: float = 0.1
    freeze_stem_from: float = 1.0
    clip_norm: float = 10.0
    workers: int = 1
    checkpoint_minutes: float = 2.0
    validate_minutes: float = 5.0

    def __post_init__(self) -> None:
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError(
                f"give a length in minutes or in steps, got minutes={self.minutes} and "
                f"steps={self.steps}"
            )

    def rate_at(self, step: int, progress: float) -> float:
        """Learning rate: linear warm-up, flat, cosine to zero at progress 1."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        decay = max(0.0, progress - self.flat) / max(1e-9, 1 - self.flat)
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, decay)))


class Task(Protocol):
    """What a stage learns: its network, its data, its loss, its measures."""

    name: str
    network: TrainingNetwork

    def dataset(self) -> Dataset[Batch]:
        """Endless map-style data; item i is the same whenever it is asked for."""
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """Everything that the optimiser may change."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts, for the report."""
        ...

    def validate(self) -> dict[str, float]:
        """Measures on held-out data."""
        ...

    def pictures(self) -> dict[str, Picture]:
        """What the network does with held-out data, to look at (H, W, 3), BGR."""
        ...


class _Positions(Sampler[int]):
    """0, 1, 2, ... from a position on: a run that resumes sees the data it has not seen."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += 1


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class Trainer:
    """Trains one task to the end of its schedule, resuming from ``run_dir`` if it can."""

    def __init__(self, task: Task, config: LoopConfig, run_dir: Path) -> None:
        self.task = task
        self.config = config
        self.path = run_dir / f"{task.name}.pt"
        self.report = Reporter(run_dir / "tensorboard" / task.name, task.name)
        self.optimizer = torch.optim.Adam(task.parameters(), lr=config.learning_rate)
        self.step = 0
        self.elapsed = 0.0

    @property
    def progress(self) -> float:
        """Share of the stage that is done."""
        if self.config.minutes:
            return min(1.0, self.elapsed / (60 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    def fit(self) -> None:
        """Train to the end; a checkpoint is saved regularly, at the end and on an interrupt."""
        self.resume()
        saved = validated = self.elapsed
        batches = self.batches()
        try:
            while self.progress < 1:
                self.train_step(batches)
                if self.elapsed - saved > 60 * self.config.checkpoint_minutes:
                    self.save()
                    saved = self.elapsed
                if self.elapsed - validated > 60 * self.config.validate_minutes:
                    self.validate()
                    validated = self.elapsed
        except KeyboardInterrupt:
            self.save()
            log.warning("stopped at step %d; the same command goes on from here", self.step)
            raise
        self.save()
        self.validate()

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One batch: data, loss, gradient, update."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        progress = self.progress
        if progress >= self.config.freeze_stem_from and not self.task.network.frozen:
            log.info("freezing the first stage of the network at step %d", self.step)
            self.task.network.freeze_stem()
        rate = self.config.rate_at(self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts = self.task.loss(batch)
        if not torch.isfinite(loss):
            first = self.step * self.config.batch_size
            raise FloatingPointError(
                f"loss is {float(loss.detach())} at step {self.step} of {self.task.name}, samples "
                f"{first} to {first + self.config.batch_size - 1}; lower learning_rate and start "
                f"again from {self.path}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.task.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        seconds = time.perf_counter() - started
        self.elapsed += seconds
        self.report.step(
            self.step,
            self.progress,
            {name: float(v.detach()) for name, v in {"loss": loss, **parts}.items()},
            samples=self.config.batch_size,
            seconds=seconds,
            waited=waited,
            rate=rate,
        )

    def batches(self) -> Iterator[Batch]:
        """Batches from the present position on."""
        workers: dict[str, Any] = {}
        if self.config.workers:
            workers = {
                "multiprocessing_context": "spawn",
                "worker_init_fn": _start_worker,
                "prefetch_factor": 4,
            }
        return iter(
            DataLoader(
                self.task.dataset(),
                batch_size=self.config.batch_size,
                sampler=_Positions(self.step * self.config.batch_size),
                num_workers=self.config.workers,
                **workers,
            )
        )

    def validate(self) -> None:
        """Measure on held-out data; the time it takes counts."""
        started = time.perf_counter()
        self.task.network.eval()
        with torch.inference_mode():
            self.report.validation(self.step, self.task.validate())
            for name, picture in self.task.pictures().items():
                self.report.picture(self.step, name, picture)
        self.task.network.train()
        self.elapsed += time.perf_counter() - started

    def save(self) -> None:
        """Everything that the next run needs to go on as if nothing had happened."""
        checkpoint.save_atomically(
            {
                "task": self.task.name,
                "network": self.task.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "frozen": self.task.network.frozen,
                "step": self.step,
                "elapsed": self.elapsed,
                "samples": self.step * self.config.batch_size,
                "finished": self.progress >= 1,
            },
            self.path,
        )

    def resume(self) -> None:
        """Load the checkpoint of an earlier run, if there is one."""
        if not self.path.exists():
            return
        state = checkpoint.load(self.path)
        self.task.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["frozen"]:
            self.task.network.freeze_stem()
        self.step, self.elapsed = state["step"], state["elapsed"]
        log.info("%s goes on at step %d (%.0f %%)", self.task.name, self.step, 100 * self.progress)
