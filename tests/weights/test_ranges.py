"""Ranges for 8 bits: found, kept in files, and refused where they do not belong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from pinned import PINNED
from tiny import CONFIG

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.cli import main
from cv_superpoint.network.arrays import run_layers
from cv_superpoint.network.quantisation import MapRange, rounded_maps
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.weights import (
    LoadedWeights,
    WeightsError,
    available_weights,
    find_ranges,
    load_weights,
    save_weights,
)
from cv_superpoint.weights.files import write_file
from cv_superpoint.weights.ranges import SHARE, Histogram, write_ranges
from cv_superpoint.weights.saving import save_again

IMAGES = [skimage.data.camera()[y : y + 64, 200:296, None].copy() for y in (40, 200)]


@pytest.fixture
def file(net: SuperPointNet, tmp_path: Path) -> Path:
    save_weights(net, tmp_path / "net.safetensors", score_threshold=0.02, score_radius=1)
    return tmp_path / "net.safetensors"


@pytest.fixture
def weights(file: Path) -> LoadedWeights:
    return load_weights(file)


def test_a_range_holds_nearly_all_values() -> None:
    rng = np.random.default_rng(5)
    for shift in (0.0, 3.0):
        values = (rng.normal(size=(300, 1000)) - shift).astype(np.float32)
        seen = Histogram()
        for part in np.split(values, 3):
            seen.add(part)
        found = seen.range(0.999)
        for end, share in ((found.high, 0.999), (found.low, 0.001)):
            assert end == pytest.approx(np.quantile(values, share), rel=0.03, abs=1e-6)
    seen = Histogram()
    seen.add(np.zeros(9, np.float32))
    assert seen.range().low == 0
    assert 0 < seen.range().high < 1e-3


def test_maps_of_photographs_lie_in_the_ranges(weights: LoadedWeights) -> None:
    ranges = find_ranges(weights, IMAGES, "two parts of a photograph")
    assert set(ranges.maps) == set(rounded_maps(CONFIG))
    values: dict[str, list[np.ndarray]] = {name: [] for name in ranges.maps}

    def look(name: str, result: np.ndarray) -> np.ndarray:
        values.get(name, []).append(result.ravel())
        return result

    for image in IMAGES:
        run_layers(weights, image, look)
    for name, one in ranges.maps.items():
        found = np.concatenate(values[name])
        assert one.low == 0
        assert (found <= 1.001 * one.high).mean() >= SHARE
        assert one.high <= max(1.01 * found.max(), 1e-6)
    with pytest.raises(WeightsError, match="pass some"):
        find_ranges(weights, [])


def test_a_file_keeps_them(weights: LoadedWeights, tmp_path: Path) -> None:
    ranges = find_ranges(weights, IMAGES)
    save_again(weights, tmp_path / "ranged.safetensors", ranges=ranges, precisions=("int8",))
    again = load_weights(tmp_path / "ranged.safetensors")
    assert again.ranges == ranges
    assert again.precisions == ("int8",)
    assert (again.score_threshold, again.score_radius) == (0.02, 1)
    assert again.tensor_digest == weights.tensor_digest
    # Converted, exported again: they are the network's, whatever file it lies in.
    assert main(["convert", str(again.path), str(tmp_path / "b.safetensors")]) == 0
    assert load_weights(tmp_path / "b.safetensors").ranges == ranges
    save_weights(weights.net, tmp_path / "c.safetensors", ranges=ranges)
    assert load_weights(tmp_path / "c.safetensors").ranges == ranges


def test_a_file_without_them_runs_as_ever_and_not_in_8_bits(file: Path) -> None:
    features = SuperPointFeature2D.create(weights=file, **PINNED).extract(IMAGES[0])
    assert features.image_size == (64, 96)
    for backend in ("auto", "openvino", "onnxruntime"):
        ask = {**PINNED, "backend": backend, "precision": "int8"}
        with pytest.raises(ValueError, match=r"cv-superpoint calibrate|neither VNNI nor AMX"):
            SuperPointFeature2D.create(weights=file, **ask)


def replaced(record: dict[str, Any], low: Any, high: Any) -> dict[str, Any]:
    return {**record, "maps": {**record["maps"], "encoder.3": [low, high]}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: replaced(r, 0, math.nan), "from at most 0 to more than 0"),
        (lambda r: replaced(r, 0, math.inf), "from at most 0 to more than 0"),
        (lambda r: replaced(r, -math.inf, 1), "from at most 0 to more than 0"),
        (lambda r: replaced(r, 0, 0), "from at most 0 to more than 0"),
        (lambda r: replaced(r, 1, 2), "from at most 0 to more than 0"),
        (lambda r: replaced(r, 0, 1e30), "from at most 0 to more than 0"),
        (lambda r: replaced(r, "a", "b"), "lowest and highest value of each"),
        (lambda r: {**r, "maps": {}}, "the difference: descriptor_hidden, detector_hidden"),
        (lambda r: {**r, "maps": {**r["maps"], "x": [0, 1]}}, "the difference: x"),
        (lambda r: {**r, "maps": [1]}, "lowest and highest value of each"),
        (lambda r: {**r, "tensors": "0" * 64}, "found with other weights"),
        (lambda r: {"maps": r["maps"]}, "lowest and highest value of each"),
        (lambda r: None, "lowest and highest value of each"),
        (lambda r: 7, "lowest and highest value of each"),
    ],
)
def test_what_cannot_be_their_ranges_is_refused(
    damage: Any, message: str, weights: LoadedWeights, tmp_path: Path
) -> None:
    record = write_ranges(find_ranges(weights, IMAGES))
    path = tmp_path / "damaged.safetensors"
    write_file(path, weights.tensors, {"ranges": damage(record)})
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "cv-superpoint calibrate" in str(caught.value)


def test_what_is_listed_for_int8_has_ranges(weights: LoadedWeights, tmp_path: Path) -> None:
    path = tmp_path / "listed.safetensors"
    write_file(path, weights.tensors, {"precisions": ["float32", "int8"]})
    with pytest.raises(WeightsError, match="listed for precision 'int8' without ranges"):
        load_weights(path)
    others = find_ranges(weights, IMAGES)
    wrong = replace(others, maps={**others.maps, "encoder.1": MapRange(low=0, high=-1)})
    with pytest.raises(WeightsError, match="calibrate"):
        save_weights(weights.net, path, ranges=wrong)


@pytest.mark.parametrize("name", available_weights())
def test_bundled_sets_have_ranges(name: str) -> None:
    loaded = load_weights(name)
    assert loaded.ranges is not None
    assert loaded.ranges.tensors == loaded.tensor_digest


def test_calibrate_writes_a_file_and_tells_what_int8_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    for index, name in enumerate(("camera", "coins", "moon")):
        cv2.imwrite(str(tmp_path / f"{index}.png"), getattr(skimage.data, name)()[:256, :340])
    target = tmp_path / "mine.safetensors"
    command = ["calibrate", "superpoint-lite", str(tmp_path), "-o", str(target), "--json"]
    assert main([*command, "--pairs", "0", "--count", "2"]) == 0
    record = json.loads(capsys.readouterr().out)
    loaded, source = load_weights(target), load_weights("superpoint-lite")
    assert loaded.ranges is not None
    assert loaded.ranges != source.ranges
    assert record["ranges"] == write_ranges(loaded.ranges)
    assert loaded.ranges.photographs.startswith("2 of ")
    assert loaded.score_threshold == source.score_threshold
    assert "int8" not in loaded.precisions
    assert main([*command[:-1], "--pairs", "3"]) == 0
    told = capsys.readouterr()
    if CPU_INT8 in instructions():
        assert "| keeps the accuracy" in told.out
        assert "too few pairs to decide" in told.out
    else:
        assert "int8 is not measured" in told.err
    assert "int8" not in load_weights(target).precisions
    assert main(["calibrate", "superpoint-lite", str(tmp_path / "none"), "-o", str(target)]) == 1
    assert "is not a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["calibrate", "superpoint-lite", str(tmp_path)])
    assert "-o out.safetensors" in capsys.readouterr().err
