"""Thousands of calls with images of random sizes: memory must not grow."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint import SuperPointFeature2D

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, kw_only=True)
class Soak:
    """What a soak saw.

    Attributes:
        calls: Number of calls.
        keypoints: Number of keypoints in all of them together.
        middle_mib: Most resident memory in the second quarter of the calls, when every cache has
            seen enough to be full.
        last_mib: Most resident memory in the last quarter.
        seconds: Seconds that all of it took.
    """

    calls: int
    keypoints: int
    middle_mib: float
    last_mib: float
    seconds: float


def resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE / 2**20


def run_soak(detector: SuperPointFeature2D, *, calls: int, largest: int, seed: int = 0) -> Soak:
    """Call a detector with crops of random sizes up to ``largest`` pixels on each side.

    Args:
        detector: What is called.
        calls: Number of calls.
        largest: Side of the largest image, at most 1024.
        seed: Seed of the sizes.
    """
    import cv2
    import skimage

    data: Any = skimage.data  # without type hints
    rng = np.random.default_rng(seed)
    photograph = cv2.resize(data.camera(), (1024, 1024))
    memory, found = [], 0
    start = time.perf_counter()
    for _ in range(calls):
        height, width = rng.integers(1, largest + 1, 2)
        top, left = rng.integers(0, 1025 - height), rng.integers(0, 1025 - width)
        crop = photograph[top : top + height, left : left + width]
        keypoints, _ = detector.detectAndCompute(crop, None)
        found += len(keypoints)
        memory.append(resident_mib())
    quarter = calls // 4
    return Soak(
        calls=calls,
        keypoints=found,
        middle_mib=max(memory[quarter : 2 * quarter]),
        last_mib=max(memory[-quarter:]),
        seconds=time.perf_counter() - start,
    )


def soak(
    *,
    weights: str | None = None,
    backend: str = "auto",
    device: str = "cpu",
    calls: int = 20000,
    largest: int = 320,
    threads: int | None = None,
) -> None:
    """Call a detector with images of random sizes and report its memory.

    Args:
        weights: A bundled name or a path; the default set without one.
        backend: Same as for SuperPointFeature2D.
        device: Same as for SuperPointFeature2D.
        calls: Number of calls.
        largest: Side of the largest image, in pixels.
        threads: Threads of the network, on the CPU.
    """
    detector = SuperPointFeature2D.create(
        500, weights=weights, backend=backend, device=device, threads=threads
    )
    print(detector.info())
    seen = run_soak(detector, calls=calls, largest=largest)
    print(
        f"{seen.calls} calls with images up to {largest} x {largest}, {seen.keypoints} keypoints, "
        f"{seen.seconds:.0f} s: at most {seen.middle_mib:.0f} MiB in the second quarter, "
        f"{seen.last_mib:.0f} MiB in the last"
    )
