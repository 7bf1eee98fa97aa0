"""What is known before the first step is said before it; a run's folder takes no other settings."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import load_weights, save_weights
from train.__main__ import parse, run_stage
from train.data import images as images_module
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs, photograph
from train.data.photographs import look_at
from train.learning import checkpoint
from train.learning.validate import ValidationConfig, fixed_pairs
from train.runtime import distributed
from train.runtime.process import CPU_ENVIRONMENT
from train.settings import RunSettings
from train.stages.adapt import AdaptConfig, adapt, read_labels

ROOT = Path(__file__).parents[2]
SMALL = ["--recipe", "smoke", "--start", "superpoint", "--no-refinement"]
SMALL += ["--adapt.views", "2", "--adapt.images.shorter-side", "64", "--joint.loop.steps", "2"]


def make(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    for index, name in enumerate(names):
        piece = np.ascontiguousarray(whole[60 * index :, 50 * index :][:120, :160])
        (folder / name).write_bytes(cv2.imencode(".png", piece)[1].tobytes())


def train(*arguments: object, run_dir: Path, images: Path | None = None) -> int:
    given = [*map(str, arguments), "--run-dir", str(run_dir)]
    given += [] if images is None else ["--images", str(images)]
    return run_stage(*parse(given))


def refused(match: str, *arguments: object, run_dir: Path, images: Path | None = None) -> None:
    names = ("settings.json", "magicpoint.pt", "joint.pt", "superpoint.json", "report.html")
    paths = [run_dir / name for name in names]
    before = [path.read_bytes() if path.exists() else None for path in paths]
    with pytest.raises(ValueError, match=match):
        train(*arguments, run_dir=run_dir, images=images)
    assert [path.read_bytes() if path.exists() else None for path in paths] == before


# ---- before the first step ----


def test_a_mistake_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    photographs, run_dir = tmp_path / "photographs", tmp_path / "run"
    make(photographs, "a.png", "b.png")
    (tmp_path / "text").write_text("no folder", encoding="utf-8")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    colour = ["--adapt.images.colour", "--magicpoint.data.colour"]
    for says, images, arguments in (
        ("TYPO: there is no such folder; name the folder", "TYPO", []),
        ("text: a file, no folder", "text", []),
        ("there is no picture in this folder", "empty", []),
        ("damaged: none of the 1 pictures in it can be read", "damaged", []),
        ("photographs holds 2 photographs .* --held-out keeps 2", "photographs", ["--held-out", 2]),
        ("neither bundled nor a file", "photographs", ["--start", "TYPO"]),
        (
            "takes images of 1 channels, the run has 3",
            "photographs",
            ["--start", "superpoint", *colour],
        ),
        ("drawings holds 4 photographs", None, ["--held-out", 4]),
    ):
        folder = None if images is None else tmp_path / images
        refused(says, "--recipe", "smoke", *arguments, run_dir=run_dir, images=folder)
        assert not list(run_dir.glob("*.pt")), says
    odd = tmp_path / "r\udce9n"
    refused("TensorBoard writes to names in UTF-8 only", run_dir=odd, images=photographs)
    assert not odd.exists()
    for says, stage in (
        (r"magicpoint\.pt is missing, from which the stage joint starts", "joint"),
        (r"magicpoint\.pt is missing, from which the stage adapt starts", "adapt"),
        (r"joint\.pt is missing, from which the stage refine starts", "refine"),
        ("TYPO: there is no such folder", "magicpoint"),
    ):
        images = tmp_path / ("TYPO" if stage == "magicpoint" else "photographs")
        refused(says, stage, "--recipe", "smoke", run_dir=run_dir, images=images)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--held-out", "0"], "held_out must be at least 1, got 0"),
        (["--joint.data.size", "100", "120"], "size must be multiples of 8, got (100, 120)"),
        (["--adapt.images.longest-side", "40"], "at most longest_side, got 96 and 40"),
    ],
)
def test_numbers_that_cannot_be(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--recipe", "smoke", *arguments])
    said = capsys.readouterr().err.replace("│", " ") + str(caught.value)
    assert says in " ".join(said.split())


def test_a_batch_that_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "photographs", "a.png", "b.png")
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    refused(
        "batch_size 2 of joint must be a multiple of the number of processes, 3",
        *SMALL, run_dir=tmp_path / "run", images=tmp_path / "photographs",
    )  # fmt: skip


# ---- one run, and what may follow it ----

NAMES = ("a.png", "b[1].png", "c.png", os.fsdecode(b"caf\xe9.png"))

DAMAGED = os.fsdecode(b"damaged\xff.jpg")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small run over four photographs of odd names, among damaged ones and others."""
    root = tmp_path_factory.mktemp("finished")
    photographs, run_dir = root / "photographs", root / "photographs" / "run"
    make(photographs, *NAMES)
    (photographs / DAMAGED).write_bytes(b"\xff\xd8\xff")
    (photographs / "thumbs.jpg").mkdir()
    (photographs / "broken.png").symlink_to("nowhere")
    os.mkfifo(photographs / "pipe.png")
    assert train(*SMALL, run_dir=run_dir, images=photographs) == 3
    return photographs, run_dir


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of it."""
    photographs = tmp_path / "photographs"
    shutil.copytree(
        finished[0], photographs, symlinks=True, ignore=shutil.ignore_patterns("pipe.png")
    )
    return photographs, photographs / "run"


def test_what_cannot_be_read_is_left_out_named_and_counted(
    run: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    photographs, run_dir = run
    description = json.loads((run_dir / "superpoint.json").read_text(encoding="utf-8"))
    assert description["photographs"] == 3  # and one is held out
    assert description["left_out"] == {
        DAMAGED: "the file is cut short; copy it again",
        "broken.png": "a link to nowhere, which is not there",
        "pipe.png": "a pipe, not a file",
    }
    caplog.set_level(logging.WARNING)
    found = look_at(photographs, run_dir / "photographs.json", run_dir)
    assert sorted(found.contents) == sorted(NAMES)  # and no picture of the run
    assert "left out: " in caplog.text
    assert "2 of 6 pictures are left out" in caplog.text
    results = json.loads((run_dir / "evaluation" / "results.json").read_text(encoding="utf-8"))
    held_out = RunSettings.read(run_dir).held_out
    assert len(held_out) == 1
    pairs = results["results"]["superpoint"] if "results" in results else []
    assert all(pair["name"].startswith(held_out[0]) for pair in pairs)


def test_the_same_command_again_changes_nothing(run: tuple[Path, Path]) -> None:
    photographs, run_dir = run
    before = checkpoint.load(run_dir / "joint.pt")
    settings = (run_dir / "settings.json").read_bytes()
    # Where and how fast it runs may change.
    others = ["--threads", 1, "--joint.loop.report-steps", 7, "--joint.loop.checkpoint-minutes", 9]
    assert train("joint", *SMALL, *others, run_dir=run_dir, images=photographs) == 3
    after = checkpoint.load(run_dir / "joint.pt")
    assert after["step"] == before["step"] == 2
    assert torch.equal(after["random"], before["random"])
    assert (run_dir / "settings.json").read_bytes() == settings


@pytest.mark.parametrize("stage", ["all", "joint"])
def test_other_settings_are_refused_by_name(
    run: tuple[Path, Path], stage: str, tmp_path: Path
) -> None:
    photographs, run_dir = run
    other = tmp_path / "other.safetensors"
    net = load_weights("superpoint").net
    with torch.no_grad():
        next(net.parameters()).mul_(1.0001)
    save_weights(net, other)
    for says, arguments in (
        (r"the stage joint, .*\(seed was 0, is 1\)", ["--seed", 1]),
        ("loop.batch_size was 2, is 3", ["--joint.loop.batch-size", 3]),
        ("loop.steps was 2, is 1", ["--joint.loop.steps", 1]),
        (r"joint.data.size was \[64, 80\], is \[64, 88\]", ["--joint.data.size", 64, 88]),
        ("adapt.views was 2, is 3", ["--adapt.views", 3]),
        ("held_out was 1, is 2", ["--held-out", 2]),
        ("start was .*, is ", ["--start", str(other)]),
    ):
        refused(says, stage, *SMALL, *arguments, run_dir=run_dir, images=photographs)


@pytest.mark.parametrize("stage", ["all", "joint", "adapt", "export"])
def test_other_photographs_are_refused_by_name(run: tuple[Path, Path], stage: str) -> None:
    photographs, run_dir = run
    make(photographs, "new.png")
    says = r"other --images \(there were 4 photographs, now 5; added: new\.png"
    refused(says, stage, *SMALL, run_dir=run_dir, images=photographs)
    (photographs / "new.png").rename(photographs / "c.png")
    refused("now 4; replaced: c.png", stage, *SMALL, run_dir=run_dir, images=photographs)
    (photographs / "c.png").unlink()
    refused("now 3; missing: c.png", stage, *SMALL, run_dir=run_dir, images=photographs)
    if stage == "export":  # drawings in the place of the photographs
        refused("there were 4 photographs, now 4; missing", stage, *SMALL, run_dir=run_dir)


def test_a_longer_stage_goes_on_and_is_recorded(run: tuple[Path, Path]) -> None:
    photographs, run_dir = run
    longer = [*SMALL, "--joint.loop.steps", 3]
    assert train("joint", *longer, run_dir=run_dir, images=photographs) == 3
    assert checkpoint.load(run_dir / "joint.pt")["step"] == 3
    # What was trained is what is said, whatever is asked for now.
    assert train("export", *SMALL, "--seed", 5, run_dir=run_dir, images=photographs) == 3
    recipe = json.loads((run_dir / "superpoint.json").read_text(encoding="utf-8"))["recipe"]
    assert (recipe["joint"]["loop"]["steps"], recipe["seed"]) == (3, 0)
    assert recipe["adapt"]["views"] == 2


def test_a_stopped_stage_goes_on_without_photographs_that_are_lost(
    run: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    photographs, run_dir = run
    held_out = RunSettings.read(run_dir).held_out
    state = checkpoint.load(run_dir / "joint.pt")
    checkpoint.save_atomically({**state, "finished": False}, run_dir / "joint.pt")
    lost = next(name for name in NAMES if name not in held_out)
    (photographs / lost).write_bytes(b"")
    caplog.set_level(logging.WARNING)
    longer = [*SMALL, "--joint.loop.steps", 3]
    assert train("joint", *longer, run_dir=run_dir, images=photographs) == 3
    assert "there were 4 photographs, now 3; missing: " in caplog.text
    assert RunSettings.read(run_dir).held_out == held_out
    assert checkpoint.load(run_dir / "joint.pt")["step"] == 3


def test_weights_that_a_run_starts_from_are_not_written_over(run: tuple[Path, Path]) -> None:
    photographs, run_dir = run
    weights = run_dir / "superpoint.safetensors"
    before = weights.read_bytes()
    says = r"superpoint\.safetensors is an input and would be overwritten"
    for start in (["--start", weights], ["--teacher", weights]):
        with pytest.raises(ValueError, match=says):
            train("--recipe", "smoke", *start, run_dir=run_dir, images=photographs)
    assert weights.read_bytes() == before


def test_a_damaged_record_is_told(run: tuple[Path, Path]) -> None:
    photographs, run_dir = run
    for text in ("{", "[]", '{"other": 1}'):
        (run_dir / "settings.json").write_text(text, encoding="utf-8")
        refused(r"settings\.json is damaged", *SMALL, run_dir=run_dir, images=photographs)


def test_a_folder_without_a_record_is_taken(
    run: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier release began the run."""
    photographs, run_dir = run
    (run_dir / "settings.json").unlink()
    assert train("joint", *SMALL, run_dir=run_dir, images=photographs) == 3
    assert "does not say what it was trained with" in caplog.text
    refused("seed was 0, is 1", "joint", *SMALL, "--seed", 1, run_dir=run_dir, images=photographs)


