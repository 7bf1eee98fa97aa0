"""descriptorFormat and descriptorDim of the face, in every way of getting descriptors."""

import copy
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.backends import choosing
from cv_superpoint.decoding.descriptors import DescriptorFormat, Encoder
from cv_superpoint.detector import DetectorConfig
from cv_superpoint.weights import load_weights

LITE = "superpoint-lite"
FORMATS = [("float32", 48), ("uint8", None), ("uint8", 32), ("binary", None), ("binary", 128)]


@pytest.fixture(scope="module")
def lite():
    return SuperPointFeature2D.create(200, weights=LITE, **PINNED)


def made(kind, dim, **options):
    return SuperPointFeature2D.create(
        200, weights=LITE, descriptorFormat=kind, descriptorDim=dim, **{**PINNED, **options}
    )


def expected(lite, image, kind, dim):
    weights = load_weights(LITE)
    encoder = Encoder.of(DescriptorFormat(kind=kind, dim=dim), 64, weights.compaction)
    return encoder(lite.extract(image).descriptors)


@pytest.mark.parametrize(("kind", "dim"), FORMATS)
def test_every_way_gives_the_same_rows(bgr, kind, dim):
    # Of another level's keypoints compute() rounds the positions once more.
    lite = made("float32", None, scales=(1.0,))
    detector = made(kind, dim, scales=(1.0,))
    keypoints, rows = detector.detectAndCompute(bgr, None)
    assert np.array_equal(rows, expected(lite, bgr, kind, dim))
    assert [each.pt for each in keypoints] == [each.pt for each in lite.detect(bgr)]
    size = (256 if dim is None else dim) // 8 if kind == "binary" else dim or 64
    assert rows.shape == (len(keypoints), size)
    assert detector.descriptorSize() == size
    assert detector.descriptorType() == (cv2.CV_32F if kind == "float32" else cv2.CV_8U)
    norm = cv2.NORM_HAMMING if kind == "binary" else cv2.NORM_L2
    assert detector.defaultNorm() == norm
    described = detector.compute(bgr, keypoints[3:50])[1]
    assert np.array_equal(described, rows[3:50])
    batch = detector.extractBatch([bgr, bgr[:200]])
    assert np.array_equal(batch[0].descriptors, rows)
    assert {each.descriptor_kind for each in batch} == {kind}
    for _, features in detector.extractStream([bgr, bgr]):
        assert np.array_equal(features.descriptors, rows)
    given = np.zeros_like(rows)
    assert detector.detectAndCompute(bgr, None, given)[1] is given
    umat = detector.detectAndCompute(cv2.UMat(bgr), None)[1]
    assert np.array_equal(umat.get(), rows)
    matches = cv2.BFMatcher(norm, crossCheck=True).match(rows, rows)
    assert [match.distance for match in matches] == [0] * len(rows)
    assert detector.detectAndCompute(np.zeros((40, 40), np.uint8), None) == ((), None)


@pytest.mark.parametrize("backend", choosing.BACKENDS)
def test_every_backend_gives_bits(lite, bgr, backend):
    if not choosing.is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    rows = made("binary", None, backend=backend).detectAndCompute(bgr, None)[1]
    other = expected(lite, bgr, "binary", None)
    assert rows.shape == other.shape
    # The backends round differently, and a plane may run through a descriptor.
    assert np.unpackbits(rows ^ other).mean() < 0.01


def test_pyramid_and_tiles_give_bits(bgr):
    for options in ({"scales": (1, 0.5)}, {"tileSize": 128}):
        floats = made("float32", None, **options).extract(bgr)
        bits = made("binary", None, **options).extract(bgr)
        assert np.array_equal(floats.keypoints, bits.keypoints)
        encoder = Encoder.of(DescriptorFormat(kind="binary"), 64, load_weights(LITE).compaction)
        assert np.array_equal(bits.descriptors, encoder(floats.descriptors))
        assert bits[5:9].descriptors.shape == (4, 32)
        assert bits[5:9].descriptor_kind == "binary"


def test_getters_setters_and_copies(lite, bgr):
    detector = made("binary", 64)
    for same in (
        copy.copy(detector),
        copy.deepcopy(detector),
        pickle.loads(pickle.dumps(detector)),
    ):
        assert (same.getDescriptorFormat(), same.getDescriptorDim()) == ("binary", 64)
    detector.setDescriptorFormat("binary")  # the same: it keeps its length
    assert detector.getDescriptorDim() == 64
    detector.setDescriptorDim(None)
    assert detector.getDescriptorDim() == 256
    detector.setDescriptorFormat("uint8", 48)
    assert detector.descriptorSize() == detector.getDescriptorDim() == 48
    detector.setDescriptorFormat(None)
    assert np.array_equal(
        detector.detectAndCompute(bgr, None)[1], lite.detectAndCompute(bgr, None)[1]
    )
    for bad in (("binary", 7), ("binary", 520), ("uint8", 65), ("int8", None), ("float32", "64")):
        with pytest.raises(FeatureError):
            detector.setDescriptorFormat(*bad)
        assert detector.getDescriptorFormat() == "float32"


def test_the_line_on_a_detector_tells_what_is_special():
    digest = load_weights(LITE).compaction.digest[:12]
    assert f"256 bits ({digest})" in made("binary", None).info()
    assert "64 numbers as uint8, " in made("uint8", None).info()
    assert "numbers" not in made("float32", None).info()


@pytest.mark.parametrize("ending", [".yml", ".json", ".xml"])
@pytest.mark.parametrize(("kind", "dim"), FORMATS)
def test_parameters_come_back_from_a_file(lite, tmp_path, ending, kind, dim):
    path = tmp_path / f"detector{ending}"
    made(kind, dim).save(path)
    other = copy.copy(lite)
    other.read(path)
    assert other.getDescriptorFormat() == kind
    assert other.detector.config.descriptors == DescriptorFormat(kind=kind, dim=dim)


def test_files_and_pickles_of_earlier_releases_are_floats(lite, tmp_path):
    path = tmp_path / "detector.yml"
    made("binary", None).save(path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("descriptor")]
    path.write_text("\n".join(lines) + "\n")
    other = made("binary", None)
    other.read(path)
    assert other.descriptorType() == cv2.CV_32F
    old = pickle.loads(pickle.dumps(made("float32", None, scales=(1.0,))))
    state = old.__getstate__()
    config, weights = copy.copy(state["_config"]), copy.copy(load_weights(LITE))
    del config.__dict__["descriptors"], weights.__dict__["compaction"], weights.__dict__["scales"]
    old.__setstate__({**state, "_config": config, "_weights": weights})
    assert (old.getDescriptorFormat(), old.getScales()) == ("float32", (1.0,))
    assert replace(config, scales=(0.5,)) == DetectorConfig(decoding=config.decoding, scales=(0.5,))


def test_flann_takes_floats_and_bits_and_refuses_bytes(bgr):
    trees, hashes = {"algorithm": 1, "trees": 4}, {"algorithm": 6, "table_number": 6}
    floats = made("float32", 32).detectAndCompute(bgr, None)[1]
    assert len(cv2.FlannBasedMatcher(trees, {}).match(floats, floats)) == len(floats)
    bits = made("binary", None).detectAndCompute(bgr, None)[1]
    flann = cv2.FlannBasedMatcher({**hashes, "key_size": 12, "multi_probe_level": 1}, {})
    assert len(flann.match(bits, bits)) > 0.9 * len(bits)
    numbers = made("uint8", None).detectAndCompute(bgr, None)[1]
    with pytest.raises(cv2.error):
        cv2.FlannBasedMatcher(trees, {}).match(numbers, numbers)
