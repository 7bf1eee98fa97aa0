"""``cv-superpoint train`` is our training program: never a user's file, and with its signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "cv_superpoint", "train"]


def test_train_reaches_the_training(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--run-dir" in done.stdout


def test_train_runs_no_file_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the user's own train.py ran')")
    command = [sys.executable, "-c", "from cv_superpoint.cli import main; raise SystemExit(main())"]
    command = [sys.executable, "-P", *command[1:]] if sys.version_info >= (3, 11) else command
    done = subprocess.run(
        [*command, "train", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--run-dir" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_reaches_the_training_which_saves_a_checkpoint(tmp_path: Path) -> None:
    fields = {"steps": 100000, "workers": 0, "report-steps": 1, "checkpoint-minutes": 1000}
    options = [f"--magicpoint.loop.{name}={value}" for name, value in fields.items()]
    options += ["--magicpoint.data.size", "40", "48", "--threads", "1"]
    options += ["--recipe", "smoke", "--run-dir", str(tmp_path)]
    said = ""
    with subprocess.Popen(
        [*COMMAND, "magicpoint", *options], stderr=subprocess.PIPE, text=True
    ) as training:
        assert training.stderr is not None
        for line in training.stderr:
            said += line
            if " step " in line:
                training.terminate()
                break
        said += training.communicate()[1]
    assert training.returncode == 130, said
    assert "the same command goes on from here" in said
    assert (tmp_path / "magicpoint.pt").exists()
