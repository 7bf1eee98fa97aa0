"""An error that a user can meet is one line with a remedy; faults of the program stay visible."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cv_superpoint import FeatureError
from cv_superpoint.cli import main
from cv_superpoint.cli.command import run_program
from cv_superpoint.cli.doctor import Doctor
from cv_superpoint.cli.explain import explain
from cv_superpoint.cli.output import Output


def caught(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as found:  # noqa: PT011 - the class is what differs
        work()
    return found.value


def test_what_the_system_refuses_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    part = tmp_path / "result.h5.123.456.part"
    part.touch()
    for work, says in (
        (lambda: (tmp_path / "folder").write_bytes(b""), "folder: Is a directory; it is a folder"),
        (lambda: (tmp_path / "file" / "x").touch(), "file/x: Not a directory; a file stands"),
        (lambda: (tmp_path / "none" / "x").touch(), "none/x: No such file or directory; make"),
        (lambda: (tmp_path / ("n" * 300)).touch(), "File name too long; take a shorter name"),
        (lambda: os.replace(part, tmp_path / "folder"), "/folder: Is a directory"),
        (lambda: (tmp_path / "none" / part.name).touch(), "none/result.h5: No such file"),
    ):
        line = explain(caught(work))
        assert line is not None
        assert says in line
        assert "Errno" not in line
        assert ".part" not in line
    assert explain(OSError("no number")) == "no number"


def test_what_opencv_refuses_is_said_without_its_build_paths() -> None:
    empty = np.zeros((0, 3), np.uint8)
    wide = np.zeros((1, 40_000), np.float32)
    for work, says in (
        (lambda: cv2.resize(empty, (3, 3)), "OpenCV stops in resize (!ssize.empty()); other"),
        (lambda: cv2.remap(wide, wide, wide, cv2.INTER_LINEAR), "OpenCV stops in remap (dst.cols"),
        (lambda: cv2.detail.MultiBandBlender().prepare((0, 0, 0, 0)), "OpenCV stops with '"),
    ):
        line = explain(caught(work))
        assert line is not None
        assert says in line
        assert "\n" not in line
        assert ".cpp" not in line


def test_other_errors_of_libraries_are_their_message() -> None:
    line = explain(caught(lambda: np.empty((2**20, 2**20, 2**10))))
    assert line is not None
    assert "Unable to allocate" in line
    assert "smaller pictures" in line
    line = explain(caught(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3)))
    assert line is not None
    assert "shapes cannot be multiplied" in line
    assert explain(RuntimeError("two\nlines")) == "two lines"
    assert explain(FeatureError("said so; do this")) == "said so; do this"


FAULTS = (
    TypeError("x"),
    KeyError("x"),
    AssertionError("x"),
    AttributeError("x"),
    NotImplementedError("x"),
    RecursionError("x"),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_the_program_keeps_its_traceback(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Doctor, output: Any) -> int:
        raise fault

    assert explain(fault) is None
    monkeypatch.setattr(Doctor, "run", faulty)
    with pytest.raises(type(fault), match="x"):
        main(["doctor"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "folder.onnx"], "folder.onnx: Is a directory; it is a folder; name a file"),
        (["export", "file/x.onnx"], "file/x.onnx: Not a directory; a file stands where"),
        (["export", "none/x.onnx"], "none/x.onnx: No such file or directory; make its folder"),
        (["convert", "superpoint", "file/x.safetensors"], "file/x.safetensors: Not a directory;"),
    ],
)
def test_commands_say_it_in_one_line(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    assert main(arguments) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"error: {says}")
    assert said.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_every_program_says_it_alike(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "file"
    out.touch()
    for work, says in (
        (lambda: cv2.resize(np.zeros((0, 3), np.uint8), (3, 3)), "OpenCV stops in resize"),
        (lambda: (out / "x").touch(), "file/x: Not a directory; a file stands"),
        (lambda: np.empty((2**20, 2**20, 2**10)), "memory does not suffice"),
    ):
        assert run_program(lambda work=work: Command(work)) == 1
        said = capfd.readouterr().err
        assert said.startswith("error: ")
        assert says in said
        assert said.count("\n") == 1
    with pytest.raises(KeyError):
        run_program(lambda: Command(lambda: {}["x"]))


@dataclass(frozen=True)
class Command:
    """A command without options."""

    work: Callable[[], object]

    def run(self, output: Output) -> int:
        self.work()
        return 0
