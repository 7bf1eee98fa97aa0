"""``python -m train``: one tree of commands, and the recipe's fields as options of each stage."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from train.__main__ import COMMANDS, STAGES, main, parse
from train.recipes import RECIPES
from train.runtime.process import CPU_ENVIRONMENT


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code, and what was printed, on one line."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = "".join(capsys.readouterr())
    return stop.value.code, " ".join(printed.replace("│", " ").split())


def test_help_names_every_command_and_the_first_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text = said(["--help"], capsys)
    assert code == 0
    for name in (*COMMANDS, "--images", "--run-dir", "--help-fields"):
        assert name in text


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_help_and_the_fields(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said([stage, "--help"], capsys)
    assert code == 0
    assert f"usage: python -m train {stage}" in text
    for option in ("run-dir", "images", "recipe", "start", "minutes", "round", "shard"):
        assert f"--{option}" in text
    assert "--joint.loop.steps" not in text
    code, text = said([stage, "--recipe", "smoke", "--help-fields"], capsys)
    assert code == 0
    for option in ("--seed", "--joint.loop.steps", "--adapt.most-points", "--network."):
        assert option in text


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in STAGES])
def test_every_other_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said([command, "--help"], capsys)
    assert code == 0
    assert f"usage: python -m train {command}" in text
    assert "--recipe" not in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_defaults(recipe: str) -> None:
    known, config = parse(["--recipe", recipe])
    assert known.stage == "all"
    assert known.run_dir == Path("runs/default")
    assert (known.images, known.start, known.minutes, known.shard) == (None, None, None, None)
    assert known.round == 1
    assert config == RECIPES[recipe]()


def test_fields_override_the_recipe_in_both_spellings() -> None:
    for field in ("--adapt.most-points", "--adapt.most_points"):
        _, config = parse(["adapt", "--recipe", "smoke", field, "123", "--no-refinement"])
        changed = asdict(RECIPES["smoke"]())
        changed["adapt"]["most_points"] = 123
        changed["refinement"] = False
        assert asdict(config) == changed


def test_options_and_fields_stand_in_any_order() -> None:
    fields = ["--joint.data.size", "64", "80", "--joint.loop.precision=float32"]
    options = ["--run_dir", "here", "--round", "2", "--shard", "1/3"]
    ordered = parse(["joint", *fields, *options, "--rounds", "2"])
    assert ordered == parse(["joint", "--rounds=2", *options, *fields])
    known, config = ordered
    assert (known.stage, known.run_dir, known.shard) == ("joint", Path("here"), (1, 3))
    assert (config.joint.data.size, config.joint.loop.precision) == ((64, 80), "float32")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "no command is called 'nonsense'; commands are all, magicpoint"),
        (["--recipe", "nonsense"], "invalid choice 'nonsense' for argument '--recipe'"),
        (["joint", "--joint.data.sze", "3", "4"], "--joint.data.size"),
        (["joint", "extra"], "unrecognized options: extra"),
        (["--minutes", "0"], "--minutes must be positive, got 0"),
        (["adapt", "--round", "0"], "--round must be between 1 and --rounds 5, got 0"),
        (["summary"], "PATH"),
        (["evaluate", "--joint.loop.steps", "3"], "unrecognized options"),
    ],
)
def test_wrong_usage_is_said(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(arguments, capsys)
    assert code == 2
    assert says in text


@pytest.mark.parametrize(
    ("error", "keeps"),
    [(ValueError("x"), False), (FloatingPointError("x"), False), (RuntimeError("x"), True)],
)
def test_only_a_fault_of_the_program_keeps_its_traceback(
    error: Exception, keeps: bool, tmp_path: Path
) -> None:
    script = f"""
import sys
import train.__main__ as program
def fails(known, config):
    raise {error!r}
program.run_stage = fails
sys.exit(program.main(["export", "--run-dir", sys.argv[1]]))
"""
    environment = {**os.environ, **CPU_ENVIRONMENT}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == keeps
    last = done.stderr.splitlines()[-1]
    assert last == (f"{type(error).__name__}: x" if keeps else "python -m train: x")
