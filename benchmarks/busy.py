"""Whole calls on an idle machine, beside one busy process, and beside one for each core."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import publish
from benchmarks.contenders import THRESHOLD, our_variants
from benchmarks.measure import machine, photographs
from cv_superpoint import SuperPointFeature2D
from cv_superpoint.weights import load_weights

BUSY = "while True: pass"
MOST_MEDIAN, MOST_P95 = 2.5, 4.0
"""Largest times of the idle median next to busy processes: what a machine in use may cost."""


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that want a core each, as long as this is entered."""
    started: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(process.wait)
            stack.callback(process.kill)  # the last comes first
            started.append(process)
        time.sleep(0.3 * bool(count))  # until they are past their start
        yield started


def time_calls(
    feature: Any, image: NDArray[np.uint8], calls: int, seconds: float
) -> dict[str, float]:
    """Median and 95th percentile, in seconds, of at least so many calls and so long."""
    for _ in range(4):  # OpenVINO tries both of its ways twice
        feature.detectAndCompute(image, None)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < calls or time.perf_counter() < end:
        start = time.perf_counter()
        feature.detectAndCompute(image, None)
        times.append(time.perf_counter() - start)
    median, high = np.quantile(times, (0.5, 0.95))
    return {"median": float(median), "p95": float(high), "calls": len(times)}


def measure_busy(
    image: NDArray[np.uint8],
    *,
    weights: tuple[str, ...],
    backends: tuple[str, ...],
    count: int,
    threads: int,
    loads: tuple[int, ...],
    calls: int,
    seconds: float,
) -> dict[str, Any]:
    """Times of each network in each backend beside each number of busy processes.

    Args:
        image: What every call is given.
        weights: Bundled names or paths.
        backends: Backends to time, in every precision that they have here.
        count: Keypoints at most.
        threads: Threads of the network.
        loads: Numbers of busy processes, the first of them 0.
        calls: Least number of calls of each.
        seconds: Least number of seconds of each.
    """
    variants = [one for one in our_variants("cpu") if one[0] in backends]
    features = {
        (Path(name).stem, f"{backend} {precision}"): SuperPointFeature2D.create(
            count,
            THRESHOLD,
            weights=name,
            backend=backend,
            precision=precision,
            device="cpu",
            threads=threads,
        )
        for name in weights
        for backend, precision in variants
        if precision != "int8" or load_weights(name).ranges is not None
    }
    rows: dict[tuple[str, str], dict[str, Any]] = {key: {} for key in features}
    for load in loads:
        with busy_processes(load):
            for key, feature in features.items():
                rows[key][str(load)] = time_calls(feature, image, calls, seconds)
    return {
        "machine": machine("cpu", threads),
        "size": list(image.shape),
        "loads": list(loads),
        "rows": [
            {"weights": name, "backend": backend, "loads": values}
            for (name, backend), values in rows.items()
        ],
    }


def busy_markdown(result: dict[str, Any]) -> str:
    """One row for each network and backend."""
    _, *loads = map(str, result["loads"])
    header = ["network", "backend", "idle, ms", "95th percentile"]
    for load in loads:
        header += [f"beside {load}: median", "95th percentile"]
    rows = []
    for one in result["rows"]:
        idle, *others = one["loads"].values()
        row = [one["weights"], one["backend"]]
        row += [f"{1e3 * idle['median']:.1f}", f"{1e3 * idle['p95']:.1f}"]
        for other in others:
            for what, most in (("median", MOST_MEDIAN), ("p95", MOST_P95)):
                times = other[what] / idle["median"]
                text = f"{1e3 * other[what]:.1f} ({times:.1f}x)"
                row.append(text if times <= most else f"**{text}**")
        rows.append(row)
    height, width = result["size"]
    return (
        f"{height} x {width}. {publish.facts(result['machine'])}. In brackets times the idle "
        f"median; bold is above {MOST_MEDIAN} for a median and {MOST_P95} for a percentile.\n\n"
        + publish.table(header, rows)
    )


def busy(
    *,
    images: Path | None = None,
    weights: tuple[str, ...] = ("superpoint", "superpoint-lite"),
    backends: tuple[str, ...] = ("ncnn", "openvino", "onnxruntime"),
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: int = 2,
    loads: tuple[int, ...] = (0, 1, 2),
    calls: int = 30,
    seconds: float = 2.0,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Time whole calls beside busy processes: one, and one for each core.

    Args:
        images: Folder of photographs, of which the first is taken; skimage's without one.
        weights: Bundled names or paths.
        backends: Backends to time, in every precision that they have here.
        size: Height and width of the image.
        keypoints: Largest number of keypoints.
        threads: Threads of the network.
        loads: Numbers of busy processes; begins with 0.
        calls: Least number of calls of each.
        seconds: Least number of seconds of each.
        output: Folder for busy.json and busy.md.
        page: Put the table into docs/results/performance.md.
    """
    if not loads or loads[0] != 0:
        raise ValueError(f"loads must begin with 0, the idle machine, got {loads}")
    [image] = photographs(images, size, 1)
    result = measure_busy(
        image,
        weights=weights,
        backends=backends,
        count=keypoints,
        threads=threads,
        loads=loads,
        calls=calls,
        seconds=seconds,
    )
    text = busy_markdown(result)
    print(text)
    if output is not None:
        publish.write_json(output / "busy.json", result)
        (output / "busy.md").write_text(text + "\n", encoding="utf-8")
    if page:
        publish.write_json(publish.FIGURES / "busy.json", result)
        publish.replace_block(publish.PERFORMANCE, "busy", text)
