"""The training loop, the same for every stage that learns."""

from __future__ import annotations

import copy
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import Dataset

from train.learning import checkpoint
from train.learning.loader import Batch, load_batches
from train.learning.model import Trainable
from train.reporting.pictures import Picture
from train.reporting.progress import MetricLogger
from train.runtime import distributed
from train.runtime.process import memory_format, wants_bfloat16

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a stage learns.

    Attributes:
        minutes: Length of the stage in wall-clock minutes, validation included; 0 to count steps.
        steps: Length in optimiser steps when ``minutes`` is 0.
        batch_size: Samples per step, of all processes together.
        learning_rate: Learning rate of Adam, after the warm-up.
        warmup_steps: Steps of linear warm-up.
        flat: Share of the stage before the cosine decay to zero starts.
        freeze_stem_from: Share of the stage after which the first stage of the network stops
            learning; 1 never freezes it.
        clip_norm: Largest norm of the gradient.
        average: Decay per step of the moving average of the weights, which is what is validated
            and exported; 0 for none. Early steps use a shorter memory.
        precision: "bfloat16" for mixed precision, "float32", or "auto": bfloat16 where the device
            multiplies matrices in it (CUDA; CPUs with AMX or AVX512-BF16).
        workers: Processes that prepare data; 0 prepares it in the training process.
        checkpoint_minutes: Time between checkpoints.
        validate_minutes: Time between validations.
        report_steps: Steps between reports, which average over them.
    """

    minutes: float = 0.0
    steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    flat: float = 0.1
    freeze_stem_from: float = 1.0
    clip_norm: float = 10.0
    average: float = 0.998
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = 1
    checkpoint_minutes: float = 2.0
    validate_minutes: float = 5.0
    report_steps: int = 25

    def __post_init__(self) -> None:
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError(
                f"give a length in minutes or in steps, got minutes={self.minutes} and "
                f"steps={self.steps}"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be in [0, 1), got {self.average}")

    def rate_at(self, step: int, progress: float) -> float:
        """Learning rate: linear warm-up, flat, cosine to zero at progress 1."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        decay = max(0.0, progress - self.flat) / max(1e-9, 1 - self.flat)
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, decay)))


Network = TypeVar("Network", bound=Trainable)


class Task(Protocol[Network]):
    """What a stage learns: its network, its data, its loss, its measures."""

    name: str
    seed: int
    network: Network

    def dataset(self) -> Dataset[Batch]:
        """Endless map-style data; item i is the same whenever it is asked for."""
        ...

    def device_batches(self, device: torch.device, step: int, share: int) -> Iterator[Batch] | None:
        """This process's ``share`` of every batch from ``step`` on, made on the device.

        None to have workers make them from :meth:`dataset`.
        """
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """Everything that the optimiser may change."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts, for the report."""
        ...

    def validate(self, network: Network) -> dict[str, float]:
        """Measures of a network on held-out data."""
        ...

    def pictures(self, network: Network) -> dict[str, Picture]:
        """What a network does with held-out data, to look at (H, W, 3), BGR."""
        ...


