import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from train.__main__ import parse, run_stage
from train.learning import checkpoint
from train.runtime.process import CPU_ENVIRONMENT

ROOT = Path(__file__).parents[2]


def arguments(folder: Path, workers: int) -> list[str]:
    fields = ["--threads", "1", "--magicpoint.loop.steps", "12"]
    fields += ["--magicpoint.loop.precision", "float32", "--magicpoint.loop.workers", str(workers)]
    fields += ["--magicpoint.loop.checkpoint-minutes", "0", "--magicpoint.data.size", "40", "48"]
    fields += ["--magicpoint.validation-images", "4"]
    return ["magicpoint", "--recipe", "smoke", "--run-dir", str(folder), *fields]


def test_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "killed" / "magicpoint.pt"
    command = [sys.executable, "-m", "train", *arguments(path.parent, workers=1)]
    environment = {**os.environ, **CPU_ENVIRONMENT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert checkpoint.load(path)["step"] > 0

    for folder in (path.parent, tmp_path / "whole"):
        run_stage(*parse(arguments(folder, workers=0)))
    resumed, whole = (
        checkpoint.load(tmp_path / name / "magicpoint.pt") for name in ("killed", "whole")
    )
    assert resumed["step"] == whole["step"] == 12
    for name, value in whole["network"].items():
        assert torch.equal(value, resumed["network"][name]), name
