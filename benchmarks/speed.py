"""Whole calls of everything, in turn, on the same photographs."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import publish
from benchmarks.contenders import PEER, SETS, contenders, our_variants, ours
from benchmarks.measure import GFLOP_480_640, Timing, in_turn, machine, matrix_product
from benchmarks.measure import photographs as photographs_of
from benchmarks.process import fresh_process
from cv_superpoint.network.architecture import NetworkConfig
from cv_superpoint.weights import LoadedWeights, load_weights

FLOOR = "matrix product 2048 x 2048, float32"
BATCH = 32


def measure_speed(
    weights: LoadedWeights,
    images: list[NDArray[np.uint8]],
    *,
    device: str,
    count: int,
    threads: int,
    rounds: int,
) -> dict[str, Any]:
    """All figures of one run, ready for JSON."""
    calls = dict(contenders(weights, device=device, count=count, threads=threads))
    product, gflop = matrix_product(device, "float32")
    timings = in_turn({FLOOR: product, **calls}, images, rounds)
    rate = gflop / timings[FLOOR].median
    height, width = images[0].shape
    work = GFLOP_480_640 * height * width / (480 * 640)
    result: dict[str, Any] = {
        "machine": machine(device, threads),
        "size": [height, width],
        "keypoints": count,
        "photographs": len(images),
        "gflops": rate,
        "floor": work / rate,
        "calls": {name: asdict(timing) for name, timing in timings.items()},
        "describe": [
            ours(backend, precision, device, count, threads).info()
            for backend, precision in our_variants(device)
        ],
    }
    if device != "cpu":
        result["batch"] = _batches(weights, images, device, count, threads, rounds)
    return result


def measure_processes(
    weights: str, image: NDArray[np.uint8], *, count: int, threads: int, repeats: int
) -> dict[str, Any]:
    """A fresh process of each backend: the median of several, after one that fills the caches."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        for backend, precision in our_variants("cpu"):
            runs = [
                fresh_process(weights, backend, precision, path, count=count, threads=threads)
                for _ in range(repeats + 1)
            ]
            # The first one fills the caches, the model's and the file system's.
            ordered = sorted(runs[1:], key=lambda run: run.first)
            found[f"{backend} {precision}"] = asdict(ordered[(repeats - 1) // 2])
    return found


def _batches(
    weights: LoadedWeights,
    images: list[NDArray[np.uint8]],
    device: str,
    count: int,
    threads: int,
    rounds: int,
) -> dict[str, Any]:
    """Seconds for a batch of 32 images, from host arrays to host arrays."""
    from benchmarks.plain import transformers_call

    stack = np.stack([images[index % len(images)] for index in range(BATCH)])
    calls: dict[str, Any] = {}
    for backend, precision in our_variants(device):
        detector = ours(backend, precision, device, count, threads)
        calls[f"cv_superpoint, {backend} {precision}"] = detector.extractBatch
    for dtype in ("float32", "float16"):
        calls[f"{PEER}, {dtype}"] = transformers_call(weights, device, 2e-4, count, dtype)
    return {name: asdict(one) for name, one in in_turn(calls, [stack], rounds).items()}


def speed_markdown(result: dict[str, Any]) -> str:
    """The tables of one run."""
    calls = {name: Timing(**values) for name, values in result["calls"].items()}
    peer, floor = calls[f"{PEER}, float32"].median, result["floor"]
    used = calls[f"{PEER}, float32"].processor
    rows = []
    for name, timing in sorted(calls.items(), key=lambda item: item[1].median):
        if name == FLOOR:
            continue
        network = not name.startswith("cv2.")
        rows.append(
            [
                name,
                f"{timing.median * 1e3:.1f}",
                f"{timing.low * 1e3:.1f} to {timing.high * 1e3:.1f}",
                f"{peer / timing.median:.2f}",
                f"{timing.processor * 1e3:.0f}",
                f"{used / timing.processor:.2f}",
                f"{timing.median / floor:.2f}" if network else "",
            ]
        )
    height, width = result["size"]
    parts = [
        f"{height} x {width}, at most {result['keypoints']} keypoints, {result['photographs']} "
        f"photographs, {calls[FLOOR].calls} calls of each. {publish.facts(result['machine'])}. "
        f"Matrix product {result['gflops']:.0f} GFLOP/s, so the floor is {floor * 1e3:.0f} ms.",
        publish.table(
            [
                "whole call",
                "median, ms",
                "quartiles, ms",
                "transformers / this",
                "processor time, ms",
                "transformers / this",
                "this / floor",
            ],
            rows,
        ),
    ]
    if "batch" in result:
        parts.append(_batch_table(result["batch"]))
    return "\n\n".join(parts)


def processes_markdown(measured: dict[str, Any]) -> str:
    """The table of :func:`processes`."""
    rows = [
        [
            weights,
            name,
            f"{one['imported']:.2f}",
            f"{one['first']:.2f}",
            f"{one['steady_mib']:.0f}",
            f"{one['peak_mib']:.0f}",
            "yes" if one["torch"] else "no",
        ]
        for weights, found in measured["weights"].items()
        for name, one in found.items()
    ]
    header = [
        "weights",
        "fresh process",
        "imports, s",
        "first keypoints, s",
        "steady, MiB",
        "peak, MiB",
    ]
    table = publish.table([*header, "imports torch"], rows)
    return f"{publish.facts(measured['machine'])}.\n\n{table}"


def _batch_table(batches: dict[str, Any]) -> str:
    peer = batches[f"{PEER}, float32"]["median"]
    rows = [
        [name, f"{BATCH / one['median']:.0f}", f"{peer / one['median']:.2f}"]
        for name, one in sorted(batches.items(), key=lambda item: item[1]["median"])
    ]
    return publish.table([f"batch of {BATCH}", "images/s", f"times {PEER}"], rows)


def plot_speed(result: dict[str, Any], path: Path) -> None:
    """Medians as bars, ours in colour."""
    values = {
        name: (one["median"] * 1e3, one["low"] * 1e3, one["high"] * 1e3)
        for name, one in sorted(result["calls"].items(), key=lambda item: item[1]["median"])
        if name != FLOOR
    }
    height, width = result["size"]
    title = f"Whole call, {height} x {width}, {result['keypoints']} keypoints"
    publish.bars(path, title, values)


def speed(
    *,
    images: Path | None = None,
    photographs: int = 3,
    weights: str | None = None,
    device: str = "cpu",
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: int = 2,
    rounds: int = 9,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Time whole calls of every backend and of the peers, in turn.

    Args:
        images: Folder of photographs; skimage's without one.
        photographs: How many of them.
        weights: Bundled name or path; the default set without one.
        device: "cpu" or a CUDA device.
        size: Height and width of the images.
        keypoints: Largest number of keypoints, for each contender.
        threads: Threads of every contender, on the CPU.
        rounds: Over all photographs and contenders.
        output: Folder for speed_DEVICE.json, .md and .png.
        page: Put table and plot into docs/results/performance.md.
    """
    loaded = load_weights(weights)
    if loaded.config != NetworkConfig():
        raise ValueError(
            f"speed compares with transformers, whose network is the paper's, and {loaded.name} "
            "has another: time it beside SIFT and ORB with the command pipeline"
        )
    pictures = photographs_of(images, size, photographs)
    result = measure_speed(
        loaded,
        pictures,
        device=device,
        count=keypoints,
        threads=threads,
        rounds=rounds,
    )
    text = speed_markdown(result)
    print(text)
    name = f"speed_{device.partition(':')[0]}"
    if output is not None:
        publish.write_json(output / f"{name}.json", result)
        (output / f"{name}.md").write_text(text + "\n", encoding="utf-8")
        plot_speed(result, output / f"{name}.png")
    if page:
        publish.write_json(publish.FIGURES / f"{name}.json", result)
        plot_speed(result, publish.FIGURES / f"{name}.png")
        picture = f"![Whole call of each](performance/{name}.png)"
        publish.replace_block(publish.PERFORMANCE, name, f"{text}\n\n{picture}")


def processes(
    *,
    weights: tuple[str, ...] = SETS,
    images: Path | None = None,
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: int = 2,
    repeats: int = 3,
    page: bool = False,
) -> None:
    """Start a fresh process of every backend: time to the first keypoints, and memory (Linux).

    Args:
        weights: Bundled names or paths.
        images: Folder of photographs, of which the first is taken; skimage's without one.
        size: Height and width of the image.
        keypoints: Largest number of keypoints.
        threads: Threads of the network.
        repeats: Processes of each backend, after one that fills the caches.
        page: Put the table into docs/results/performance.md.
    """
    [image] = photographs_of(images, size, 1)
    measured = {
        "machine": machine("cpu", threads),
        "weights": {
            name: measure_processes(name, image, count=keypoints, threads=threads, repeats=repeats)
            for name in weights
        },
    }
    text = processes_markdown(measured)
    print(text)
    if page:
        publish.write_json(publish.FIGURES / "processes.json", measured)
        publish.replace_block(publish.PERFORMANCE, "processes", text)
