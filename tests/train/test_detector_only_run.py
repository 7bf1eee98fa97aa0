"""A run that trains a detector without descriptors, and what goes on from such a one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.weights import load_weights
from cv_superpoint.weights.saving import write_weights
from train.__main__ import main, parse, run_stage
from train.export import folded_weights
from train.learning import checkpoint
from train.learning.model import from_folded
from train.recipes import magicpoint
from train.run import Run
from train.stages.magicpoint import best_threshold

FEW = ["--recipe", "smoke", "--magicpoint.loop.steps", "3", "--magicpoint.loop.workers", "0"]
FEW += ["--magicpoint.validation-images", "2", "--magicpoint.loop.precision", "float32"]
WITHOUT = ["--network.descriptor-dim", "0"]


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for name in ("coins", "camera"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(data, name)()[:240, :320])
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of three steps without descriptors."""
    folder = tmp_path_factory.mktemp("detector")
    images = photographs(folder / "photographs")
    arguments = [*FEW, *WITHOUT, "--run-dir", str(folder / "run"), "--images", str(images)]
    known, config = parse(arguments)
    assert run_stage(known, config) == 0
    return folder / "run"


def test_all_ends_with_the_detector(run_dir: Path) -> None:
    assert [path.name for path in run_dir.glob("*.pt")] == ["magicpoint.pt"]
    state = checkpoint.load(run_dir / "magicpoint.pt")
    assert not [name for name in state["network"] if "descriptor" in name]
    loaded = load_weights(run_dir / "magicpoint.safetensors")
    assert loaded.config.descriptor_dim == 0
    assert loaded.ranges is not None
    description = json.loads((run_dir / "magicpoint.json").read_text(encoding="utf-8"))
    assert description["stage"] == "magicpoint"
    assert loaded.score_threshold == description["score_threshold"]
    results = json.loads((run_dir / "evaluation" / "results.json").read_text(encoding="utf-8"))
    assert set(results["detectors"]) == {"superpoint", "harris"}
    detector = SuperPointFeature2D.create(
        weights=run_dir / "magicpoint.safetensors", precision="int8", backend="onnxruntime"
    )
    assert len(detector.detect(data.camera())) > 0


def test_the_threshold_is_the_one_of_the_best_balance_on_drawings() -> None:
    """The bundled set recommends what is found again on the same drawings (float32)."""
    weights = load_weights("magicpoint")
    network = from_folded(weights.net).eval()
    found = best_threshold(network, 0, magicpoint().magicpoint.data)
    assert found == pytest.approx(weights.score_threshold, abs=0.01)


def test_a_head_that_was_not_trained_is_not_written(tmp_path: Path) -> None:
    """The stage magicpoint of a network with descriptors, as the recipes have it."""
    images = photographs(tmp_path / "photographs")
    arguments = [*FEW, "--run-dir", str(tmp_path / "run"), "--images", str(images)]
    known, config = parse(["magicpoint", *arguments])
    run_stage(known, config)
    known, config = parse(["export", *arguments])
    run_stage(known, config)
    loaded = load_weights(tmp_path / "run" / "magicpoint.safetensors")
    whole = folded_weights(tmp_path / "run" / "magicpoint.pt")
    assert (whole.config.descriptor_dim, loaded.config.descriptor_dim) == (256, 0)
    image = torch.from_numpy(data.coins()[None, None, :128, :160].copy()) / 255
    with torch.inference_mode():
        torch.testing.assert_close(loaded.net(image)[0], whole.net(image)[0])


@pytest.mark.parametrize("norm", ["none", "before_relu"])
def test_training_goes_on_with_a_new_head(norm: str, tmp_path: Path) -> None:
    """A step at a rate of 0 keeps the detector that it started from (float32)."""
    start = tmp_path / "corners.safetensors"
    lite = load_weights("superpoint-lite")
    write_weights(lite.without_descriptors, start, score_threshold=0.3, score_radius=2)
    images = photographs(tmp_path / "photographs")
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path / "run"), "--images", str(images)]
    arguments += ["--start", str(start), "--network.descriptor-dim", "32", "--joint.norm", norm]
    arguments += ["--joint.loop.steps", "1", "--joint.loop.learning-rate", "0"]
    arguments += ["--joint.loop.precision", "float32"]
    known, config = parse(arguments)
    run = Run(config, known.run_dir, known.images, known.start)
    run.adapt()
    run.joint()
    learned = folded_weights(tmp_path / "run" / "joint.pt")
    assert learned.config.descriptor_dim == 32
    image = torch.from_numpy(data.coins()[None, None, :128, :160].copy()) / 255
    with torch.inference_mode():
        logits, dense = learned.net(image)
        before = lite.net(image)[0]
    assert dense.shape == (1, 32, 16, 20)
    assert dense.std() > 0
    assert np.corrcoef(logits.flatten(), before.flatten())[0, 1] > (
        0.95 if norm != "none" else 1 - 1e-6
    )


def test_it_teaches_no_descriptors(run_dir: Path, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs")
    arguments = ["--recipe", "lite", "--run-dir", str(tmp_path / "run"), "--images", str(images)]
    arguments += ["--joint.distillation.descriptor", "0.5", "--held-out", "1"]
    arguments += ["--joint.distillation.teacher", str(run_dir / "magicpoint.safetensors")]
    known, config = parse(arguments)
    with pytest.raises(FeatureError, match="find keypoints only"):
        run_stage(known, config)


def test_all_of_the_time_is_magicpoint_s() -> None:
    _, config = parse([*FEW, *WITHOUT, "--minutes", "30"])
    assert (config.magicpoint.loop.minutes, config.magicpoint.loop.steps) == (30, 0)


@pytest.mark.parametrize("stage", ["all", "adapt", "joint", "refine"])
def test_photographs_train_no_network_without_descriptors(
    stage: str, run_dir: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.__main__.restart_with_settings", lambda: None)
    start = run_dir / "magicpoint.safetensors"
    options = [*FEW, *WITHOUT, "--run-dir", str(tmp_path)]
    options += ["--start", str(start)] if stage == "all" else []
    with pytest.raises(SystemExit) as stop:
        main([stage, *options])
    said = str(stop.value)
    what = str(start) if stage == "all" else "this network"
    assert f"{what} has no descriptors, and photographs train some: set --network" in said
    assert not list(tmp_path.glob("*.pt"))
