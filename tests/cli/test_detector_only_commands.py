"""Commands with weights without descriptors: those that need some refuse in one line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.backends import choose, make_backend
from cv_superpoint.cli import main
from cv_superpoint.evaluation.detectors import build_detector
from cv_superpoint.evaluation.paired import DETECTION, compare
from cv_superpoint.evaluation.predictions import detect
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.scenes import pair_line
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.export import export_onnx
from cv_superpoint.viewer.networks import load_networks
from cv_superpoint.weights import load_weights
from cv_superpoint.weights.saving import write_weights
from train.__main__ import main as train

REFUSAL = "error: weights 'corners.safetensors' find keypoints only, they have no descriptors; "
PLAIN = ["--precision", "float32", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights without descriptors, two pictures in a folder, and a film."""
    folder = tmp_path_factory.mktemp("corners")
    lite = load_weights("superpoint-lite")
    found = {"score_threshold": lite.score_threshold, "score_radius": lite.score_radius}
    write_weights(lite.without_descriptors, folder / "corners.safetensors", **found)
    (folder / "photographs").mkdir()
    for name in ("camera", "coins"):
        picture = getattr(skimage.data, name)()[:240, :320]
        cv2.imwrite(str(folder / "photographs" / f"{name}.png"), picture)
    film = cv2.VideoWriter(
        str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (320, 240)
    )
    for _ in range(3):
        film.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
    film.release()
    return folder


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("error:", "warning:"))]


