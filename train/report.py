"""What a run tells: progress in the terminal or the log, scalars and pictures in TensorBoard."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard.writer import SummaryWriter

log = logging.getLogger(__name__)


class Reporter:
    """Averages what steps report and writes it every ``every`` steps."""

    def __init__(self, folder: Path, name: str, every: int = 25) -> None:
        self.name = name
        self.every = every
        self.writer = SummaryWriter(str(folder))
        self.progress = Progress(
            TextColumn(name), BarColumn(), TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(), TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        self.bar = self.progress.add_task(name, total=1.0, status="")
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = self.samples = 0
        self.seconds = self.waited = 0.0

    def step(
        self,
        step: int,
        done: float,
        parts: dict[str, float],
        *,
        samples: int,
        seconds: float,
        waited: float,
        rate: float,
    ) -> None:
        """Take note of one training step."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.samples += samples
        self.seconds += seconds
        self.waited += waited
        if step % self.every:
            return
        means = {name: value / self.count for name, value in self.sums.items()}
        speed, wait = self.samples / self.seconds, self.waited / self.seconds
        for name, value in means.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.writer.add_scalar("train/learning_rate", rate, step)
        self.writer.add_scalar("speed/samples_per_second", speed, step)
        self.writer.add_scalar("speed/data_wait_share", wait, step)
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        status = f"step {step} {text} lr {rate:.1e} {speed:.1f} samples/s wait {100 * wait:.0f} %"
        self._show(done, status)
        self._clear()

    def _show(self, done: float, status: str) -> None:
        if self.progress.console.is_terminal:
            self.progress.start()
            self.progress.update(self.bar, completed=done, status=status)
            if done >= 1:
                self.progress.stop()
        else:
            log.info("%s %3.0f %% %s", self.name, 100 * done, status)

    def validation(self, step: int, measures: dict[str, float]) -> None:
        """Take note of measures on held-out data."""
        for name, value in measures.items():
            self.writer.add_scalar(f"val/{name}", value, step)
        self.writer.flush()
        text = " ".join(f"{name} {value:.3f}" for name, value in measures.items())
        log.info("%s validation at step %d: %s", self.name, step, text)

    def picture(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Store an (H, W, 3) BGR picture."""
        self.writer.add_image(name, image[..., ::-1].copy(), step, dataformats="HWC")
