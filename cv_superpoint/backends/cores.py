"""How many threads a network takes on the CPU by default."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def default_threads(root: Path = Path("/")) -> int:
    """The lowest of the limits of this process.

    That is the cores that it may run on (``taskset``, a container's cpuset), threads of one core
    counted once because a second one gains nothing here; its control group's quota of processor
    time, rounded up (``docker run --cpus``, Kubernetes); ``OMP_NUM_THREADS``.

    Args:
        root: Where ``/proc`` and ``/sys`` are found.
    """
    limits = [_cores(root), *map(math.ceil, _quotas(root))]
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked):
        limits.append(int(asked))
    return max(1, min(limits))


def _cores(root: Path) -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({(root / topology.format(one)).read_text() for one in allowed})
    except OSError:
        return len(allowed)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each of this process's control groups allows (Linux)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for folder in _upwards(mount, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(mount / controllers, path):
                period = _read(folder / "cpu.cfs_period_us")
                yield from _ratio(_read(folder / "cpu.cfs_quota_us"), period)


def _upwards(mount: Path, path: str) -> list[Path]:
    """A control group's folder and those above it; in a container some are not to be seen."""
    folder = mount / path.lstrip("/")
    return [folder, *(each for each in folder.parents if each.is_relative_to(mount))]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _ratio(quota: str, period: str) -> Iterator[float]:
    """A quota without a limit is "max" or -1."""
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        yield int(quota) / int(period)
