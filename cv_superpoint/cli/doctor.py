"""``cv-superpoint doctor``: versions, devices, what runs where, and how fast."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output
from cv_superpoint.opencv.options import DetectorOptions

PACKAGES = ("numpy", "ncnn", "openvino", "onnxruntime", "torch", "h5py", "pycolmap", "ray")
SECONDS = 2.0
BUSY = 0.5
"""Running programs for each core from which on the speed is told to be that of a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show versions, devices, the backend chosen and why, and the speed, measured in two seconds.

    Attributes:
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "doctor",
            "doctor --weights superpoint-lite --json",
        ),
        results=(
            "printed: versions, devices, the backend and why, milliseconds of a call; no file",
        ),
        first=(
            "json",
            "scales",
            "weights",
            "device",
            "backend",
            "precision",
            "threads",
        ),
    )

    json: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        import cv2

        import cv_superpoint
        from cv_superpoint.backends.processor import instructions
        from cv_superpoint.matching.lightglue.bundled import available_matchers
        from cv_superpoint.weights.store import weights_folder

        record: dict[str, Any] = {
            "cv_superpoint": cv_superpoint.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "opencv": cv2.__version__,
            **{name: _version(name) for name in PACKAGES},
            "cores": os.cpu_count(),
            "multiplies": sorted(instructions()),
            "cuda": _cuda_devices(),
            "weights": list(cv_superpoint.available_weights()),
            "matchers": list(available_matchers()),
            "weights_folder": str(weights_folder()),
        }
        for name, value in record.items():
            if isinstance(value, list):
                value = ", ".join(value) or "none"
            output.say(f"{name:16}{'not installed' if value is None else value}")
        detector = self.detector.create()
        record["chosen"] = detector.info()
        output.say(f"{'chosen':16}{record['chosen']}")
        record["busy"] = busy()
        times = measure(detector.detector)
        record["milliseconds"] = round(1e3 * float(np.median(times)), 2)
        output.say(
            f"{'speed':16}{record['milliseconds']:.1f} ms for 480 x 640 pixels, the whole call "
            f"(median of {len(times)}{', on a busy machine' if record['busy'] else ''})"
        )
        output.result(record)
        return DONE


def busy() -> bool:
    """Whether other programs took much of the processor in the last minute, where that is told."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load > BUSY * (os.cpu_count() or 1)


def measure(detector: Any) -> list[float]:
    """Seconds of each call on a noisy picture, for about two seconds."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (60, 80), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    detector.extract(image)  # the first call sets things up
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        detector.extract(image)
        times.append(time.perf_counter() - start)
    return times


def _cuda_devices() -> list[str]:
    if _version("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
