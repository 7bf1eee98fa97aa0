"""A run in 8 bits is named, goes on in 8 bits, and is not mixed with others."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import pytest
import skimage.data

from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.extract import ExtractConfig, ExtractError, extract_folder
from cv_superpoint.extract.plan import RECORD
from cv_superpoint.extract.store import ATTRIBUTE
from cv_superpoint.weights import load_weights
from cv_superpoint.weights.saving import save_again

pytestmark = pytest.mark.skipif(
    CPU_INT8 not in instructions(), reason=f"needs a CPU with {CPU_INT8}"
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("camera", "coins"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(skimage.data, name)()[:96, :128])
    return folder


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    """Options for weights that precision "auto" may take in 8 bits."""
    path = tmp_path / "listed.safetensors"
    save_again(load_weights("superpoint-lite"), path, precisions=("float32", "int8"))
    return ExtractConfig(
        max_keypoints=30, threshold=0.0, weights=str(path), device="cpu", threads=1, half=False
    )


def settings(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        found: dict[str, object] = json.loads(file.attrs[ATTRIBUTE])["options"]
        return found


def extract(images: Path, output: Path, config: ExtractConfig, **change: object) -> int:
    from dataclasses import replace

    return extract_folder(images, output, replace(config, **change), readers=0).resumed


def test_auto_records_8_bits_and_goes_on_in_them(
    images: Path, config: ExtractConfig, tmp_path: Path
) -> None:
    output = tmp_path / "features.h5"
    assert extract(images, output, config) == 0
    assert settings(output)["precision"] == "int8"
    assert extract(images, output, config) == 2
    assert extract(images, output, config, precision="int8") == 2
    with pytest.raises(ExtractError, match="precision was int8, is not set"):
        extract(images, output, config, precision="float32")


def test_what_was_begun_without_goes_on_without(
    images: Path, config: ExtractConfig, tmp_path: Path
) -> None:
    """The record is that of an earlier release, or of a machine without the instructions."""
    exact, mixed = tmp_path / "exact.h5", tmp_path / "mixed.h5"
    assert extract(images, exact, config, precision="float32") == 0
    assert "precision" not in settings(exact)
    (images / "coins.png").rename(tmp_path / "coins.png")
    assert extract(images, mixed, config, precision="float32") == 0
    (tmp_path / "coins.png").rename(images / "coins.png")
    assert extract(images, mixed, config) == 1
    with h5py.File(exact) as one, h5py.File(mixed) as two:
        for name in ("camera.png", "coins.png"):
            assert (one[name]["keypoints"][:] == two[name]["keypoints"][:]).all()
    with pytest.raises(ExtractError, match="precision was not set, is int8"):
        extract(images, mixed, config, precision="int8")


def test_shards_of_a_stopped_run_tell_it_too(
    images: Path, config: ExtractConfig, tmp_path: Path
) -> None:
    output = tmp_path / "features.h5"
    folder = output.with_name("features.h5.parts")
    extract(images, output, config)
    record = json.loads(json.dumps({"options": settings(output)}))
    with h5py.File(output) as file:
        whole = json.loads(file.attrs[ATTRIBUTE])
    output.unlink()
    folder.mkdir()
    for precision in ("int8", None):
        whole["options"] = {k: v for k, v in record["options"].items() if k != "precision"}
        whole["options"] |= {"precision": precision} if precision else {}
        (folder / RECORD).write_text(json.dumps(whole))
        assert extract(images, output, config) == 0
        assert settings(output).get("precision") == precision
        output.unlink()
        folder.mkdir()
