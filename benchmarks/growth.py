"""Time and memory over the image's size, the count of keypoints and the threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import publish
from benchmarks.contenders import SETS

SIZES = ((120, 160), (240, 320), (480, 640), (960, 1280), (1920, 2560), (4320, 7680))
COUNTS = (100, 300, 1000, 3000, 10000, 20000)
SCRIPT = """
import json, statistics, sys, time
import numpy as np
from benchmarks.measure import photographs
from cv_superpoint import SuperPointFeature2D
weights, backend, precision, height, width, count, threads, calls, folder = sys.argv[1:]
folder = None if folder == "-" else __import__("pathlib").Path(folder)
[image] = photographs(folder, (int(height), int(width)), 1)
detector = SuperPointFeature2D.create(
    int(count), 2e-5, weights=weights, backend=backend, precision=precision, device="cpu",
    threads=int(threads))
detector.detectAndCompute(image[:64, :64], None)
seconds = []
for _ in range(int(calls)):
    start = time.perf_counter()
    keypoints, _ = detector.detectAndCompute(image, None)
    seconds.append(time.perf_counter() - start)
memory = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({"seconds": statistics.median(seconds), "keypoints": len(keypoints),
                  "peak_mib": int(memory["VmHWM"].split()[0]) / 1024}))
"""


def _measure(
    weights: str,
    backend: str,
    precision: str,
    size: tuple[int, int],
    count: int,
    threads: int,
    images: Path | None,
) -> dict[str, Any]:
    """One fresh process, because the most memory that a process ever took does not go down."""
    calls = 1 if size[0] > 1000 else 3 if size[0] > 400 else 7
    values = [weights, backend, precision, *size, count, threads, calls, images or "-"]
    command = [sys.executable, "-c", SCRIPT, *map(str, values)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    point = {"size": list(size), "count": count, "threads": threads, **measured}
    print(point, flush=True)
    return point


def growth(
    *,
    weights: tuple[str, ...] = SETS,
    backend: str = "auto",
    precision: str = "auto",
    images: Path | None = None,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Measure time and peak memory as sizes, keypoints and threads grow.

    Args:
        weights: Bundled names or paths.
        backend: Same as for SuperPointFeature2D.
        precision: Same as for SuperPointFeature2D.
        images: Folder of photographs, of which the first is taken; skimage's without one.
        output: Folder for growth.json and a plot for each set of weights.
        page: Put table and plot into docs/results/performance.md.
    """
    result = {}
    for name in weights:
        by_size = [
            _measure(name, backend, precision, size, 1024, threads, images)
            for threads in (2, 1)
            for size in SIZES
        ]
        by_count = [
            _measure(name, backend, precision, (1920, 2560), count, 2, images) for count in COUNTS
        ]
        result[name] = {"by_size": by_size, "by_count": by_count}
    texts = {name: growth_markdown(one) for name, one in result.items()}
    print("\n\n".join(f"{name}\n\n{text}" for name, text in texts.items()))
    folders = [output, publish.FIGURES if page else None]
    for folder in folders:
        if folder is not None:
            publish.write_json(folder / "growth.json", result)
            for name, one in result.items():
                plot_growth(one, folder / _plot_of(name))
    if page:
        parts = [
            f"**{name}**\n\n{text}\n\n"
            f"![Time and memory over pixels, time over keypoints](performance/{_plot_of(name)})"
            for name, text in texts.items()
        ]
        publish.replace_block(publish.PERFORMANCE, "growth", "\n\n".join(parts))


def _plot_of(weights: str) -> str:
    return f"growth_{Path(weights).stem}.png"


def growth_markdown(result: dict[str, Any]) -> str:
    """Two tables of one set of weights."""
    two = {tuple(one["size"]): one for one in result["by_size"] if one["threads"] == 2}
    single = {tuple(one["size"]): one for one in result["by_size"] if one["threads"] == 1}
    sizes = [
        [
            f"{height} x {width}",
            f"{point['seconds'] * 1e3:.0f}",
            f"{single[height, width]['seconds'] * 1e3:.0f}",
            f"{point['seconds'] * 1e9 / (height * width):.0f}",
            f"{point['peak_mib']:.0f}",
        ]
        for (height, width), point in two.items()
    ]
    counts = [
        [f"{one['count']}", f"{one['keypoints']}", f"{one['seconds'] * 1e3:.0f}"]
        for one in result["by_count"]
    ]
    return "\n\n".join(
        [
            publish.table(
                ["image", "2 threads, ms", "1 thread, ms", "ns per pixel", "peak, MiB"], sizes
            ),
            publish.table(["keypoints at most, 1920 x 2560", "found", "ms"], counts),
        ]
    )


def plot_growth(result: dict[str, Any], path: Path) -> None:
    """Time and memory over pixels, time over keypoints."""
    time_of, memory_of = {}, {}
    for threads in (1, 2):
        points = [one for one in result["by_size"] if one["threads"] == threads]
        pixels = [float(one["size"][0] * one["size"][1]) for one in points]
        time_of[f"{threads} thread{'s' * (threads > 1)}"] = (
            pixels,
            [one["seconds"] for one in points],
        )
        if threads == 2:
            memory_of["peak memory"] = (pixels, [one["peak_mib"] for one in points])
    keypoints = [float(one["keypoints"]) for one in result["by_count"]]
    counts = {"1920 x 2560": (keypoints, [one["seconds"] for one in result["by_count"]])}
    publish.lines(
        path,
        [
            ("pixels", "seconds", time_of),
            ("pixels", "MiB", memory_of),
            ("keypoints", "seconds", counts),
        ],
    )
