"""Command line: ``python -m benchmarks speed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro

from benchmarks import report
from benchmarks.measure import photographs as read_photographs
from cv_superpoint.weights import load_weights


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
        weights: Ours without a name or path.
        device: "cpu" or a CUDA device.
        size: Height and width of the images.
        keypoints: At most, for each.
        threads: Of every contender, on the CPU.
        rounds: Over all photographs and contenders.
        output: Folder for speed_DEVICE.json, .md and .png.
        page: Put table and plot into docs/performance.md.
    """
    from benchmarks.speed import measure_speed, plot_speed, speed_markdown

    pictures = read_photographs(images, size, photographs)
    result = measure_speed(
        load_weights(weights),
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
        report.write_json(output / f"{name}.json", result)
        (output / f"{name}.md").write_text(text + "\n", encoding="utf-8")
        plot_speed(result, output / f"{name}.png")
    if page:
        report.write_json(report.PAGE.parent / "performance" / f"{name}.json", result)
        plot_speed(result, report.PAGE.parent / "performance" / f"{name}.png")
        picture = f"![Whole call of each](performance/{name}.png)"
        report.replace_block(report.PAGE, name, f"{text}\n\n{picture}")


def processes(
    *,
    images: Path | None = None,
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: int = 2,
    repeats: int = 3,
    page: bool = False,
) -> None:
    """Start a fresh process of every backend: time to the first keypoints, and memory (Linux).

    Args:
        images: Folder of photographs, of which the first is taken; skimage's without one.
        size: Height and width of the image.
        keypoints: At most.
        threads: Of the network.
        repeats: Processes of each backend, after one that fills the caches.
        page: Put the table into docs/performance.md.
    """
    from benchmarks.speed import measure_processes, processes_markdown

    [image] = read_photographs(images, size, 1)
    measured = measure_processes(image, count=keypoints, threads=threads, repeats=repeats)
    text = processes_markdown(measured)
    print(text)
    if page:
        report.write_json(report.PAGE.parent / "performance" / "processes.json", measured)
        report.replace_block(report.PAGE, "processes", text)


def main() -> None:
    """Choose a benchmark."""
    from benchmarks.busy import busy
    from benchmarks.growth import growth
    from benchmarks.parts import parts
    from benchmarks.precision import precision
    from benchmarks.soak import soak
    from benchmarks.throughput import throughput
    from benchmarks.training import train

    commands: dict[str, Any] = {
        "speed": speed,
        "processes": processes,
        "precision": precision,
        "throughput": throughput,
        "busy": busy,
        "growth": growth,
        "parts": parts,
        "soak": soak,
        "train": train,
    }
    tyro.extras.subcommand_cli_from_dict(commands)


if __name__ == "__main__":
    main()
