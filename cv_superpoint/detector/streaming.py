"""A sequence of images, such as a video's: the network works on one while others are decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend, Outputs
from cv_superpoint.detector.detector import Detector
from cv_superpoint.detector.features import Features

Image = TypeVar("Image")


class _InTurn:
    """A backend whose network runs once at a time, because two runs would share the cores."""

    lanes = 1

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        with self._turn:
            return self._backend.run(images)


def stream(
    detector: Detector,
    images: Iterable[Image],
    to_array: Callable[[Image], Any],
    ahead: int,
) -> Iterator[tuple[Image, Features]]:
    """Same as :meth:`cv_superpoint.SuperPointFeature2D.extractStream`."""
    in_turn = detector.on(cast(Backend, _InTurn(detector.backend)))
    return _in_order(lambda image: in_turn.extract(to_array(image)), images, ahead)


def _in_order(
    extract: Callable[[Image], Features], images: Iterable[Image], ahead: int
) -> Iterator[tuple[Image, Features]]:
    waiting: deque[tuple[Image, Future[Features]]] = deque()
    # Two: one image is in the network while the one before it is decoded.
    pool = ThreadPoolExecutor(2, thread_name_prefix="cv-superpoint")
    try:
        for image in images:
            waiting.append((image, _submit(pool, extract, image)))
            if len(waiting) > ahead:
                first, features = waiting.popleft()
                yield first, features.result()
        while waiting:
            first, features = waiting.popleft()
            yield first, features.result()
    finally:
        # Also when the caller stops early or an image is refused.
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, extract: Callable[[Image], Features], image: Image
) -> Future[Features]:
    try:
        return pool.submit(extract, image)
    except RuntimeError:  # no more threads: too many of them, or the interpreter ends
        done: Future[Features] = Future()
        try:
            done.set_result(extract(image))
        except Exception as error:
            done.set_exception(error)  # raised when it is this image's turn
        return done
