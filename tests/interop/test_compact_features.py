"""Bytes and bits in other programs' forms: taken for what they are, or refused by name."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
from made import made_features

from cv_superpoint import FeatureError
from cv_superpoint.decoding.descriptors import from_bytes, to_bytes
from cv_superpoint.interop import colmap, hloc, lightglue, opensfm
from cv_superpoint.interop.stitching.pairs import to_image_features

IMAGE = np.zeros((60, 80), np.uint8)


@pytest.fixture
def floats():
    rng = np.random.default_rng(0)
    found = made_features(rng.uniform(5, 50, (12, 2)), (60, 80))
    rows = rng.normal(size=(12, 64)).astype(np.float32)
    return replace(found, descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture
def numbers(floats):
    return replace(floats, descriptors=to_bytes(floats.descriptors), descriptor_kind="uint8")


@pytest.fixture
def bits(floats):
    rows = np.packbits(floats.descriptors > 0, axis=1)
    return replace(floats, descriptors=rows, descriptor_kind="binary")


def test_hloc_gets_floats_and_our_files_keep_bytes(tmp_path, floats, numbers, bits):
    path = tmp_path / "features.h5"
    hloc.write_features(path, {"a": numbers})
    again = hloc.read_features(path, "a")
    assert again.descriptor_kind == "float32"
    assert np.array_equal(again.descriptors, from_bytes(numbers.descriptors))
    kept = {"a": numbers, "b": bits}
    hloc.write_features(path, kept, descriptor_dtype=np.uint8)
    for name, each in kept.items():
        again = hloc.read_features(path, name)
        assert again.descriptor_kind == each.descriptor_kind
        assert np.array_equal(again.descriptors, each.descriptors)
    with pytest.raises(FeatureError, match="hloc takes float32 descriptors, got binary"):
        hloc.write_features(path, {"a": bits})
    with pytest.raises(hloc.StoreError, match="descriptorFormat='uint8'"):
        hloc.write_features(path, {"a": floats}, descriptor_dtype=np.uint8)
    with h5py.File(path, "r+") as file:
        file["a/descriptors"].attrs["descriptor_kind"] = np.bytes_("float128")
    with pytest.raises(hloc.StoreError, match="unknown kind, 'float128'"):
        hloc.read_features(path, "a")


def test_lightglue_takes_numbers_alone(floats, numbers, bits):
    rows = lightglue.to_lightglue(numbers)["descriptors"]
    assert np.allclose(rows[0].numpy(), floats.descriptors, atol=0.01)
    with pytest.raises(FeatureError, match="LightGlue takes float32"):
        lightglue.to_lightglue(bits)
    with pytest.raises(FeatureError, match="LightGlue takes float32"):
        lightglue.match_with_opencv(None, bits, floats)


def test_opensfm_takes_uint8_rows_for_bits(tmp_path, floats, numbers, bits):
    path = tmp_path / "a.npz"
    for each, kind in ((numbers, np.float32), (bits, np.uint8)):
        opensfm.write_features(path, each, IMAGE)
        with np.load(path) as file:
            assert file["descriptors"].dtype == kind
    assert np.array_equal(np.unpackbits(bits.descriptors, axis=1) > 0, floats.descriptors > 0)


def test_colmap_keeps_the_bytes(tmp_path, floats, numbers, bits):
    for index, each in enumerate((floats, numbers, bits)):
        path = tmp_path / f"{index}.db"
        colmap.write_database(path, {"a.png": each}, {})
        with closing(sqlite3.connect(path)) as database:
            rows, columns, data = database.execute(
                "SELECT rows, cols, data FROM descriptors"
            ).fetchone()
        assert (rows, columns) == (12, each.descriptors.nbytes // 12)
        assert data == each.descriptors.tobytes()


def test_opencvs_stitcher_takes_uint8_rows_for_bits(numbers, bits):
    assert to_image_features(numbers, 0).descriptors.get().dtype == np.float32
    found = to_image_features(bits, 0).descriptors.get()
    assert np.array_equal(found, bits.descriptors)
    assert cv2.norm(found[:1], found[1:2], cv2.NORM_HAMMING) > 0
