"""What a run tells: progress in the terminal or the log, scalars and pictures in TensorBoard."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from train.runtime import distributed

log = logging.getLogger(__name__)


class MetricLogger:
    """Averages the measures of the steps and writes them every ``every`` steps.

    With several processes all must call it, and the first one writes.
    """

    def __init__(self, folder: Path, name: str, every: int = 25) -> None:
        self.name = name
        self.every = every
        self.writer = SummaryWriter(str(folder)) if distributed.rank() == 0 else None
        self.progress = Progress(
            TextColumn(name), BarColumn(), TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
        )  # fmt: skip
        self.bar = self.progress.add_task(name, total=1.0, status="")
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = self.samples = 0
        self.seconds = self.waited = 0.0

    def step(
        self,
        step: int,
        done: float,
        parts: dict[str, Tensor],
        *,
        samples: int,
        seconds: float,
        waited: float,
        rate: float,
        left: float,
    ) -> None:
        """Take note of one training step.

        Args:
            step: Number of steps done.
            done: Share of the stage that is done.
            parts: Loss and its parts, scalars.
            samples: Number of samples in the batch.
            seconds: Seconds that the step took.
            waited: Seconds of it spent waiting for data.
            rate: Learning rate.
            left: Seconds until the stage ends, estimated.
        """
        for name, value in parts.items():
            # Sums stay on the device: to look at them every step would wait for it.
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1
        self.samples += samples
        self.seconds += seconds
        self.waited += waited
        if step % self.every:
            return
        means = {
            name: float(distributed.mean_over_ranks(value)) / self.count
            for name, value in self.sums.items()
        }
        speed, wait = self.samples / self.seconds, self.waited / self.seconds
        scalars = {f"train/{name}": value for name, value in means.items()}
        scalars |= {
            "train/learning_rate": rate,
            "speed/samples_per_second": speed,
            "speed/data_wait_share": wait,
        }
        self._write(scalars, step)
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        status = f"step {step} {text} lr {rate:.1e} {speed:.1f} samples/s wait {100 * wait:.0f} %"
        self._show(done, left, status)
        self._clear()

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)

    def _show(self, done: float, left: float, status: str) -> None:
        if self.writer is None:
            return
        if self.progress.console.is_terminal:
            self.progress.start()
            self.progress.update(self.bar, completed=done, status=status)
            if done >= 1:
                self.progress.stop()
        else:
            log.info("%s %3.0f %% %s, %.0f min left", self.name, 100 * done, status, left / 60)

    def validation(self, step: int, measures: dict[str, float]) -> None:
        """Take note of measures on held-out data."""
        self._write({f"val/{name}": value for name, value in measures.items()}, step)
        if self.writer is not None:
            self.writer.flush()
        text = " ".join(f"{name} {value:.3f}" for name, value in measures.items())
        log.info("%s validation at step %d: %s", self.name, step, text)

    def picture(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Store an (H, W, 3) BGR picture."""
        if self.writer is not None:
            self.writer.add_image(name, image[..., ::-1].copy(), step, dataformats="HWC")
            self.writer.flush()
            # Else the report of the run, made from the files, may miss it.
            self.writer.flush()
