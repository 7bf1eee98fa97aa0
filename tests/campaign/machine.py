"""Faults of the machine while a command runs: killed, no room, nothing writable, no memory.

Whatever happens, what stands under an output's name is what was there before or the whole new
result; afterwards the same command makes what an undisturbed run makes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from calls import LITE, PHOTOGRAPH
from damaged import damaged
from kinds import ROOT, Case, check, kind

from cv_superpoint.files.writing import PARTIAL
from train.learning import checkpoint
from train.runtime.process import CPU_ENVIRONMENT

OLD = b"what was there before"
DETECTOR = ["--weights", LITE, "--backend", "ncnn", "--precision", "float32", "--threads", "1"]
LIMIT = 120.0
"""Seconds of a command that is not disturbed."""


@functools.cache
def inputs() -> Path:
    """Pictures and a film, made once for the process."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-inputs-"))
    (folder / "pictures").mkdir()
    for k in range(6):
        piece = PHOTOGRAPH[20 * k : 20 * k + 160, 30 * k : 30 * k + 200]
        cv2.imwrite(str(folder / "pictures" / f"{k}.png"), piece)
    writer = cv2.VideoWriter(
        str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120)
    )
    for k in range(10):
        writer.write(np.ascontiguousarray(PHOTOGRAPH[100 + k : 220 + k, 150 + k : 310 + k]))
    writer.release()
    cv2.imwrite(str(folder / "left.png"), PHOTOGRAPH[:200, :300])
    cv2.imwrite(str(folder / "right.png"), PHOTOGRAPH[:200, 130:430])
    return folder


def command(name: str, out: Path) -> tuple[list[str], list[Path]]:
    """Arguments of a command, and the files that it replaces if they are there."""
    source = inputs()
    pictures, two = str(source / "pictures"), [str(source / "left.png"), str(source / "right.png")]
    match name:
        case "detect":
            return ["detect", pictures, "-o", str(out / "k"), *DETECTOR], [out / "k" / "0.png.csv"]
        case "match":
            target = out / "m" / "matches.csv"
            return ["match", *two, "-o", str(out / "m"), *DETECTOR], [target]
        case "extract" | "shards":
            target = out / ("features.h5" if name == "extract" else "shards")
            return ["extract", pictures, "-o", str(target), "--shard-size", "2", *DETECTOR], []
        case "track":
            film, target = str(source / "film.avi"), out / "tracks.avi"
            return ["track", film, "-o", str(target), *DETECTOR], [target]
        case "stitch":
            target = out / "panorama.png"
            return ["stitch", *two, "-o", str(target), "--model", "plane", *DETECTOR], [target]
        case "export":
            target = out / "a.onnx"
            options = ["--layout", "full", "--size", "64", "80", "--weights", LITE, "-k", "50"]
            return ["export", str(target), *options], [target]
    target = out / "a.safetensors"
    return ["convert", LITE, str(target)], [target]


COMMANDS = ("detect", "match", "extract", "shards", "track", "stitch", "export", "convert")


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **CPU_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    environment["PYTHONFAULTHANDLER"] = "1"
    environment["CV_SUPERPOINT_CACHE"] = str(inputs() / "cache")
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
        **options,
    )


def finish(case: Case, process: subprocess.Popen[str], limit: float = LIMIT) -> tuple[int, str]:
    """Exit status and standard error of a command; one that hangs is a fault."""
    case.calls += 1
    try:
        _, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        check(False, f"{process.args} takes more than {limit:.0f} s")
        raise
    return process.returncode, said


def snapshot(folder: Path) -> dict[str, str]:
    """Digests of what is in all files, by name; of HDF5 files what a reader finds in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digest = hashlib.sha256()
            if path.suffix == ".h5" and h5py.is_hdf5(path):
                with h5py.File(path) as file:
                    file.visititems(functools.partial(_add, digest))
            elif path.suffix == ".json":
                # Times are kept only of files that were not written just before.
                digest.update(re.sub(rb'"[mc]time_ns": \d+', b"", path.read_bytes()))
            else:
                digest.update(path.read_bytes())
            found[name] = digest.hexdigest()[:16]
    return found


def _add(digest: Any, name: str, item: Any) -> None:
    digest.update(name.encode())
    if isinstance(item, h5py.Dataset):
        digest.update(item[()].tobytes())


@functools.cache
def undisturbed(name: str) -> tuple[dict[str, str], float, int]:
    """What a command writes, the seconds that it takes, and the bytes of its files."""
    with tempfile.TemporaryDirectory(prefix="campaign-whole-") as text:
        out = Path(text)
        started = time.monotonic()
        process = start(["cv_superpoint", *command(name, out)[0]])
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode in (0, 3), said
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return snapshot(out), time.monotonic() - started, size


def is_partial(name: str) -> bool:
    """Whether it is a name of a file that is not finished, or of the work of a run."""
    return PARTIAL in Path(name).name or ".h5.parts/" in name


def check_whole(name: str, out: Path, may_be_old: bool) -> None:
    """That every file under an output's name is the old one or the new one."""
    expected = undisturbed(name)[0]
    old = hashlib.sha256(OLD).hexdigest()[:16]
    for each, digest in snapshot(out).items():
        if is_partial(each) or (may_be_old and digest == old):
            continue
        check(each in expected, f"{name}: {each} is no output")
        check(digest == expected[each], f"{name}: {each} is neither old nor whole")