def test_photographs_are_looked_at_again_only_if_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "photographs", "a.png", "b.png")
    seen = tmp_path / "seen.json"
    first = look_at(tmp_path / "photographs", seen, tmp_path / "run")
    monkeypatch.setattr("train.data.photographs.load_picture", None)
    again = look_at(tmp_path / "photographs", seen, tmp_path / "run")
    assert (again.contents, again.sha256) == (first.contents, first.sha256)
    monkeypatch.undo()
    make(tmp_path / "photographs", "b.png")
    assert look_at(tmp_path / "photographs", seen, tmp_path / "run").sha256 != first.sha256
    seen.write_text('{"a.png": 3}', encoding="utf-8")
    assert len(look_at(tmp_path / "photographs", seen, tmp_path / "run")) == 2


# ---- what becomes unreadable while the run goes on ----

SIZES = ImageConfig(shorter_side=96, longest_side=128)


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[LabelledImage]:
    monkeypatch.setattr(images_module, "_TOLD", set())
    make(tmp_path, "0.png", "1.png", "2.png")
    points = np.random.default_rng(0).uniform(0, 95, (30, 2)).astype(np.float32)
    return [LabelledImage(tmp_path / f"{index}.png", points) for index in range(3)]


def spoil(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_workers_take_the_next_photograph_and_say_so_once(
    labelled: list[LabelledImage], caplog: pytest.LogCaptureFixture
) -> None:
    pairs = WarpedPairs(0, labelled, SIZES, PairConfig(size=(64, 80)))
    before = [pairs[index]["image0"] for index in range(6)]
    spoil(labelled[1].path)
    after = [pairs[index]["image0"] for index in range(6)]
    for index in range(6):
        is_same = torch.equal(before[index], after[index])
        assert is_same == (photograph(0, index, 3) != 1)
    assert caplog.text.count("1.png: the file is cut short") == 1
    for each in labelled:
        each.path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="none of the 3 photographs can be read any more"):
        pairs[0]


