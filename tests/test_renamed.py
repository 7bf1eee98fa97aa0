"""Old names of modules: they give the same modules, with a warning, for one release."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from cv_superpoint import SuperPoint, _renamed
from train import _renamed as _renamed_in_training

NAMES = {
    **_renamed.RENAMED,
    **_renamed_in_training.RENAMED,
    "train.evaluate.metrics": "cv_superpoint.evaluation.metrics",
}


@pytest.mark.parametrize("old", [name for name in NAMES if name != "train.geometry"])
def test_an_old_name_is_the_module_of_now(old: str) -> None:
    for name in [name for name in NAMES if old == name or old.startswith(f"{name}.")]:
        sys.modules.pop(name, None)
    # The packages above an old name warn as well.
    with pytest.warns(DeprecationWarning, match=" is .* now") as told:
        module = importlib.import_module(old)
    assert f"{old} is {NAMES[old]} now" in [str(one.message) for one in told]
    assert module is importlib.import_module(NAMES[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == NAMES[old]


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("detector", ["Detector", "DetectorConfig"]),
        ("matching", ["MatchResult", "match_features", "match_pair"]),
        ("network", ["NetworkConfig", "SuperPointNet"]),
        ("weights", ["LoadedWeights", "available_weights", "load_weights", "save_weights"]),
    ],
)
def test_a_room_with_the_name_of_a_module_has_what_it_had(room: str, names: list[str]) -> None:
    module = importlib.import_module(f"cv_superpoint.{room}")
    for name in names:
        assert getattr(module, name).__name__ == name


@pytest.mark.parametrize("program", ["train.summary", "train.evaluate", "train.evaluate.limits"])
def test_an_old_program_is_the_command_of_now(program: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", program, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command_of_now = "summary" if program == "train.summary" else "evaluate"
    assert f"usage: python -m train {command_of_now}" in done.stdout
    assert "DeprecationWarning" in done.stderr


def test_an_old_program_takes_its_old_options_and_keeps_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cv_superpoint.evaluation.verdict", "--data", str(tmp_path)]
    options = ["--detector", "orb", "--threshold=2"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "DeprecationWarning" in done.stderr
    assert "cv_superpoint evaluate --protocol verdict now" in done.stderr
    assert "error: orb has no extract(); take superpoint with its options" in done.stderr


def test_the_notes_for_migration_name_every_old_name() -> None:
    page = Path(__file__).parent.parent / "docs" / "migration.md"
    text = page.read_text(encoding="utf-8")
    for renamed in (_renamed.RENAMED, _renamed_in_training.RENAMED):
        for old, new in renamed.items():
            assert f"| `{old}` | `{new}` |" in text, old
    for old in (*_renamed.PROGRAMS, *_renamed_in_training.PROGRAMS):
        assert f"`python -m {old.removesuffix('.__main__')}`" in text, old


def test_names_that_changed_in_place_warn() -> None:
    network = importlib.import_module("cv_superpoint.network")
    tensors = importlib.import_module("cv_superpoint.decoding.tensors")
    for name in ("logits_to_heatmap", "sample_descriptors"):
        with pytest.warns(DeprecationWarning, match=f"{name} is in cv_superpoint.decoding.tensors"):
            assert getattr(network, name) is getattr(tensors, name)
    with pytest.warns(DeprecationWarning, match="from_weights is from_pretrained now"):
        module = SuperPoint.from_weights(max_keypoints=7)
    assert module.decoding == SuperPoint.from_pretrained(max_keypoints=7).decoding