def check_said(name: str, status: int, said: str, allowed: tuple[int, ...] = (1, 3)) -> None:
    """That a command which could not do its work says why in lines, not in a traceback."""
    check(status in (0, *allowed), f"{name}: exit status {status}: {said[-3000:]}")
    check("Traceback" not in said, f"{name}: a traceback: {said[-3000:]}")
    if status == 1:
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        check(len(lines) == 1, f"{name}: {len(lines)} lines of errors: {said[-400:]}")


def complete(case: Case, name: str, out: Path) -> None:
    """Run it once more, undisturbed: the result is that of a first run, and nothing is left."""
    process = start(["cv_superpoint", *command(name, out)[0]])
    status, said = finish(case, process)
    check(status == 0, f"{name} does not go on: {status} {said[-400:]}")
    expected, found = undisturbed(name)[0], snapshot(out)
    left = sorted(each for each in found if is_partial(each))
    check(not left, f"{name} leaves {left}")
    differing = [each for each in {*expected, *found} if expected.get(each) != found.get(each)]
    check(not differing, f"{name}: other {sorted(differing)} than undisturbed")


def place_old(case: Case, files: list[Path]) -> bool:
    """Put old files in the places of some outputs, half of the time."""
    if not files or case.random.integers(2):
        return False
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(OLD)
    return True


# ---- killed ----


def kill_at_random(case: Case, process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill it and all that it started after a random time; False if it ended before."""
    try:
        process.communicate(timeout=float(case.random.uniform(0, 1.1 * seconds)))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        case.kills += 1
        return True
    return False


@kind
def kill_commands(case: Case) -> None:
    """kill -9 at random moments, one to three times; then the command goes on."""
    name = case.choose(COMMANDS)
    arguments, replaced = command(name, case.folder)
    has_old = place_old(case, replaced)
    for _ in range(int(case.random.integers(1, 4))):
        case.calls += 1
        kill_at_random(case, start(["cv_superpoint", *arguments]), undisturbed(name)[1])
        check_whole(name, case.folder, has_old)
    case.note(name, has_old)
    complete(case, name, case.folder)


TRAINING = [
    *("magicpoint", "--recipe", "smoke", "--threads", "1", "--magicpoint.loop.steps", "12"),
    *("--magicpoint.loop.precision", "float32", "--magicpoint.loop.checkpoint-minutes", "0"),
    *("--magicpoint.data.size", "40", "48", "--magicpoint.validation-images", "4"),
]


@functools.cache
def trained() -> tuple[Path, float]:
    """The folder of a run that nothing disturbs, and the seconds that it takes."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-trained-"))
    started = time.monotonic()
    process = start(["train", *TRAINING, "--run-dir", str(folder)], cwd=ROOT)
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    return folder, time.monotonic() - started


@kind
def damaged_run(case: Case) -> None:
    """A file of a run's folder is damaged: the run goes on, or says in a line which it is."""
    run = case.folder / "run"
    shutil.copytree(trained()[0], run)
    target = case.choose(sorted(path for path in run.rglob("*") if path.is_file()))
    whole = target.read_bytes()
    target.write_bytes(damaged(case, whole, head=2000))
    case.note(target.name)
    arguments = [*TRAINING, "--magicpoint.loop.steps", "14", "--run-dir", str(run)]
    status, said = finish(case, start(["train", *arguments], cwd=ROOT))
    check(status in (0, 1), f"training: exit status {status}: {said[-3000:]}")
    check("Traceback" not in said, f"training: a traceback: {said[-3000:]}")
    check(status == 0 or "python -m train: " in said, f"training says {said[-400:]}")
    if status == 0:
        check(checkpoint.load(run / "magicpoint.pt")["step"] == 14, "it did not go on")


@kind
def kill_training(case: Case) -> None:
    """kill -9 of a training, one to three times; then it goes on to the same weights."""
    folder, seconds = trained()
    expected = checkpoint.load(folder / "magicpoint.pt")
    path = case.folder / "run" / "magicpoint.pt"
    workers = str(case.random.integers(2))
    arguments = [*TRAINING, "--magicpoint.loop.workers", workers, "--run-dir", str(path.parent)]
    for _ in range(int(case.random.integers(1, 4))):
        case.calls += 1
        kill_at_random(case, start(["train", *arguments], cwd=ROOT), seconds)
        if path.exists():
            check(checkpoint.load(path)["step"] <= 12, "a checkpoint of another run")
    status, said = finish(case, start(["train", *arguments], cwd=ROOT))
    check(status == 0, f"training does not go on: {status} {said[-400:]}")
    found = checkpoint.load(path)
    check(found["step"] == 12, f"step {found['step']} of 12")
    for name, value in expected["network"].items():
        check(torch.equal(value, found["network"][name]), f"other {name} than undisturbed")
    left = [each.name for each in path.parent.rglob("*") if PARTIAL in each.name]
    check(not left, f"training leaves {left}")


# ---- no room, no permission, no memory ----


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
