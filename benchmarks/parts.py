"""Everything around the network, part by part, with recorded outputs in the network's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.contenders import our_variants, ours
from benchmarks.measure import Timing, in_turn, machine
from benchmarks.measure import photographs as read_photographs
from cv_superpoint import decode
from cv_superpoint.features import make_keypoints
from cv_superpoint.image import pad, to_channels, window_maximum

WHOLE, SIFT = "whole call without the network", "cv2.SIFT, whole call"


class Replay:
    """Stands in for the network of a backend, with what that gave for some images.

    Args:
        backend: One on the CPU.
        inputs: (1, H, W, C) images.
    """

    def __init__(self, backend: Any, inputs: list[NDArray[np.uint8]]) -> None:
        self.current = 0
        """Which of the images the outputs are of."""
        self._backend = backend
        self._outputs: list[Any] = []
        network = backend._network

        def record(*values: Any) -> Any:
            self._outputs.append(network(*values))
            return self._outputs[-1]

        backend._network = record
        for pixels in inputs:
            backend.run(pixels)

    def __enter__(self) -> Replay:
        self._backend._network = lambda *_: self._outputs[self.current]
        return self

    def __exit__(self, *_: Any) -> None:
        # The network is back, and what is in its memory goes before it does.
        del self._backend._network
        self._outputs.clear()


def _steps(feature: Any, image: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
    """One call for each part, with what the parts before it gave.

    Args:
        feature: A ``SuperPointFeature2D`` whose network is recorded.
        image: BGR.
    """
    detector, config = feature._detector, feature._detector.config
    backend, nms, reach = detector.backend, config.nms_radius, config.score_radius
    grey = to_channels(image, 1)
    stack = np.stack([pad(grey)])[..., None]
    [logits], [dense] = backend.run(stack)
    heatmap = decode.logits_to_heatmap(logits)
    share = config.score_threshold / (2 * reach + 1) ** 2
    found = decode.local_maxima(heatmap, share, nms, window_maximum)
    margin, (height, width) = config.border_margin, grey.shape
    box = margin, margin, height - margin, width - margin
    rows, columns, scores = decode.keypoints(
        heatmap, config.score_threshold, nms, reach, window_maximum, box
    )
    best = decode.strongest(scores, config.max_keypoints)
    points = decode.refine(heatmap, rows[best], columns[best])
    sizes, octaves = np.full(len(best), 8, np.float32), np.zeros(len(best), np.int32)
    return {
        "input checks, BGR to grey": lambda: to_channels(image, 1),
        "padding, batch": lambda: np.stack([pad(grey)]),
        "the backend around its network": lambda: backend.run(stack),
        "softmax and rearrangement": lambda: decode.logits_to_heatmap(logits),
        "suppression": lambda: decode.local_maxima(heatmap, share, nms, window_maximum),
        "scores of windows": lambda: decode.window_sums(heatmap, *found, reach),
        "the strongest": lambda: decode.strongest(scores, config.max_keypoints),
        "sub-pixel positions": lambda: decode.refine(heatmap, rows[best], columns[best]),
        "descriptors": lambda: decode.sample_descriptors(dense, points),
        "cv2.KeyPoint objects": lambda: make_keypoints(points, scores[best], sizes, octaves),
        WHOLE: lambda: feature.detectAndCompute(image, None),
    }


def measure_parts(
    images: list[NDArray[np.uint8]], *, count: int, threads: int, rounds: int
) -> dict[str, dict[str, Timing]]:
    """Timings of each part, by the name of the backend.

    Args:
        images: BGR, of one size.
        count: Keypoints at most.
        threads: Of OpenCV and of the backend.
        rounds: Over all photographs.
    """
    cv2.setNumThreads(threads)
    sift: Any = cv2.SIFT.create(nfeatures=count)
    return {
        name: _measure(ours(name, "float32", "cpu", count, threads), sift, images, rounds)
        for name in dict.fromkeys(name for name, _ in our_variants("cpu"))
    }


def _measure(
    feature: Any, sift: Any, images: list[NDArray[np.uint8]], rounds: int
) -> dict[str, Timing]:
    """Timings of each part of our detector, and of SIFT."""
    inputs = [pad(to_channels(image, 1))[None, ..., None] for image in images]
    with Replay(feature._detector.backend, inputs) as replay:
        steps = []
        for index, image in enumerate(images):
            replay.current = index
            steps.append(_steps(feature, image))

        def call_of(part: str) -> Callable[[int], Any]:
            def call(which: int) -> Any:
                replay.current = which
                return steps[which][part]()

            return call

        calls = {part: call_of(part) for part in steps[0]}
        calls[SIFT] = lambda index: sift.detectAndCompute(images[index], None)
        return in_turn(calls, list(range(len(images))), rounds)


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
        keypoints: At most.
        threads: Of OpenCV and of the backends, one table for each.
        rounds: Over all photographs.
        page: Put the tables into docs/performance.md.
    """
    pictures = [
        np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
        for grey in read_photographs(images, size, photographs)
    ]
    timings = {
        number: measure_parts(pictures, count=keypoints, threads=number, rounds=rounds)
        for number in threads
    }
    result = {
        "machine": machine("cpu", max(threads)),
        "size": list(size),
        "keypoints": keypoints,
        "photographs": len(pictures),
        "threads": {
            str(number): {
                backend: {part: asdict(timing) for part, timing in of.items()}
                for backend, of in found.items()
            }
            for number, found in timings.items()
        },
    }
    text = parts_markdown(result)
    print(text)
    if page:
        report.write_json(report.PAGE.parent / "performance" / "parts.json", result)
        report.replace_block(report.PAGE, "parts", text)


def parts_markdown(result: dict[str, Any]) -> str:
    """A table for each number of threads: medians in milliseconds."""
    height, width = result["size"]
    calls = {
        one["calls"]
        for found in result["threads"].values()
        for of in found.values()
        for one in of.values()
    }
    text = [
        f"{height} x {width}, at most {result['keypoints']} keypoints, {result['photographs']} "
        f"photographs, {max(calls)} calls of each. {report.facts(result['machine'])}."
    ]
    for number, found in result["threads"].items():
        medians = {
            backend: {part: 1e3 * one["median"] for part, one in of.items()}
            for backend, of in found.items()
        }
        parts_of = next(iter(medians.values()))
        rows = [
            [part, *(f"{of[part]:.{1 if part == SIFT else 2}f}" for of in medians.values())]
            for part in parts_of
        ]
        rows.append(
            ["share of SIFT's time", *(f"{of[WHOLE] / of[SIFT]:.3f}" for of in medians.values())]
        )
        threads = f"{number} thread{'s' * (number != '1')}, ms"
        text.append(report.table([threads, *medians], rows))
    return "\n\n".join(text)