@pytest.mark.parametrize(
    "arguments",
    [
        "match photographs/camera.png photographs/coins.png",
        "match photographs/camera.png photographs/coins.png --matcher lightglue",
        "track film.avi",
        "stitch photographs",
        "extract photographs",
        "export x.onnx --layout disk",
        "train compact --images photographs",
        "train matcher --images photographs --run-dir runs",
    ],
)
def test_what_needs_descriptors_is_refused_in_one_line(
    arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    name, *words = arguments.split()
    run = train if name == "train" else main
    # Training restarts itself with settings of the memory, but for where it has them.
    monkeypatch.setattr("train.matcher.restart_with_settings", lambda: None)
    assert (
        run([*([] if name == "train" else [name]), *words, "--weights", "corners.safetensors"]) == 1
    )
    (line,) = lines(capfd.readouterr().err)
    assert line == f"{REFUSAL}call detect(), or take other weights, such as the default ones"
    made = {path.name for path in set(folder.rglob("*")) - set(before)}
    assert made <= {"runs"}


@pytest.mark.parametrize("source", ["corners.safetensors", "superpoint-lite"])
def test_a_layout_takes_the_network_that_it_is_for(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    assert main(["convert", source, "theirs.pth", "--to", "magic-leap"]) == 1
    (line,) = lines(capfd.readouterr().err)
    assert f"{source} has others; convert to cv_superpoint" in line
    assert main(["convert", source, "ours.safetensors"]) == 0
    loaded = load_weights("ours.safetensors")
    assert loaded.tensor_digest == load_weights(source).tensor_digest


@pytest.mark.parametrize("protocol", ["limits", "verdict", "pose"])
def test_protocols_that_match_refuse(
    protocol: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    names = ["photographs/camera.png", "photographs/coins.png"]
    moved = np.eye(4)
    moved[0, 3] = 1
    line = pair_line(names, (np.eye(3), np.eye(3)), moved)
    (folder / "pairs.txt").write_text(line)
    arguments = ["evaluate", "--data", ".", "--protocol", protocol, "--detectors", "superpoint"]
    assert main([*arguments, "--weights", "corners.safetensors"]) == 1
    (line,) = lines(capfd.readouterr().err)
    assert line.startswith("error: superpoint with weights corners.safetensors has no descriptors")


def test_the_viewer_refuses(folder: Path) -> None:
    with pytest.raises(FeatureError, match="find keypoints only"):
        load_networks(str(folder / "corners.safetensors"), "cpu")


def test_keypoints_are_found_and_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    options = ["--weights", "corners.safetensors", *PLAIN]
    assert main(["detect", "photographs/camera.png", "-o", "out", *options, "--json"]) == 0
    (record,) = json.loads(capfd.readouterr().out)["images"]
    with (folder / "out/camera.png.csv").open() as file:
        table = [tuple(map(float, row.values())) for row in csv.DictReader(file)]
    picture = skimage.data.camera()[:240, :320].copy()
    detector = SuperPointFeature2D.create(1000, weights="corners.safetensors", **PINNED)
    expected = [(*k.pt, k.response, k.size) for k in detector.detect(picture)]
    assert record["keypoints"] == len(expected) > 80
    np.testing.assert_allclose(table, expected, rtol=1e-6)
    with np.load(folder / "out/camera.png.npz") as stored:
        assert stored["descriptors"].shape == (len(expected), 0)
    monkeypatch.setattr("cv_superpoint.cli.doctor.SECONDS", 0.0)
    assert main(["doctor", *options]) == 0
    assert "corners.safetensors (" in (said := capfd.readouterr().out)
    assert ", keypoints only, " in said


def test_repeatability_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["evaluate", "--data", "photographs", "--protocol", "warp", "--resamples", "0"]
    options = ["--pairs-per-image", "1", "--weights", "corners.safetensors"]
    named = "superpoint(precision='float32',threads=1),cv2:FastFeatureDetector_create,harris"
    assert main([*arguments, *options, "--detectors", named, "--matchers", "mutual,ratio"]) == 1
    assert "ratio: takes the features of none of the detectors" in capfd.readouterr().err
    assert main([*arguments, *options, "--detectors", named]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len(cells) == 3
    for name, count, repeatability, _, *matched in cells:
        assert float(count) > 50, name
        assert float(repeatability) > 0.3
        assert set(matched) == {"–"}
    found = detect(
        build_detector("cv2:FastFeatureDetector_create", quota=9), np.eye(64, dtype=np.uint8) * 255
    )
    assert not found.described


def test_precisions_are_compared_by_their_keypoints(folder: Path) -> None:
    weights = load_weights(folder / "corners.safetensors")
    pairs = WarpedPhotographs(root=folder / "photographs", config=WarpConfig(pairs_per_image=1))
    candidates = {
        name: make_backend(
            weights, choose(backend="torch", device="cpu", precision=name), threads=1
        )
        for name in ("float32", "bfloat16")
    }
    found = compare(pairs, PROTOCOLS["warp"], weights, candidates)["bfloat16"]
    assert tuple(found.values) == tuple(found.differences) == DETECTION
    assert found.shared[1.0] > 0.9
    assert "cosine" not in found.record()


@pytest.mark.parametrize("layout", ["heads", "full"])
def test_the_exported_graph_has_no_descriptors(layout: Any, folder: Path, tmp_path: Path) -> None:
    weights = folder / "corners.safetensors"
    path = export_onnx(weights, tmp_path / "x.onnx", layout, size=(240, 320), max_keypoints=400)
    session = onnxruntime.InferenceSession(os.fspath(path))
    names = [one.name for one in session.get_outputs()]
    picture = skimage.data.camera()[:240, :320].copy()
    outputs = session.run(None, {"image": picture[None, None].astype(np.float32) / 255})
    network = cv2.dnn.readNetFromONNX(os.fspath(path))
    network.setInput(picture[None, None].astype(np.float32) / 255)
    with_cv2 = network.forward(names)
    if layout == "heads":
        assert names == ["logits"]
        assert outputs[0].shape == (1, 65, 30, 40)
        np.testing.assert_allclose(with_cv2[0], outputs[0], atol=1e-3)
        return
    assert names == ["keypoints", "scores"]
    detector = SuperPointFeature2D.create(400, weights=weights, **PINNED)
    expected = np.array([one.pt for one in detector.detect(picture)])
    assert (outputs[1] > 0).sum() == len(expected) > 80
    for keypoints in (outputs[0], with_cv2[0].reshape(outputs[0].shape)):
        np.testing.assert_allclose(keypoints[0, : len(expected)], expected, atol=0.01)
