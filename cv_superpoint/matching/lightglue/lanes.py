"""Pairs that run side by side, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.workers import Task, run_tasks

Floats = NDArray[np.float32]
Inputs = tuple[Sequence[Floats], Sequence[Floats]]
"""Positions (N, 2) and (M, 2) in [-1, 1], and descriptors (N, D) and (M, D), of a pair."""
T = TypeVar("T")


def side_by_side(
    alone: Callable[..., Floats],
    together: Callable[..., Floats],
    pairs: Sequence[Inputs],
    finish: Callable[[Floats], T],
    lanes: int,
) -> list[T]:
    """Pairs on several threads, each pair on one; those left over are done on all, in turn.

    A network this small gains less from a second thread than a second pair does.

    Args:
        alone: Function that runs the network on the thread that calls it.
        together: Function that runs it on all threads.
        pairs: Same as for :meth:`cv_superpoint.matching.lightglue.running.Runner.each`.
        finish: Same as for that method.
        lanes: Number of threads.
    """
    results: dict[int, T] = {}

    def do(number: int, run: Callable[..., Floats]) -> None:
        results[number] = finish(run(*pairs[number]))

    # The largest first, so that those that run at the same time end at about the same time.
    order = sorted(range(len(pairs)), key=lambda number: -_area(pairs[number]))
    shared = len(order) // lanes * lanes if lanes > 1 else 0
    run_tasks([Task(work=partial(do, number, alone)) for number in order[:shared]], lanes)
    for number in order[shared:]:
        do(number, together)
    return [results[number] for number in range(len(pairs))]


def _area(pair: Inputs) -> int:
    first, second = pair[0]
    return len(first) * len(second)
