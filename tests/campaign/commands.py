"""Commands of the command line as processes, and what must hold for their outputs.

Whatever happens, what stands under an output's name is what was there before or the whole new
result; afterwards the same command makes what an undisturbed run makes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from calls import LITE, PHOTOGRAPH
from kinds import ROOT, Case, check

from cv_superpoint.files.writing import PARTIAL
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
    """Check that every file under an output's name is the old one or the new one."""
    expected = undisturbed(name)[0]
    old = hashlib.sha256(OLD).hexdigest()[:16]
    for each, digest in snapshot(out).items():
        if is_partial(each) or (may_be_old and digest == old):
            continue
        check(each in expected, f"{name}: {each} is no output")
        check(digest == expected[each], f"{name}: {each} is neither old nor whole")


def check_said(name: str, status: int, said: str, allowed: tuple[int, ...] = (1, 3)) -> None:
    """Check that a command that failed says why in lines, not in a traceback."""
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
