"""All that a GPU is wanted for in one command: tests, figures, a training, and one file of them."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import publish
from benchmarks.contenders import THRESHOLD, ours
from benchmarks.gpu_ways import seconds_of_ways, ways
from benchmarks.measure import in_turn, machine, photographs
from benchmarks.precision import precision
from benchmarks.speed import measure_speed, speed_markdown
from benchmarks.training import joint_task
from cv_superpoint.network.torch_network import NetworkConfig
from cv_superpoint.weights import load_weights
from train.learning.loop import Trainer
from train.recipes import default, smoke

ROOT = Path(__file__).parent.parent
TESTS = (
    "tests/backends/test_with_a_gpu.py",
    "tests/backends/test_graphs.py",
    "tests/backends/test_backends.py",
    "tests/backends/test_recordable.py",
    "tests/detector/test_module.py",
    "tests/matching/test_nearest.py",
    "tests/opencv/test_golden.py",
    "tests/test_traces_on_cuda.py",
    "tests/train/test_no_waiting.py",
    "tests/train/learning/test_loop.py",
)
"""Tests that need a GPU, or simulate one."""


def _tests(files: tuple[str, ...]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return {"exit code": done.returncode, "output": done.stdout[-20000:] + done.stderr[-4000:]}


def _images_a_second(
    device: str, size: tuple[int, int], rounds: int, images: Path | None
) -> dict[str, Any]:
    """Arrays in, features out: single images, and ten batches of 32 in one call."""
    pictures = photographs(images, size, 8)
    many = [np.roll(pictures[k % len(pictures)], 8 * k, axis=1) for k in range(320)]
    precisions = ("float16", "bfloat16", "float32") if device != "cpu" else ("float32",)
    found: dict[str, Any] = {"images": len(many)}
    for name in precisions:
        detector = ours("torch", name, device, 1024, torch.get_num_threads())
        some = many if device != "cpu" else many[:2]
        calls: dict[str, Callable[[Any], Any]] = {
            "extractBatch": detector.extractBatch,
            "extract": _one_by_one(detector.extract),
            "detectAndCompute": _one_by_one(partial(detector.detectAndCompute, mask=None)),
        }
        timings = in_turn(calls, [some], rounds)
        found[name] = {key: len(some) / one.median for key, one in timings.items()}
        found[name]["info"] = detector.info()
    return found


def _one_by_one(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda images: [call(one) for one in images]


def _ways(device: str, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    dtype = torch.float16 if device != "cpu" else torch.float32
    return {
        f"batch of {batch}": seconds_of_ways(
            ways(load_weights(), device, dtype, size, batch), device, batch, rounds
        )
        for batch in ((1, 32) if device != "cpu" else (1,))
    }


def _precision(device: str, images: Path, pairs_per_image: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        precision(
            images=images, device=device, pairs_per_image=pairs_per_image, output=Path(folder)
        )
        [file] = Path(folder).glob("precision_*.json")
        return {"json": file.read_text(encoding="utf-8")}


def _training(device: str, minutes: float, rounds: int) -> dict[str, Any]:
    """Steps of joint training in turn, then as many as fit into the time."""
    joint = (smoke() if device == "cpu" else default()).joint
    batch = 2 if device == "cpu" else 16
    loop = replace(
        joint.loop, minutes=minutes, steps=0, batch_size=batch, workers=1, report_steps=25
    )
    joint = replace(joint, pairs="device", loop=loop)
    with tempfile.TemporaryDirectory() as folder:
        task = joint_task(NetworkConfig(), joint, Path(folder))
        trainer = Trainer(task, loop, Path(folder))
        if trainer.device.type != device.partition(":")[0]:
            raise ValueError(f"training runs on {trainer.device}, not on {device}")
        steps = _steps(trainer)
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for index in range(rounds + 2):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                if device != "cpu":
                    torch.cuda.synchronize()
                if index > 1:
                    taken[name].append(time.perf_counter() - started)
        found: dict[str, Any] = {
            "pairs of a step": batch,
            "precision": "bfloat16" if trainer.bfloat16 else "float32",
            "seconds": {name: statistics.median(values) for name, values in taken.items()},
        }
        before, started = trainer.step, time.perf_counter()
        trainer.elapsed = 0.0
        trainer.fit()
        found |= {"steps": trainer.step - before, "minutes": (time.perf_counter() - started) / 60}
        with torch.no_grad():
            loss, parts = task.loss(next(trainer.batches()))
        found |= {"loss": float(loss), "parts": {k: float(v) for k, v in parts.items()}}
        if not math.isfinite(found["loss"]):
            raise FloatingPointError(f"the loss is {found['loss']}")
    return found


def _steps(trainer: Trainer[Any]) -> dict[str, Callable[[], object]]:
    """The bare step on one batch that is there, the same compiled, and the trainer's."""
    batches, calculate = trainer.batches(), trainer.parallel_loss()
    kept, kind = next(batches), trainer.device.type

    def bare(loss_of: Callable[..., Any]) -> Callable[[], object]:
        optimizer = torch.optim.Adam(trainer.task.parameters(), fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(kind, torch.bfloat16, enabled=trainer.bfloat16):
                loss, _ = loss_of(kept)
            torch.autograd.backward(loss)
            optimizer.step()

        return step

    steps: dict[str, Callable[[], object]] = {
        "bare": bare(trainer.task.loss),
        "trainer": lambda: trainer.train_step(batches, calculate),
    }
    if kind == "cuda":
        steps["bare, torch.compile"] = bare(torch.compile(trainer.task.loss))
    return steps


def gpu(
    *,
    output: Path,
    device: str = "cuda",
    images: Path | None = None,
    size: tuple[int, int] = (480, 640),
    rounds: int = 20,
    pairs_per_image: int = 8,
    minutes: float = 2.0,
    tests: tuple[str, ...] = TESTS,
    only: tuple[str, ...] = (),
) -> None:
    """Run the tests, the figures and a training that a GPU is wanted for; write one file.

    A part that fails is told in the file, and the others run. About ten minutes on a large GPU.

    Args:
        output: The file, JSON.
        device: A CUDA device; "cpu" to rehearse.
        images: Folder of photographs that were not trained on, for the precisions; without one
            these are left out, and speed is measured on skimage's.
        size: Height and width of the images whose speed is measured.
        rounds: Rounds of every call.
        pairs_per_image: Pairs of each image for the precisions.
        minutes: Minutes of the training.
        tests: Files or names of tests.
        only: Some of machine, tests, ways, images, speed, training and precision; all if left out.

    Raises:
        ValueError: If there is no such part.
    """
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine(device, torch.get_num_threads()),
        "tests": lambda: _tests(tests),
        "ways": lambda: _ways(device, size, rounds),
        "images": lambda: _images_a_second(device, size, max(1, rounds // 4), images),
        "speed": lambda: measure_speed(
            load_weights(), photographs(images, size, 1), device=device, count=1024, threads=2,
            rounds=rounds,
        ),
        "training": lambda: _training(device, minutes, rounds),
    }  # fmt: skip
    if images is not None:
        parts["precision"] = lambda: _precision(device, images, pairs_per_image)
    if unknown := set(only) - {*parts, "precision"}:
        raise ValueError(f"only must be of {', '.join(parts)}, got {', '.join(unknown)}")
    found: dict[str, Any] = {"threshold": THRESHOLD}
    for name, part in parts.items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        try:
            found[name] = part()
            said = "done"
        except Exception:
            found[name] = {"failed": traceback.format_exc()}
            said = "FAILED"
        print(f"{name}: {said} in {time.perf_counter() - started:.0f} s", flush=True)
        publish.write_json(output, found)
    print(gpu_markdown(found))


def gpu_markdown(found: dict[str, Any]) -> str:
    """The file's tables."""
    texts = []
    done = {k: v for k, v in found.items() if isinstance(v, dict) and "failed" not in v}
    for name, failed in found.items():
        if isinstance(failed, dict) and "failed" in failed:
            texts.append(f"{name} failed:\n\n    " + failed["failed"].strip().splitlines()[-1])
    if "tests" in done:
        texts.append("tests: " + (done["tests"]["output"].strip().splitlines() or [""])[-1])
    for batch, ways_of in done.get("ways", {}).items():
        rows = [
            [way, f"{1e3 * one['median']:.3f}" if "median" in one else one["failed"],
             str(one.get("keypoints", ""))]
            for way, one in ways_of.items()
        ]  # fmt: skip
        texts.append(publish.table([f"on the device, {batch}", "ms", "keypoints"], rows))
    if "images" in done:
        rows = [
            [name, *(f"{one[key]:.0f}" for key in ("extractBatch", "extract", "detectAndCompute"))]
            for name, one in done["images"].items()
            if isinstance(one, dict)
        ]
        header = ["images a second", "extractBatch", "extract", "detectAndCompute"]
        texts.append(publish.table(header, rows))
    if "speed" in done:
        texts.append(speed_markdown(done["speed"]))
    if "training" in done:
        one = done["training"]
        rows = [[name, f"{1e3 * seconds:.1f}"] for name, seconds in one["seconds"].items()]
        texts.append(
            publish.table([f"step of {one['pairs of a step']} pairs", "ms"], rows)
            + f"\n\n{one['steps']} steps in {one['minutes']:.1f} minutes, loss {one['loss']:.3f}."
        )
    return "\n\n".join(texts)
