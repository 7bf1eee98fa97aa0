"""Batches from worker processes: each process's share, from any step on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from train.runtime import distributed

Batch = dict[str, Tensor]


def load_batches(
    dataset: Dataset[Batch], *, step: int, batch_size: int, share: int, workers: int, pin: bool
) -> DataLoader[Batch]:
    """This process's share of every batch.

    Args:
        dataset: Endless map-style data.
        step: The first batch; a resumed run sees what is left.
        batch_size: Samples of a batch, of all processes together.
        share: Samples of this process.
        workers: Processes that prepare data; 0 prepares it in this one.
        pin: Whether batches go into memory that a CUDA device copies from.
    """
    options: dict[str, Any] = {}
    if workers:
        options = {
            "multiprocessing_context": "spawn",
            "worker_init_fn": _start_worker,
            "prefetch_factor": 4,
        }
    return DataLoader(
        dataset,
        batch_size=share,
        sampler=_Positions(step, batch_size, share),
        num_workers=workers,
        pin_memory=pin,
        **options,
    )


class _Positions(Sampler[int]):
    """This process's share of every batch, from a step on: a resumed run sees what is left."""

    def __init__(self, step: int, batch_size: int, share: int) -> None:
        self.step = step
        self.batch_size = batch_size
        self.share = share

    def __iter__(self) -> Iterator[int]:
        start = self.step * self.batch_size + distributed.rank() * self.share
        while True:
            yield from range(start, start + self.share)
            start += self.batch_size


def _start_worker(_: int) -> None:
    # The process that trains handles Ctrl-C for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
