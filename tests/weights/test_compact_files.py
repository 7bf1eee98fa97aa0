"""Files of principal components and planes beside weights, and recommended scales."""

import hashlib
import json

import numpy as np
import pytest
from pinned import PINNED
from test_weights import BUNDLED, bundle, change_entry  # noqa: F401 -- a fixture
from tiny import CONFIG

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.decoding.descriptors import Compaction, DescriptorFormat, Encoder, NotFitted
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import WeightsError, load_weights, save_weights
from cv_superpoint.weights.compact import (
    FITTED_TO,
    compact_path,
    save_compaction,
)
from cv_superpoint.weights.files import parse_file
from cv_superpoint.weights.store import weights_folder

DIM = CONFIG.descriptor_dim


def arrays(dim=DIM, planes=16):
    rng = np.random.default_rng(0)
    return {
        "mean": rng.normal(size=dim),
        "components": np.linalg.qr(rng.normal(size=(dim, dim)))[0],
        "planes": rng.normal(size=(planes, dim)),
        "offsets": rng.normal(size=planes),
    }


DESCRIBED = [
    name for name, entry in BUNDLED["weights"].items() if entry["architecture"]["descriptor_dim"]
]


@pytest.mark.parametrize("name", DESCRIBED)
def test_bundled_sets_have_theirs_and_they_belong_together(name):
    entry, loaded = BUNDLED["weights"][name], load_weights(name)
    path = weights_folder() / entry["compact"]["file"]
    data = path.read_bytes()
    assert path == compact_path(loaded.path)
    assert hashlib.sha256(data).hexdigest() == entry["compact"]["sha256"]
    assert loaded.compaction.digest == entry["compact"]["sha256"]
    # After a new training: python -m train compact --weights NAME --images PHOTOGRAPHS
    assert parse_file(data, path)[1][FITTED_TO] == loaded.tensor_digest
    found, full = loaded.compaction, loaded.config.descriptor_dim
    assert np.allclose(found.components @ found.components.T, np.eye(full), atol=0.01)
    assert found.planes.shape[0] in (256, 512)
    assert found.planes.shape[1:] == found.mean.shape == (full,)
    assert loaded.scales == tuple(entry.get("scales", (1.0,)))


def test_a_file_beside_own_weights_is_theirs(tmp_path, net):
    path = tmp_path / "mine.safetensors"
    save_weights(net, path, score_threshold=0.1)
    alone = load_weights(path)
    assert isinstance(alone.compaction, NotFitted)
    with pytest.raises(FeatureError, match="python -m train compact"):
        SuperPointFeature2D.create(weights=path, descriptorFormat="binary", **PINNED)
    given = arrays()
    save_compaction(compact_path(path), alone, recipe="by hand", **given)
    found = load_weights(path).compaction
    assert isinstance(found, Compaction)
    for name, array in given.items():
        assert np.allclose(getattr(found, name), array, atol=2e-3)
    detector = SuperPointFeature2D.create(
        weights=path, descriptorFormat="binary", descriptorDim=16, **PINNED
    )
    assert detector.descriptorSize() == 2


def test_that_of_other_weights_or_a_damaged_one_is_not_taken(tmp_path, net):
    path = tmp_path / "mine.safetensors"
    save_weights(net, path, score_threshold=0.1)
    loaded, beside = load_weights(path), compact_path(path)
    tensors = {name: 2 * array for name, array in loaded.tensors.items()}
    other = NetworkWeights(config=loaded.config, tensors=tensors)
    save_compaction(beside, other, recipe="", **arrays())
    reasons = [load_weights(path).compaction.why]
    whole = beside.read_bytes()
    save_compaction(beside, loaded, recipe="", **arrays())
    for data in (b"", whole[:100], whole[:-1]):
        beside.write_bytes(data)
        reasons.append(load_weights(path).compaction.why)
    assert "fitted to other weights" in reasons[0]
    assert all(str(beside) in why for why in reasons)
    # Floats in full length need nothing of it.
    assert SuperPointFeature2D.create(weights=path, **PINNED).descriptorSize() == DIM
    with pytest.raises(FeatureError, match=beside.name):
        Encoder.of(DescriptorFormat(dim=3), DIM, load_weights(path).compaction)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("mean", np.zeros(DIM + 1)),
        ("components", np.zeros((DIM, DIM - 1))),
        ("planes", np.zeros((12, DIM))),
        ("planes", np.zeros((0, DIM))),
        ("offsets", np.full(16, np.nan)),
        ("offsets", np.full(16, 1e30)),  # more than a float16 holds
    ],
)
def test_arrays_that_do_not_fit_are_not_written(tmp_path, net, name, array):
    path = tmp_path / "mine.safetensors"
    save_weights(net, path)
    beside = compact_path(path)
    with pytest.raises(WeightsError, match="python -m train compact"), np.errstate(over="ignore"):
        save_compaction(beside, load_weights(path), recipe="", **{**arrays(), name: array})
    assert not beside.exists()


def test_a_damaged_one_of_a_bundled_set_says_so(bundle, net):  # noqa: F811
    save = {"recipe": "r", **arrays()}
    path = bundle / "tiny.compact.safetensors"
    sha256 = save_compaction(path, load_weights("tiny"), **save)
    change_entry(bundle, compact={"file": path.name, "sha256": sha256})
    assert load_weights("tiny").compaction.digest == sha256
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match="reinstall"):
        load_weights("tiny")
    change_entry(bundle, compact={"file": "../tiny.compact.safetensors", "sha256": sha256})
    with pytest.raises(WeightsError, match="expected the name of a file"):
        load_weights("tiny")


def test_weights_recommend_scales(bundle, net, tmp_path):  # noqa: F811
    change_entry(bundle, scales=[1, 0.5])
    path = tmp_path / "mine.safetensors"
    save_weights(net, path, score_threshold=0.1, scales=(1, 0.7))
    for weights, scales in (("tiny", (1.0, 0.5)), (path, (1.0, 0.7))):
        assert load_weights(weights).scales == scales
        detector = SuperPointFeature2D.create(weights=weights, **PINNED)
        assert detector.getScales() == scales
        detector.setScales((2, 1))
        assert detector.getScales() == (2.0, 1.0)
        detector.setScales(None)
        assert detector.getScales() == scales
        alone = SuperPointFeature2D.create(weights=weights, scales=1, **PINNED)
        assert alone.getScales() == (1.0,)
        alone.save(tmp_path / "alone.json")  # what was saved stays, whatever is recommended
        detector.read(tmp_path / "alone.json")
        assert detector.getScales() == (1.0,)
        assert json.loads((tmp_path / "alone.json").read_text())
    for wrong in ([], [1, 1], "1", [0], [True]):
        change_entry(bundle, scales=wrong)
        with pytest.raises(WeightsError, match="scales"):
            load_weights("tiny")
        with pytest.raises(FeatureError, match="scales"):
            save_weights(net, path, scales=wrong)
