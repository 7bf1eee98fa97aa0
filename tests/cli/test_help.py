"""The help of each command: it fits a screen, its examples parse, it names the files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_type_hints

import cv2
import pytest
from pinned import PINNED

from cv_superpoint.cli import PROGRAM, main
from cv_superpoint.cli.arguments import is_positional
from cv_superpoint.cli.command import Program
from cv_superpoint.cli.help import field_names
from train.__main__ import PROGRAM as TRAINING
from train.__main__ import main as train

LINES = 48
"""Lines of a screen of 100 columns."""
OWN = [name for name in PROGRAM.commands if name != "train"]
OPTIONS = [f"--{name}={value}" for name, value in PINNED.items()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Exit code, standard output and standard error of a command line."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str, program: Any = main) -> tuple[int, str, str]:
        try:
            code = program(list(arguments))
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", OWN)
def test_help_fits_a_screen_and_tells_what_comes_out(said: Any, name: str) -> None:
    code, text, _ = said(name, "--help")
    assert code == 0
    assert len(text.splitlines()) <= LINES
    assert f"$ cv-superpoint {name}" in text
    assert "What comes out:\n- " in text
    told = PROGRAM.commands[name].HELP
    if told.first is not None:
        assert f"cv-superpoint {name} --help-all lists every option" in text


@pytest.mark.parametrize("name", OWN)
def test_all_options_are_listed_on_request(said: Any, name: str) -> None:
    kind = PROGRAM.commands[name]
    brief, whole = said(name, "--help")[1], said(name, "--help-all")[1]
    first = kind.HELP.first
    hints = get_type_hints(kind, include_extras=True)
    groups = {"detector", "config"}
    options = {
        each.replace("_", "-")
        for each in field_names(kind) - groups
        if each not in hints or not is_positional(hints[each])
    }
    assert all(re.search(rf"--(no-)?{each}\b", whole) for each in options)
    if first is None:
        assert brief == whole
    else:
        assert set(first) <= field_names(kind)
        assert all(re.search(rf"--(no-)?{each.replace('_', '-')}\b", brief) for each in first)
        assert len(brief) < len(whole)


@pytest.mark.parametrize("program", [PROGRAM, TRAINING], ids=lambda each: each.name)
def test_examples_are_command_lines(program: Program) -> None:
    lines = [*program.examples] if program is PROGRAM else []
    for name, kind in program.commands.items():
        lines += getattr(kind, "HELP", None).examples if hasattr(kind, "HELP") else ()
        assert (kind.__doc__ or "").strip(), name
    assert len(lines) > 2
    for line in lines:
        words = shlex.split(line)
        command = program.choose(words) if words[0] != "all" else None
        assert command is None or isinstance(command, program.commands[words[0]])


def test_every_command_takes_the_lite_set() -> None:
    for name in set(OWN) - {"convert", "calibrate"}:
        line = next(
            each for each in PROGRAM.commands[name].HELP.examples if "superpoint-lite" in each
        )
        command = PROGRAM.choose(shlex.split(line))
        options = getattr(command, "detector", None) or getattr(command, "config", command)
        assert options.weights == "superpoint-lite"
    for words in ("convert superpoint-lite y.pth", "calibrate superpoint-lite x -o y.safetensors"):
        assert PROGRAM.choose(shlex.split(words)).source == "superpoint-lite"


def test_without_a_command_the_way_is_shown(said: Any) -> None:
    code, text, errors = said()
    assert code == 2
    assert not errors
    assert text == said("--help")[1]
    assert said("--help")[0] == 0
    assert len(text.splitlines()) <= LINES
    assert "$ cv-superpoint match one.jpg two.jpg" in text
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in PROGRAM.commands)
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mtch", "no command is called 'mtch', did you mean match?; cv-superpoint --help"),
        ("xyz", "no command is called 'xyz'; commands are match, view, "),
        ("match one.jpg", "missing from cv-superpoint match: PATH Second picture"),
        ("match a b --model x", "invalid choice 'x' for argument '--model'"),
        ("match a b --rotation 90", "perhaps you meant --rotations; cv-superpoint match --help"),
        ("match a b --pixels x", "could not convert string to float: 'x'"),
        ("extract a --nonsense 3", "--nonsense; cv-superpoint extract --help tells more"),
        ("export x.onnx --size 3", "--size"),
    ],
)
def test_wrong_usage_is_one_line(said: Any, line: str, says: str) -> None:
    code, text, errors = said(*shlex.split(line))
    assert (code, text) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert says in errors
    assert "--help tells more" in errors
    assert not re.search("[╭│╰─]", errors)


@pytest.mark.parametrize("name", TRAINING.commands)
def test_help_of_training_fits_a_screen(said: Any, name: str) -> None:
    code, text, _ = said(name, "--help", program=train)
    assert code == 0
    assert len(text.splitlines()) <= LINES
    assert f"usage: python -m train {name}" in text
    assert f"$ python -m train {name}" in text
    assert "What comes out:\n- " in text


def test_options_within_options_within_options_are_listed(said: Any) -> None:
    code, text, errors = said("matcher", "--help-all", program=train)
    assert (code, errors) == (0, "")
    assert "--training.features.near" in text
    assert "--training.loop.steps" in text
    assert "subcommands" not in text


def test_training_without_words_of_a_stage_shows_the_way(said: Any) -> None:
    code, text, _ = said("--help", program=train)
    assert code == 0
    assert "--start superpoint --recipe finetune" in text
    assert "--help-fields" in text


def test_files_that_come_out_are_told(said: Any, tmp_path: Path, bgr: Any) -> None:
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, picture in zip(files, (bgr, bgr[10:, 20:]), strict=True):
        cv2.imwrite(str(path), picture)
    lines = {
        "match": [*map(str, files), "--threshold=0.01"],
        "detect": [str(files[0])],
    }
    for name, words in lines.items():
        out = tmp_path / name
        code, _, errors = said(name, *words, "-o", str(out), *OPTIONS)
        assert code == 0, errors
        told = "\n".join(PROGRAM.commands[name].HELP.results)
        for path in out.iterdir():
            named = path.name.replace("one.png", "NAME")
            assert f"{named}:" in told
            if path.suffix == ".csv":
                columns = path.read_text().splitlines()[0].split(",")
                assert ", ".join(columns) in told
