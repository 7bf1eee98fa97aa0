"""Everything around the network, part by part, with recorded outputs in the network's place."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import publish
from benchmarks.contenders import our_variants, ours
from benchmarks.measure import machine
from benchmarks.measure import photographs as read_photographs
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.detector import detector, features
from cv_superpoint.pictures.arrays import pad, to_channels

PARTS = {
    "input checks, BGR to grey": (detector, "to_channels"),
    "padding": (detector, "pad"),
    "the backend around its network": (None, "run"),
    "softmax and rearrangement": (decode, "logits_to_heatmap"),
    "suppression": (decode, "local_maxima"),
    "scores of windows": (decode, "window_sums"),
    "the strongest": (decode, "strongest"),
    "sub-pixel positions": (decode, "refine"),
    "descriptors": (decode, "sample_descriptors"),
    "cv2.KeyPoint objects": (features, "make_keypoints"),
}
"""Where each part is found; None is the backend."""
REST, WHOLE, SIFT = "all else", "whole call without the network", "cv2.SIFT, whole call"
AGAIN = "the same call, repeated at once"
REPEATS = 5
"""Calls of which the last is taken. Before the first, the network ran and took all caches."""

Times = dict[str, list[float]]


class Replay:
    """Replaces the network of a backend: returns at once what that returned when it last ran."""

    def __init__(self, backend: Any) -> None:
        self._backend, self._network = backend, backend._network
        self._output: Any = None

    def run(self, image: NDArray[np.uint8]) -> None:
        """Run the network on an image (H, W), so that its outputs are where it leaves them."""

        def network(*values: Any) -> Any:
            self._output = self._network(*values)
            return self._output

        self._backend._network = network
        self._backend.run(image[None, ..., None])
        self._backend._network = lambda *_: self._output

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: Any) -> None:
        # The outputs are in memory of the network: they go before it does.
        self._output = None
        del self._backend._network


class Stopwatch:
    """Times the parts of whole calls, where they are called.

    Args:
        backend: Backend whose part is timed too.
    """

    def __init__(self, backend: Any) -> None:
        self._places = [(place or backend, name) for place, name in PARTS.values()]
        self._functions = [getattr(place, name) for place, name in self._places]
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def __enter__(self) -> Stopwatch:
        for part, (place, name), function in zip(PARTS, self._places, self._functions, strict=True):
            setattr(place, name, self._timed(part, function))
        return self

    def __exit__(self, *_: Any) -> None:
        for (place, name), function in zip(self._places, self._functions, strict=True):
            setattr(place, name, function)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*values, **options)
            self._seconds[part] += time.perf_counter() - start
            return result

        return call

    def lap(self) -> dict[str, float]:
        """Seconds of each part since the last lap."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        return seconds


def measure_parts(
    images: list[NDArray[np.uint8]], *, count: int, threads: int, rounds: int
) -> dict[str, Times]:
    """Seconds of each part in every call, by the name of the backend.

    Args:
        images: BGR, of one size.
        count: Keypoints at most.
        threads: Threads of OpenCV and of the backend.
        rounds: Over all photographs, after one that does not count.
    """
    cv2.setNumThreads(threads)
    sift: Any = cv2.SIFT.create(nfeatures=count)
    return {
        name: _measure(ours(name, "float32", "cpu", count, threads), sift, images, rounds)
        for name in dict.fromkeys(name for name, _ in our_variants("cpu"))
    }


def _measure(feature: Any, sift: Any, images: list[NDArray[np.uint8]], rounds: int) -> Times:
    """Seconds of our detector's parts, and of SIFT."""
    backend = feature._detector.backend
    times: Times = {name: [] for name in (*PARTS, REST, WHOLE, AGAIN, SIFT)}
    with Replay(backend) as replay, Stopwatch(backend) as stopwatch:
        for turn in range(rounds + 1):
            for image in images:
                replay.run(pad(to_channels(image, 1)))
                stopwatch.lap()
                whole = _seconds(feature.detectAndCompute, image)
                found = stopwatch.lap()
                found[REST] = whole - sum(found.values())
                found[WHOLE] = whole
                for _ in range(REPEATS):
                    found[AGAIN] = _seconds(feature.detectAndCompute, image)
                if turn:
                    for name, seconds in found.items():
                        times[name].append(seconds)
    # By itself: what it leaves of memory and caches is not what a network leaves.
    for turn in range(rounds + 1):
        for image in images:
            theirs = _seconds(sift.detectAndCompute, image)
            if turn:
                times[SIFT].append(theirs)
    return times


def _seconds(call: Callable[..., Any], image: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    call(image, None)
    return time.perf_counter() - start


def parts(
    *,
    images: Path | None = None,
    photographs: int = 3,
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: tuple[int, ...] = (1, 2),
    rounds: int = 30,
    page: bool = False,
) -> None:
    """Time every part around the network, with recorded outputs in the network's place.

    Args:
        images: Folder of photographs; skimage's without one.
        photographs: How many of them.
        size: Height and width of the images.
        keypoints: Largest number of keypoints.
        threads: Threads of OpenCV and of the backends, one table for each.
        rounds: Over all photographs.
        page: Put the tables into docs/results/performance.md.
    """
    pictures = [
        np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
        for grey in read_photographs(images, size, photographs)
    ]
    result = {
        "machine": machine("cpu", max(threads)),
        "size": list(size),
        "keypoints": keypoints,
        "photographs": len(pictures),
        "calls": rounds * len(pictures),
        "milliseconds": {
            str(number): summary(
                measure_parts(pictures, count=keypoints, threads=number, rounds=rounds)
            )
            for number in threads
        },
    }
    text = parts_markdown(result)
    print(text)
    if page:
        publish.write_json(publish.FIGURES / "parts.json", result)
        publish.replace_block(publish.PERFORMANCE, "parts", text)


def summary(seconds: dict[str, Times]) -> dict[str, dict[str, tuple[float, float]]]:
    """Median and least, in milliseconds, of what :func:`measure_parts` gives."""
    return {
        backend: {
            part: (1e3 * statistics.median(values), 1e3 * min(values))
            for part, values in found.items()
        }
        for backend, found in seconds.items()
    }


def parts_markdown(result: dict[str, Any]) -> str:
    """A table for each number of threads: medians, and the least in brackets."""
    height, width = result["size"]
    text = [
        f"{height} x {width}, at most {result['keypoints']} keypoints, {result['photographs']} "
        f"photographs, {result['calls']} calls of each: median (least). "
        f"{publish.facts(result['machine'])}."
    ]
    for number, backends in result["milliseconds"].items():
        rows = [
            [part, *("{:.2f} ({:.2f})".format(*found[part]) for found in backends.values())]
            for part in next(iter(backends.values()))
        ]
        shares = [f"{found[WHOLE][0] / found[SIFT][0]:.3f}" for found in backends.values()]
        threads = f"{number} thread{'s' * (number != '1')}, ms"
        rows.append(["share of SIFT's time", *shares])
        text.append(publish.table([threads, *backends], rows))
    return "\n\n".join(text)
