"""``python -m benchmarks``: one tree of commands, explained as those of cv-superpoint."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest
import torch

from benchmarks.__main__ import COMMANDS, main


@pytest.fixture
def threads() -> Iterator[None]:
    """A benchmark sets the threads of its process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"usage: python -m benchmarks {name}" in capsys.readouterr().out


def test_what_cannot_be_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["busy", "--loads", "1"]) == 1
    said = capsys.readouterr().err
    assert said == "error: loads must begin with 0, the idle machine, got (1,)\n"
    with pytest.raises(SystemExit, match="2"):
        main(["busy", "--nonsense"])


def test_training_data_is_timed(threads: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rounds", "1"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    made = {row[0].strip(): float(row[1]) for row in rows[2:]}
    assert [name.partition(",")[0] for name in made] == [
        "drawings",
        "drawings",
        "pairs",
        "pairs",
        "adaptation",
    ]
    assert min(made.values()) > 0
