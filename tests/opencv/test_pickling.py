"""Copies and pickles of a detector find what it finds, in other processes too."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import Features, SuperPointFeature2D, WeightsError
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.opencv import pickling
from cv_superpoint.weights import save_weights

PHOTOGRAPH = skimage.data.camera()[100:220, 150:310]
ROOT = Path(__file__).parents[2]


def same(one: Features, other: Features, atol: float = 0) -> bool:
    return all(
        getattr(one, field).shape == getattr(other, field).shape
        and np.allclose(getattr(one, field), getattr(other, field), rtol=0, atol=atol)
        for field in ("keypoints", "scores", "descriptors")
    )


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = SuperPointNet(NetworkConfig(channels=(8, 8, 16, 16), head_channels=16, descriptor_dim=32))
    path = tmp_path / "small.safetensors"
    save_weights(net.eval(), path, score_threshold=0.0158)
    return path


OPTIONS: list[dict[str, Any]] = [
    {"scoreThreshold": 1e-3},
    {"maxKeypoints": 7, "scoreThreshold": 1e-3, "nmsRadius": 2, "borderMargin": 0},
    {
        "subpixel": False,
        "scales": (1.0, 0.5),
        "threads": 2,
        "scoreRadius": 0,
        "scoreThreshold": 1e-3,
    },
    {"backend": "openvino", "threads": 2, "scoreThreshold": 1e-3},
    {"backend": "onnxruntime", "scoreThreshold": 1e-3},
    {"backend": "torch", "scoreThreshold": 1e-3},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("own", [False, True])
def test_copies_and_pickles_find_the_same(
    own: bool, options: dict[str, Any], small_weights: Path
) -> None:
    weights = small_weights if own else None
    detector = SuperPointFeature2D.create(**{**PINNED, **options}, weights=weights)
    detector.setNmsRadius(3)  # what was set later counts too
    expected = detector.extract(PHOTOGRAPH)
    assert len(expected) > 5
    stored = pickle.dumps(detector)
    assert len(stored) < (300_000 if own else 2000)
    small_weights.unlink()  # a pickle holds weights that not every installation has
    for other in (copy.copy(detector), copy.deepcopy(detector), pickle.loads(stored)):
        assert same(other.extract(PHOTOGRAPH), expected)
        assert other.info() == detector.info()
        assert repr(other) == repr(detector)
        other.setMaxKeypoints(3)
        assert len(other.extract(PHOTOGRAPH)) == 3
    assert same(detector.extract(PHOTOGRAPH), expected)


def test_a_subclass_and_what_was_added_travel_along() -> None:
    detector = SuperPointFeature2D.create(20, device="cpu")
    detector.cameras = ["left"]  # type: ignore[attr-defined]
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert other.cameras == ["left"]
        other.cameras.append("right")
    assert detector.cameras == ["left"]  # type: ignore[attr-defined]


def test_a_network_is_made_once_for_equal_pickles_and_few_are_kept(small_weights: Path) -> None:
    stored = pickle.dumps(SuperPointFeature2D.create(20, device="cpu", weights=small_weights))
    first, second = pickle.loads(stored), pickle.loads(stored)
    assert first.detector.backend is second.detector.backend
    for threads in (1, 2, 3):
        pickle.loads(pickle.dumps(SuperPointFeature2D.create(device="cpu", threads=threads)))
    assert len(pickling._kept) == 2


def test_a_pickle_of_another_release_s_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = pickle.dumps(SuperPointFeature2D.create(device="cpu"))
    sha256 = SuperPointFeature2D.create(device="cpu")._weights.sha256.encode()
    with pytest.raises(WeightsError, match="install the same release"):
        pickle.loads(stored.replace(sha256, b"0" * 64))


def test_detectors_go_to_spawned_processes(tmp_path: Path) -> None:
    script = """
import multiprocessing, sys
import numpy as np, skimage.data
from cv_superpoint import SuperPointFeature2D
if __name__ == "__main__":
    photograph = skimage.data.camera()[100:, 150:]
    images = [photograph[40 * k : 40 * k + 120, :160] for k in range(4)]
    options = {"device": "cpu", "precision": "float32", "threads": 1}
    detector = SuperPointFeature2D.create(30, 1e-3, scales=(1, 0.5), **options)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(detector.extract, images, chunksize=1)
        for one, image in zip(found, images, strict=True):
            np.testing.assert_array_equal(one.descriptors, detector.extract(image).descriptors)
        print([len(one) for one in found])
"""
    (tmp_path / "main.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[30, 30, 30, 30]\n"
