"""No room, no permission, little memory while a command runs."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from commands import (
    COMMANDS,
    check_said,
    check_whole,
    command,
    complete,
    finish,
    place_old,
    snapshot,
    start,
    undisturbed,
)
from kinds import ROOT, Case, check, kind

from train.runtime.process import CPU_ENVIRONMENT


def limit(kind_: int, value: int) -> Callable[[], None]:
    """Lower a limit of the system in the child, before it becomes the command."""
    return lambda: resource.setrlimit(kind_, (value, value))


@kind
def large_files(case: Case) -> None:
    """No file may grow beyond a random size, as in a quota."""
    name = case.choose(COMMANDS)
    size = undisturbed(name)[2]
    allowed = int(np.exp(case.random.uniform(np.log(50), np.log(1.3 * size))))
    arguments, replaced = command(name, case.folder)
    has_old = place_old(case, replaced)
    case.note(name, f"{allowed} of {size} bytes", has_old)
    process = start(["cv_superpoint", *arguments], preexec_fn=limit(resource.RLIMIT_FSIZE, allowed))
    status, said = finish(case, process)
    check_said(name, status, said)
    check_whole(name, case.folder, has_old)
    complete(case, name, case.folder)


@contextmanager
def disk(case: Case, size: int) -> Any:
    """A file system in memory of so many bytes; None where the user may not mount one."""
    place = case.folder / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        case.skipped = "may not mount a file system in memory"
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@kind
def full_disk(case: Case) -> None:
    """A disk with a random room; then with enough."""
    name = case.choose(COMMANDS)
    size = undisturbed(name)[2]
    room = int(np.exp(case.random.uniform(np.log(4096), np.log(2 * size + 8192)))) // 4096 * 4096
    with disk(case, max(room, 4096)) as place:
        if place is None:
            return
        arguments, replaced = command(name, place)
        try:
            has_old = place_old(case, replaced)
        except OSError:  # no room for the old one
            return
        case.note(name, f"{room} of {size} bytes", has_old)
        status, said = finish(case, start(["cv_superpoint", *arguments]))
        check_said(name, status, said)
        check_whole(name, place, has_old)
        remount(place, "size=200m")
        complete(case, name, place)


@kind
def read_only(case: Case) -> None:
    """An output on a disk that takes nothing: said in one line, nothing is changed."""
    name = case.choose(COMMANDS)
    with disk(case, 2**20) as place:
        if place is None:
            return
        arguments, replaced = command(name, place)
        place_old(case, replaced)
        before = snapshot(place)
        remount(place, "ro")
        case.note(name)
        status, said = finish(case, start(["cv_superpoint", *arguments]))
        check_said(name, status, said)
        check(status != 0, f"{name}: exit status 0 on a disk that takes nothing")
        check(snapshot(place) == before, f"{name}: changed")


LIBRARIES = {
    "extract": "h5py",
    "shards": "pyarrow.parquet",
    "export": "onnx",
    "convert": "safetensors.torch",
}
"""What a command imports beside the rest, by its name."""


@functools.cache
def least_memory(name: str) -> int:
    """Bytes of addresses with which the libraries of a command can be imported.

    With less they end in any way: OpenCV and OpenBLAS crash.
    """
    modules = f"import cv_superpoint.cli, cv2, ncnn, {LIBRARIES.get(name, 'numpy')}"
    low, high = int(200e6), int(12e9)
    while high / low > 1.05:
        middle = int((low * high) ** 0.5)
        done = subprocess.run(
            [sys.executable, "-c", modules],
            env={**os.environ, **CPU_ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
            preexec_fn=limit(resource.RLIMIT_AS, middle),
        )
        low, high = (low, middle) if done.returncode == 0 else (middle, high)
    return high


@kind
def little_memory(case: Case) -> None:
    """A random limit of addresses, from what Python's libraries need to plenty."""
    name = case.choose(COMMANDS)
    least = least_memory(name)
    allowed = int(np.exp(case.random.uniform(np.log(least), np.log(2 * least))))
    arguments, replaced = command(name, case.folder)
    has_old = place_old(case, replaced)
    case.note(name, f"{allowed / 1e6:.0f} MB, at least {least / 1e6:.0f}", has_old)
    process = start(["cv_superpoint", *arguments], preexec_fn=limit(resource.RLIMIT_AS, allowed))
    status, said = finish(case, process)
    check_whole(name, case.folder, has_old)
    check_said(name, status, said)
    complete(case, name, case.folder)
