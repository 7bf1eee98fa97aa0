"""Levels and images that run side by side, each through network and decoding on its own thread.

A small network gains little from a second thread, and the decoding nothing. So where there are
several levels or images of about the same work, each thread does one of them as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend, Outputs
from cv_superpoint.backends.workers import Task, run_tasks
from cv_superpoint.detector.levels import Level
from cv_superpoint.detector.on_device import Decoded, Stack
from cv_superpoint.detector.tiles import Tile

LARGEST = 2**19
"""Pixels of an image: a larger one alone keeps all threads busy, and needs its memory once."""
WAIT = 1.3
"""Time until the last thread ends, at most, as a multiple of what equal shares would take."""

Found = tuple[Level, Tile, Decoded]
Output = tuple[Level, Tile, NDArray[np.float32], NDArray[np.float32]]
Decode = Callable[[Level, Tile, NDArray[np.float32], NDArray[np.float32]], Decoded]
Run = Callable[[NDArray[np.uint8]], Outputs]


class LanesBackend(Backend, Protocol):
    """A backend that runs several calls side by side."""

    def run_alone(self, images: NDArray[np.uint8]) -> Outputs:
        """Same as ``run``, to the same bits, on the thread that calls it."""
        ...


def are_even(areas: Sequence[int], lanes: int) -> bool:
    """Whether threads that take these one after the other end at about the same time.

    Args:
        areas: Pixels of each image.
        lanes: Threads.
    """
    if len(areas) < 2 or max(areas) > LARGEST:
        return False
    loads = [0] * lanes
    for area in areas:
        loads[loads.index(min(loads))] += area
    return max(loads) * lanes <= WAIT * sum(areas)


def decode_side_by_side(
    backend: LanesBackend, stacks: Iterator[Stack], decode: Decode
) -> Iterator[Found]:
    """The strongest keypoints of each tile of each level, in their order.

    Args:
        backend: Runs the network.
        stacks: What is to run.
        decode: Function from the network's outputs to keypoints.
    """
    lanes = backend.lanes
    together = 1 if lanes == 1 else 2 * lanes
    while some := list(islice(stacks, together)):
        if not are_even([pixels.shape[1] * pixels.shape[2] for _, _, pixels in some], lanes):
            for stack in some:
                yield from _decoded(stack, backend.run, decode)
            continue
        found: list[list[Found]] = [[] for _ in some]

        def work(number: int, some: list[Stack] = some, found: list[list[Found]] = found) -> None:
            found[number] = list(_decoded(some[number], backend.run_alone, decode))

        run_tasks([Task(work=partial(work, number)) for number in range(len(some))], lanes)
        for one in found:
            yield from one


def _decoded(stack: Stack, run: Run, decode: Decode) -> Iterator[Found]:
    for level, tile, logits, dense in run_stack(stack, run):
        yield level, tile, decode(level, tile, logits, dense)


def run_stack(stack: Stack, run: Run) -> Iterator[Output]:
    """The network's outputs for one tile of each of several levels."""
    levels, tile, pixels = stack
    for level, logits, dense in zip(levels, *run(pixels), strict=True):
        yield level, tile, logits, dense
