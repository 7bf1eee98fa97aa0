"""Components and planes fitted to photographs."""

import json

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.decoding.descriptors import DescriptorFormat, Encoder
from cv_superpoint.weights import load_weights
from train.__main__ import main
from train.stages.compact import CompactConfig, Moments, described_pairs, measure

LITE = "superpoint-lite"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee", "chelsea", "rocket", "cat"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(skimage.data, name)()[..., ::-1])
    return folder


def test_the_command_writes_a_file_that_the_weights_take(photographs, tmp_path, capsys, caplog):
    own = tmp_path / "own.safetensors"
    own.write_bytes(load_weights(LITE).path.read_bytes())
    arguments = ["compact", "--weights", str(own), "--images", str(photographs)]
    with caplog.at_level("INFO"):
        assert main([*arguments, "--photographs", "5", "--views", "5", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    entry = json.loads("{" + said[said.index('"compact"') :].strip() + "}")["compact"]
    assert entry["file"] == "own.compact.safetensors"
    found = load_weights(own).compaction
    assert found.digest == entry["sha256"]
    assert "binary 256" in caplog.text
    first = (tmp_path / entry["file"]).read_bytes()
    assert main([*arguments, "--photographs", "5", "--views", "5", "--threads", "1"]) == 0
    assert (tmp_path / entry["file"]).read_bytes() == first
    # Half of the components keep nearly all of what the set gives, and bits most.
    detector = SuperPointFeature2D.create(
        300, weights=own, scales=1, device="cpu", precision="float32", threads=1
    )
    config = CompactConfig(images=photographs, photographs=2, views=1, seed=9)
    pairs = list(described_pairs(config, detector))
    floats, half, bits = (
        measure(pairs, Encoder.of(each, 64, found))
        for each in (DescriptorFormat(), DescriptorFormat(dim=32), DescriptorFormat(kind="binary"))
    )
    assert half[0] > floats[0] - 0.05
    assert bits[0] > floats[0] - 0.12


def test_moments_are_those_of_the_descriptors(photographs):
    detector = SuperPointFeature2D.create(
        300, weights=LITE, scales=1, device="cpu", precision="float32", threads=1
    )
    pairs = list(described_pairs(CompactConfig(images=photographs, views=3), detector))
    assert len(pairs) == 15
    moments = Moments(dim=64)
    for pair in pairs:
        moments.add(pair)
    rows = np.concatenate([each.descriptors for pair in pairs for each in pair[:2]])
    found = moments.fit(seed=0)
    assert np.allclose(found["mean"], rows.mean(axis=0), atol=1e-6)
    projected = (rows - found["mean"]) @ found["components"].T
    variances = projected.var(axis=0)
    assert np.all(np.diff(variances) <= 1e-9)
    covariance = np.cov(projected.T, bias=True)
    assert np.abs(covariance - np.diag(variances)).max() < 1e-6
    assert np.allclose(np.linalg.norm(found["planes"], axis=1), 1)
    share = ((rows @ found["planes"].T) > found["offsets"]).mean(axis=0)
    assert np.all((share > 0.2) & (share < 0.8))  # each bit says something


def test_too_few_descriptors_are_refused(photographs, capsys):
    arguments = ["compact", "--images", str(photographs), "--photographs", "1", "--views", "1"]
    assert main([*arguments, "--threads", "1"]) != 0
    assert "more photographs" in capsys.readouterr().err
    assert main([*arguments, "--output", "no/folder/a.safetensors"]) != 0
    assert "there is no folder no/folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="photographs"):
        CompactConfig(images=photographs, photographs=0)