class Trainer(Generic[Network]):
    """Trains one task to the end of its schedule, resuming from ``run_dir`` if it can."""

    def __init__(self, task: Task[Network], config: LoopConfig, run_dir: Path) -> None:
        self.task = task
        self.config = config
        self.path = run_dir / f"{task.name}.pt"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bfloat16 = wants_bfloat16(config.precision, self.device)
        kept = memory_format(self.device, bfloat16=self.bfloat16)
        task.network.to(self.device, memory_format=kept)  # type: ignore[call-overload]
        distributed.share_statistics(task.network)
        self.averaged = copy.deepcopy(task.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(task.parameters(), lr=config.learning_rate, fused=True)
        curves = run_dir / "tensorboard" / task.name
        self.metrics = MetricLogger(curves, task.name, config.report_steps)
        self.step = 0
        self.elapsed = 0.0
        self.interrupted = self.stopping = False

    @property
    def progress(self) -> float:
        """Share of the stage that is done."""
        if self.config.minutes:
            return min(1.0, self.elapsed / (60 * self.config.minutes))
        return min(1.0, self.step / self.config.steps)

    def fit(self) -> None:
        """Train to the end; a checkpoint is saved regularly, at the end and on an interrupt.

        Raises:
            KeyboardInterrupt: After the checkpoint of an interrupted run is saved.
            FloatingPointError: If the loss or its gradient is not finite.
            OSError: If the run directory cannot take the checkpoints.
        """
        checkpoint.check_folder(self.path.parent, 3 * checkpoint.size_of(self.state()))
        self.resume()
        saved = validated = self.elapsed
        batches = self.batches()
        calculate = self.parallel_loss()
        with self.interrupts():
            while self.progress < 1 and not self.stopping:
                if self.freeze():
                    calculate = self.parallel_loss()
                self.train_step(batches, calculate)
                if self.elapsed - saved > 60 * self.config.checkpoint_minutes:
                    self.try_to_save()
                    saved = self.elapsed
                if self.elapsed - validated > 60 * self.config.validate_minutes:
                    self.validate()
                    validated = self.elapsed
            [stopped] = distributed.from_first(self.interrupted)
        self.save()
        if stopped:
            log.warning("stopped at step %d; the same command goes on from here", self.step)
            raise KeyboardInterrupt
        self.validate()

    def train_step(self, batches: Iterator[Batch], calculate: Loss) -> None:
        """One batch: data, loss, gradient, update."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        rate = self.config.rate_at(self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, parts = calculate(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), self.config.clip_norm)
        if not torch.isfinite(loss + norm):
            raise self.not_finite(batch, float(loss.detach()), float(norm))
        self.optimizer.step()
        self.step += 1
        self.average()
        seconds = time.perf_counter() - started
        # A signal reaches the processes in different steps; all stop after the same one.
        self.elapsed, stop = distributed.from_first(self.elapsed + seconds, self.interrupted)
        self.stopping = bool(stop)
        self.metrics.step(
            self.step,
            self.progress,
            {name: v.detach() for name, v in {"loss": loss, **parts}.items()},
            samples=self.config.batch_size,
            seconds=seconds,
            waited=waited,
            rate=rate,
            left=self.elapsed * (1 - self.progress) / max(self.progress, 1e-9),
        )

    def average(self) -> None:
        """Move the average towards the present weights and statistics."""
        decay = min(self.config.average, self.step / (self.step + 9))
        averaged, present = (
            [v for v in network.state_dict().values() if v.is_floating_point()]
            for network in (self.averaged, self.task.network)
        )
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(averaged, present, 0)  # type: ignore[no-untyped-call]

    def freeze(self) -> bool:
        """Stop training the first stage of the network when its time has come; whether it did."""
        network = self.task.network
        if network.frozen or self.progress < self.config.freeze_stem_from:
            return False
        log.info("freezing the first stage of the network at step %d", self.step)
        network.freeze_stem()
        return True

    def parallel_loss(self) -> Loss:
        """The task's loss; with several processes, one whose gradients are those of all."""
        if distributed.world_size() == 1:
            return self.task.loss
        return DistributedDataParallel(_LossModule(self.task))

    def batches(self) -> Iterator[Batch]:
        """Batches from the present position on, on the device; this process's share of each."""
        share, rest = divmod(self.config.batch_size, distributed.world_size())
        if rest:
            raise ValueError(
                f"batch_size {self.config.batch_size} must be a multiple of the number of "
                f"processes, {distributed.world_size()}"
            )
        on_device = self.task.device_batches(self.device, self.step, share)
        if on_device is not None:
            yield from on_device
            return
        loader = load_batches(
            self.task.dataset(),
            step=self.step,
            batch_size=self.config.batch_size,
            share=share,
            workers=self.config.workers,
            pin=self.device.type == "cuda",
        )
        for batch in loader:
            yield {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}

    def validate(self) -> None:
        """Measure the averaged network on held-out data; the time it takes counts."""
        started = time.perf_counter()
        if distributed.rank() == 0:
            with torch.inference_mode():
                self.metrics.validation(self.step, self.task.validate(self.averaged))
                for name, picture in self.task.pictures(self.averaged).items():
                    self.metrics.picture(self.step, name, picture)
        distributed.wait()
        [self.elapsed] = distributed.from_first(self.elapsed + time.perf_counter() - started)

    def state(self) -> dict[str, Any]:
        """Everything that the next run needs to go on as if nothing had happened."""
        return {
            "task": self.task.name,
            "seed": self.task.seed,
            "architecture": asdict(self.task.network.config),
            "network": self.task.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "frozen": self.task.network.frozen,
            "step": self.step,
            "elapsed": self.elapsed,
            "samples": self.step * self.config.batch_size,
            "random": torch.get_rng_state(),
            "finished": self.progress >= 1,
        }

    def save(self) -> None:
        """Write the checkpoint."""
        try:
            if distributed.rank() == 0:
                checkpoint.save_atomically(self.state(), self.path)
        finally:
            # Also when the disk is full: the others wait here.
            distributed.wait()

    def try_to_save(self) -> None:
        """Write the checkpoint; a full disk leaves the last one in place and training goes on."""
        try:
            self.save()
        except OSError as error:
            log.warning(
                "cannot write %s (%s): make room; the last good checkpoint is kept and training "
                "goes on", self.path, error,
            )  # fmt: skip

    def resume(self) -> None:
        """Load the checkpoint of an earlier run, if there is one."""
        if not self.path.exists():
            return
        state = checkpoint.load(self.path)
        self.task.network.load_state_dict(state["network"])
        if state["frozen"]:
            self.task.network.freeze_stem()
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        log.info("%s goes on at step %d (%.0f %%)", self.task.name, self.step, 100 * self.progress)

    def not_finite(self, batch: Batch, loss: float, norm: float) -> FloatingPointError:
        """Save what is needed to do the failed step again, and say where."""
        path = self.path.with_name(f"{self.task.name}-step{self.step}-rank{distributed.rank()}.pt")
        first = self.step * self.config.batch_size
        checkpoint.save_atomically({**self.state(), "batch": batch}, path)
        return FloatingPointError(
            f"loss {loss}, gradient norm {norm} at step {self.step} of {self.task.name}: samples "
            f"{first} to {first + self.config.batch_size - 1} of seed {self.task.seed}. The batch "
            f"and the state before the step are in {path}. Lower learning_rate and go on from "
            f"the last checkpoint, {self.path}"
        )

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the step that is running, not in the middle of it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: object) -> None:
            if self.interrupted:  # the second time: at once, without a checkpoint
                raise KeyboardInterrupt
            log.warning("%s: saving after this step", signal.Signals(number).name)
            self.interrupted = True

        before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]


class _LossModule(torch.nn.Module):
    """A task's loss as a module, which is what gradients are shared by."""

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.network = task.network
        self.task = task

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.loss(batch)
