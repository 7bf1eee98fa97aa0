"""kill -9 at random moments, and folders of runs with a damaged file."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from commands import (
    COMMANDS,
    LIMIT,
    check_whole,
    command,
    complete,
    finish,
    place_old,
    start,
    undisturbed,
)
from damaged import damaged
from kinds import ROOT, Case, check, kind

from cv_superpoint.files.writing import PARTIAL
from train.learning import checkpoint


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
