"""Bytes and bits in feature files."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.extract import ExtractConfig, ExtractError, extract_folder
from cv_superpoint.extract.plan import settings_of
from cv_superpoint.interop import hloc
from cv_superpoint.pictures.reading import read_picture
from cv_superpoint.weights import load_weights

CONFIG = ExtractConfig(max_keypoints=40, threshold=0.05, weights="superpoint-lite", **PINNED)
FORMATS = [("uint8", None, 64), ("uint8", 32, 32), ("binary", None, 32), ("binary", 64, 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for index in range(3):
        cv2.imwrite(str(root / f"{index}.png"), skimage.data.astronaut()[40 * index :][:96, :120])
    return root


@pytest.mark.parametrize(("kind", "dim", "size"), FORMATS)
@pytest.mark.parametrize("name", ["features.h5", "shards"])
def test_rows_are_stored_as_they_are(
    folder: Path, tmp_path: Path, kind: str, dim: int | None, size: int, name: str
) -> None:
    config = replace(CONFIG, descriptor_format=kind, descriptor_dim=dim)
    report = extract_folder(folder, tmp_path / name, config, readers=0)
    detector = config.create()
    expected = {
        path.name: detector.extract(read_picture(path, grey=True)).descriptors
        for path in folder.iterdir()
    }
    assert report.keypoints == sum(map(len, expected.values())) > 30
    if name == "features.h5":
        for image, rows in expected.items():
            found = hloc.read_features(tmp_path / name, image)
            assert found.descriptor_kind == kind
            assert np.array_equal(found.descriptors, rows)
        return
    for path in (tmp_path / name).glob("*.parquet"):
        table = pyarrow.parquet.read_table(path)
        assert table.schema.field("descriptors").type.value_type == "uint8"
        for image, flat in zip(table["name"].to_pylist(), table["descriptors"], strict=True):
            rows = np.array(flat.as_py(), np.uint8).reshape(-1, size)
            assert np.array_equal(rows, expected[image])


def test_a_run_goes_on_with_the_same_format_only(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.h5"
    extract_folder(folder, output, replace(CONFIG, descriptor_format="binary"), readers=0)
    same = replace(CONFIG, descriptor_format="binary", descriptor_dim=256)
    assert extract_folder(folder, output, same, readers=0).resumed == 3
    for other in (
        CONFIG,
        replace(CONFIG, descriptor_format="uint8"),
        replace(same, descriptor_dim=8),
    ):
        with pytest.raises(ExtractError, match="descriptor_"):
            extract_folder(folder, output, other, readers=0)
    with pytest.raises(FeatureError, match="at most 64"):
        extract_folder(folder, output, replace(CONFIG, descriptor_dim=65), readers=0)


def test_floats_in_full_length_are_settings_as_of_earlier_releases() -> None:
    now = settings_of(CONFIG, "hdf5")["options"]
    recommended = load_weights("superpoint-lite").scales
    assert now["scales"] == list(recommended)  # by their values
    for same in (replace(CONFIG, scales=recommended), replace(CONFIG, descriptor_dim=64)):
        assert settings_of(same, "hdf5")["options"] == now
    assert all(now[name] is None for name in ("descriptor_format", "descriptor_dim", "compaction"))
    bits = settings_of(replace(CONFIG, descriptor_format="binary"), "hdf5")["options"]
    assert (bits["descriptor_format"], bits["descriptor_dim"]) == ("binary", 256)
    detector = SuperPointFeature2D.create(weights="superpoint-lite", **PINNED)
    assert bits["compaction"] == detector.detector.compaction.digest
