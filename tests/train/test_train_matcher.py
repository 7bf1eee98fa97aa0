"""``python -m train matcher``, from photographs to a matcher that runs."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.matching.lightglue.files import load_matcher, save_matcher
from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher
from cv_superpoint.weights import load_weights
from train.data.feature_pairs import FeaturesConfig, MatchPairConfig
from train.data.scenes import SceneConfig
from train.stages.matcher import THRESHOLDS, MatcherTask, MatcherTrainingConfig


def train(run_dir: Path, images: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "train", "matcher", "--images", str(images), "--run-dir",
        str(run_dir), "--weights", "superpoint-lite", "--threads", "1",
        "--training.features.scenes", "4", "--training.features.scene.views", "2",
        "--training.held-out", "2", "--training.validation", "2",
        "--training.pairs.keypoints", "64", "--training.pairs.fewest", "32",
        "--training.width", "16", "--training.layers", "1",
        "--training.loop.batch-size", "2", "--training.loop.workers", "0", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_ends_with_a_matcher_and_no_other_settings_mix_in(tmp_path: Path) -> None:
    images = tmp_path / "photographs"
    images.mkdir()
    for name in ("camera", "coffee", "chelsea"):
        photo = getattr(skimage.data, name)()
        cv2.imwrite(str(images / f"{name}.png"), cv2.resize(photo, (480, 320)))
    run_dir = tmp_path / "run"
    first = train(run_dir, images, "--training.loop.steps", "2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(run_dir / "matcher.safetensors")
    assert "matcher validation at step 2" in first.stderr
    other = train(run_dir, images, "--training.loop.steps", "2", "--training.layers", "2")
    assert other.returncode != 0
    assert "training.layers was 1, is 2" in other.stderr

    loaded = load_matcher(run_dir / "matcher.safetensors")
    assert loaded.threshold in THRESHOLDS
    assert loaded.fitted_to == load_weights("superpoint-lite").tensor_digest
    matcher = LightGlueMatcher.create(run_dir / "matcher.safetensors", 0.0)
    assert matcher.loaded.weights == "superpoint-lite"
    detector = SuperPointFeature2D.create(100, weights="superpoint-lite", **PINNED)
    features = detector.extract(cv2.imread(str(images / "camera.png"), 0))
    rows, scores = matcher(features, features)
    assert len(rows) == len(scores)
    assert (rows < len(features)).all()
    assert np.isfinite(scores).all()


def test_a_training_starts_with_another_matcher(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = {f"matches0-1-{side}": np.arange(40, dtype=np.int16) for side in "01"}
    for number in range(4):
        rows = rng.normal(size=(40, 32)).astype(np.float16)
        points = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
        views = {f"points{k}": points for k in range(2)} | {
            f"descriptors{k}": rows for k in range(2)
        }
        np.savez(tmp_path / f"{number}.npz", **views, **pairs)
    files = [tmp_path / f"{number}.npz" for number in range(4)]
    config = MatcherTrainingConfig(
        width=16,
        layers=1,
        held_out=2,
        features=FeaturesConfig(scenes=4, scene=SceneConfig(views=2)),
        pairs=MatchPairConfig(keypoints=32, fewest=16),
    )
    first = MatcherTask(config, files).network.net
    # The first layer keeps the descriptors' principal components.
    torch.testing.assert_close(
        first.project.weight @ first.project.weight.T, 16 * torch.eye(16), rtol=0, atol=1e-3
    )
    with torch.no_grad():
        for value in first.parameters():
            value.add_(1.0)
    path = tmp_path / "first.safetensors"
    save_matcher(path, first.state_dict(), first.config, weights="another")
    second = MatcherTask(config, files, load_matcher(path)).network.net
    for name, value in second.state_dict().items():
        torch.testing.assert_close(value, first.state_dict()[name], rtol=0, atol=0)
    with pytest.raises(ValueError, match="give the same width, layers and heads"):
        MatcherTask(replace(config, layers=2), files, load_matcher(path))
