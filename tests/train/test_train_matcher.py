"""``python -m train matcher``, from photographs to a matcher that runs."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher


def train(run_dir: Path, images: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "train", "matcher", "--images", str(images), "--run-dir",
        str(run_dir), "--weights", "superpoint-lite", "--threads", "1",
        "--training.features.scenes", "4", "--training.features.scene.views", "2",
        "--training.held-out", "2", "--training.validation", "2",
        "--training.pairs.keypoints", "64", "--training.width", "16", "--training.layers", "1",
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

    matcher = LightGlueMatcher.create(run_dir / "matcher.safetensors", 0.0)
    assert matcher.loaded.weights == "superpoint-lite"
    detector = SuperPointFeature2D.create(100, weights="superpoint-lite", **PINNED)
    features = detector.extract(cv2.imread(str(images / "camera.png"), 0))
    rows, scores = matcher(features, features)
    assert len(rows) == len(scores)
    assert (rows < len(features)).all()
    assert np.isfinite(scores).all()