def test_pairs_on_the_device_go_on_without_it(labelled: list[LabelledImage]) -> None:
    spoil(labelled[0].path)
    pairs = DevicePairs(0, labelled, SIZES, PairConfig(size=(64, 80)), "cpu")
    assert pairs.photographs == len(pairs.photos) == 2
    assert pairs.batch(0, 3)["image0"].shape == (3, 1, 64, 80)
    for each in labelled:
        each.path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="none of the 3 photographs"):
        DevicePairs(0, labelled, SIZES, PairConfig(size=(64, 80)), "cpu")


def test_labelling_goes_on_without_it(
    labelled: list[LabelledImage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [each.path for each in labelled]
    paths[2].unlink()
    spoil(paths[0])
    config = AdaptConfig(images=SIZES, views=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SuperPointNet().eval()
    folder = adapt(NetworkWeights.of(net), paths, tmp_path / "run", config, 0)
    assert [each.path for each in read_labels(folder, paths, config)] == [paths[1]]
    assert "0.png: the file is cut short" in caplog.text
    assert "2.png: there is no such file" in caplog.text


def test_validation_takes_what_can_be_read(labelled: list[LabelledImage]) -> None:
    paths = [each.path for each in labelled]
    paths[0].unlink()
    assert len(fixed_pairs(paths, SIZES, ValidationConfig(pairs=2))) == 2
    paths[1].unlink()
    paths[2].unlink()
    with pytest.raises(ValueError, match="none of the 3 photographs that are held out"):
        fixed_pairs(paths, SIZES, ValidationConfig(pairs=2))


# ---- as a process ----


def test_the_command_tells_it_in_one_line_and_by_its_status(tmp_path: Path) -> None:
    # With its settings the command need not start itself again.
    environment = {**os.environ, **CPU_ENVIRONMENT}
    reading, writing = os.pipe()
    os.close(reading)
    told = []
    for arguments in (["--images", str(tmp_path / "TYPO")], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "train", *arguments, "--run-dir", str(tmp_path / "run")],
            cwd=ROOT, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        told.append((done.returncode, done.stderr.splitlines()[-1:]))
    os.close(writing)
    assert told[0][0] == 1
    assert told[0][1][0].startswith(f"python -m train: {tmp_path}/TYPO: there is no such folder")
    assert told[1] == (0, [])  # though the reader of the help has gone
