"""Images per second, over the size of a batch, the threads, and how images are handed over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import publish
from benchmarks.contenders import SETS, THRESHOLD
from benchmarks.measure import Timing, in_turn, machine, photographs
from cv_superpoint import SuperPointFeature2D

IMAGES = 16


def _calls(
    weights: str,
    backend: str,
    precision: str,
    device: str,
    count: int,
    threads: tuple[int, ...],
    batches: tuple[int, ...],
) -> dict[str, Callable[[Any], Any]]:
    """Ways to take all images of a list, by name."""
    calls: dict[str, Callable[[Any], Any]] = {}

    def in_batches(detector: Any, size: int) -> Callable[[Any], Any]:
        return lambda images: [
            detector.extractBatch(images[start : start + size])
            for start in range(0, len(images), size)
        ]

    def in_pool(detector: Any, workers: int) -> Callable[[Any], Any]:
        def call(images: Any) -> Any:
            with ThreadPoolExecutor(workers) as pool:
                return list(pool.map(detector.extract, images))

        return call

    def streamed(detector: Any) -> Callable[[Any], Any]:
        return lambda images: list(detector.extractStream(images))

    for number in threads:
        detector = SuperPointFeature2D.create(
            count,
            THRESHOLD,
            weights=weights,
            backend=backend,
            device=device,
            precision=precision,
            threads=number,
        )
        where = f"{number} thread{'s' * (number > 1)}" if device == "cpu" else device
        for size in batches:
            calls[f"{where}, extractBatch of {size}"] = in_batches(detector, size)
        calls[f"{where}, extractStream"] = streamed(detector)
        if number == 1 and device == "cpu":
            calls[f"{where}, {max(threads)} callers"] = in_pool(detector, max(threads))
    return calls


def throughput(
    *,
    weights: tuple[str, ...] = SETS,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    images: Path | None = None,
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: tuple[int, ...] = (1, 2),
    batches: tuple[int, ...] = (1, 4, 16),
    rounds: int = 3,
    page: bool = False,
) -> None:
    """Measure images per second of batches, streams and callers, in turn.

    Args:
        weights: Bundled names or paths.
        backend: Same as for SuperPointFeature2D.
        precision: Same as for SuperPointFeature2D.
        device: "cpu" or a CUDA device.
        images: Folder of photographs; skimage's without one.
        size: Height and width of the images.
        keypoints: Largest number of keypoints.
        threads: Threads of the network, on a CPU.
        batches: Sizes.
        rounds: Over everything.
        page: Put the table into docs/results/performance.md.
    """
    pictures = photographs(images, size, IMAGES)
    repeated = [pictures[index % len(pictures)] for index in range(IMAGES)]
    shifted = [np.roll(image, 8 * k, axis=1) for k, image in enumerate(repeated)]
    used = threads if device == "cpu" else (1,)
    result: dict[str, Any] = {
        "machine": machine(device, max(threads)),
        "size": list(size),
        "images": IMAGES,
        "weights": {},
    }
    for name in weights:
        calls = _calls(name, backend, precision, device, keypoints, used, batches)
        timings = in_turn(calls, [shifted], rounds)
        result["weights"][name] = {call: asdict(timing) for call, timing in timings.items()}
    text = throughput_markdown(result)
    print(text)
    if page:
        name = f"throughput_{device.partition(':')[0]}"
        publish.write_json(publish.FIGURES / f"{name}.json", result)
        publish.replace_block(publish.PERFORMANCE, name, text)


def throughput_markdown(result: dict[str, Any]) -> str:
    """One row for each way."""
    rows = []
    count = result["images"]
    for weights, calls in result["weights"].items():
        for name, values in calls.items():
            timing = Timing(**values)
            rows.append(
                [
                    weights,
                    name,
                    f"{count / timing.median:.1f}",
                    f"{count / timing.high:.1f} to {count / timing.low:.1f}",
                    f"{1e3 * timing.processor / count:.0f}",
                ]
            )
    height, width = result["size"]
    header = ["weights", "how", "images a second", "quartiles", "processor time an image, ms"]
    return (
        f"{height} x {width}, {result['images']} images. {publish.facts(result['machine'])}.\n\n"
        + publish.table(header, rows)
    )
