"""Two real processes on the CPU (gloo) against one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import needs_proc, processes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.__main__ import parse, run_stage
from train.learning import checkpoint
from train.runtime.process import CPU_ENVIRONMENT

ROOT = Path(__file__).parents[3]
STEPS = 8
FIELDS = ["--threads", "1", "--magicpoint.loop.workers", "0", "--magicpoint.loop.batch-size", "4"]
FIELDS += ["--magicpoint.loop.precision", "float32", "--magicpoint.data.size", "40", "48"]
FIELDS += ["--magicpoint.validation-images", "4"]


def arguments(folder: Path, steps: int, *fields: str) -> list[str]:
    command = ["magicpoint", "--recipe", "smoke", "--run-dir", str(folder), *FIELDS]
    return [*command, "--magicpoint.loop.steps", str(steps), *fields]


def start_two(*arguments: str) -> "subprocess.Popen[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launcher += ["--max-restarts=3", "--monitor-interval=0.1"]
    # With its settings the command need not start itself again.
    environment = {**os.environ, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "train", *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return errors


def losses(folder: Path) -> list[float]:
    events = EventAccumulator(str(folder / "tensorboard" / "magicpoint"))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


def test_two_ranks_learn_what_one_process_learns(tmp_path: Path) -> None:
    every_step = ["--magicpoint.loop.report-steps", "1"]
    both = start_two(*arguments(tmp_path / "2", STEPS, *every_step))
    run_stage(*parse(arguments(tmp_path / "1", STEPS, *every_step)))
    finish(both)
    one, two = (checkpoint.load(tmp_path / name / "magicpoint.pt") for name in ("1", "2"))
    assert one["step"] == two["step"] == STEPS
    first, second = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(first) == len(second) == STEPS
    # Sums over two processes round differently, by instructions and by order.
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first == pytest.approx(second, rel=2e-3)
    # Adam blows rounding up where gradients are tiny, so single weights may differ by a step.
    for name, value in one["network"].items():
        if name.endswith("running_var"):
            difference = (two["network"][name] - value).norm() / value.norm()
            assert difference < 0.05, name


def ranks_of(launcher: int) -> list[int]:
    return sorted(number for number, (parent, _) in processes().items() if parent == launcher)


@needs_proc
def test_run_goes_on_after_a_rank_is_killed(tmp_path: Path) -> None:
    # Long enough not to be over when the signal comes.
    process = start_two(*arguments(tmp_path, 30, "--magicpoint.loop.checkpoint-minutes", "0"))
    try:
        while not (tmp_path / "magicpoint.pt").exists():
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.02)
        os.kill(ranks_of(process.pid)[-1], signal.SIGKILL)
        errors = finish(process)
    finally:
        process.kill()
    state = checkpoint.load(tmp_path / "magicpoint.pt")
    assert state["finished"]
    assert state["step"] == 30
    assert "goes on at step" in errors
