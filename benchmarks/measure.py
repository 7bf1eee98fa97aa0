"""Timing in turn, so that every contender sees the same machine, and facts about the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GFLOP_480_640 = 52.0
"""GFLOP of the network on a 480 x 640 image, two for each multiplication with its addition."""
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PACKAGES = ("ncnn", "openvino", "onnxruntime", "torch", "transformers", "opencv-python", "numpy")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one contender's calls.

    Attributes:
        median: Over all rounds and images.
        low: The lower quartile.
        high: The upper quartile.
        processor: Median processor time, of all threads together; it moves less than the clock
            when other programs run.
        calls: Number of calls.
    """

    median: float
    low: float
    high: float
    processor: float
    calls: int


def in_turn(
    calls: Mapping[str, Callable[[Any], Any]], inputs: list[Any], rounds: int
) -> dict[str, Timing]:
    """Time every call on every input, one after the other, ``rounds`` times, after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for value in inputs:
            for name, call in calls.items():
                start, used = time.perf_counter(), time.process_time()
                call(value)
                if index:
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - used)
    return {name: _summary(values, processor[name]) for name, values in seconds.items()}


def _summary(values: list[float], processor: list[float]) -> Timing:
    low = median = high = values[0]
    if len(values) > 1:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    used = statistics.median(processor)
    return Timing(median=median, low=low, high=high, processor=used, calls=len(values))


def matrix_product(device: str, dtype: str, size: int = 2048) -> tuple[Callable[[Any], Any], float]:
    """A call that multiplies two square matrices, and its GFLOP: the rate is the floor's."""
    import torch

    kind = getattr(torch, dtype)
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def call(_: Any) -> None:
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()

    return call, 2 * size**3 / 1e9


def machine(device: str, threads: int) -> dict[str, str]:
    """What ran, to be printed beside the figures."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
    }
    if device != "cpu":
        import torch

        facts["device"] = torch.cuda.get_device_name(device)
    return facts


def _version(package: str) -> str | None:
    for name in (package, f"{package}-headless"):
        for found in distributions(name=name):
            return str(found.version)
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    known = [flag for flag in _FLAGS if flag in flags]
    return f"{names[0] if names else 'unknown'} ({', '.join(known)})"


def photographs(folder: Path | None, size: tuple[int, int], count: int) -> list[NDArray[np.uint8]]:
    """Grey photographs of (height, width), of skimage.data or of a folder, each cropped to fit."""
    import cv2

    pictures: list[NDArray[np.uint8]]
    if folder is None:
        import skimage

        data: Any = skimage.data  # without type hints
        named = [data.astronaut(), data.coffee(), data.chelsea()]
        grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in named]
        pictures = [np.asarray(one, np.uint8) for one in grey]
    else:
        from cv_superpoint.errors import PictureError
        from cv_superpoint.files.listing import list_pictures
        from cv_superpoint.pictures.reading import picture_or_why

        paths = [path for path, _ in list_pictures([folder]).pictures]
        read = (picture_or_why(path, grey=True) for path in paths)
        pictures = [one.pixels for one in read if not isinstance(one, PictureError)]
    if not pictures:
        raise ValueError(f"no photographs in {folder}")
    return [_fit(one, size) for one in pictures[:count]]


def _fit(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scaled so that it covers the size, and cut in the middle."""
    import cv2

    height, width = size
    scale = max(height / image.shape[0], width / image.shape[1])
    new = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    shape = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, new, interpolation=shape), np.uint8)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
