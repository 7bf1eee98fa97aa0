"""What a fresh process of each backend takes: time to the first keypoints, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """
import time; start = time.perf_counter()
import json, sys
import numpy as np
from cv_superpoint import SuperPointFeature2D
weights, backend, precision, path, count, threads, calls = sys.argv[1:]
image = np.load(path)
imported = time.perf_counter()
detector = SuperPointFeature2D.create(
    int(count), 2e-4, weights=weights, backend=backend, precision=precision, device="cpu",
    threads=int(threads))
keypoints, _ = detector.detectAndCompute(image, None)
done = time.perf_counter()
for _ in range(int(calls)):
    detector.detectAndCompute(image, None)
memory = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "keypoints": len(keypoints), "imported": imported - start, "first": done - start,
    "steady_mib": int(memory["VmRSS"].split()[0]) / 1024,
    "peak_mib": int(memory["VmHWM"].split()[0]) / 1024,
    "torch": "torch" in sys.modules,
}))
"""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A fresh process.

    Attributes:
        keypoints: How many it found.
        imported: Seconds from the first line to the end of the imports.
        first: Seconds from the first line to the first keypoints, the image already on disk.
        steady_mib: Resident memory after several calls.
        peak_mib: The most it ever was.
        torch: Whether torch was imported.
    """

    keypoints: int
    imported: float
    first: float
    steady_mib: float
    peak_mib: float
    torch: bool


def fresh_process(
    weights: str,
    backend: str,
    precision: str,
    image: Path,
    *,
    count: int,
    threads: int,
    calls: int = 20,
) -> Process:
    """Run :data:`SCRIPT` in a new interpreter; on Linux, which tells a process its memory."""
    arguments = [weights, backend, precision, *map(str, (image, count, threads, calls))]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Process(**json.loads(done.stdout.splitlines()[-1]))
