"""Matchers that come with weights: the manifest, whose features they take, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from made_matchers import LITE, bundled_folder
from pinned import PINNED

from cv_superpoint import (
    FeatureError,
    Features,
    LightGlueMatcher,
    SuperPointFeature2D,
    WeightsError,
)
from cv_superpoint.matching.lightglue.bundled import available_matchers, bundle, name_of
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import load_matcher, save_matcher
from cv_superpoint.matching.lightglue.network import MatcherNet
from cv_superpoint.weights import load_weights, store

CONFIG = MatcherConfig(descriptor_dim=64, width=16, layers=1)
PHOTOGRAPH = np.ascontiguousarray(skimage.data.coffee()[60:300, 150:470, ::-1])
OTHER = cv2.warpAffine(PHOTOGRAPH, cv2.getRotationMatrix2D((160, 120), 12, 0.9), (320, 240))


def untrained(path: Path, weights: str = LITE, **recorded: object) -> Path:
    torch.manual_seed(0)
    save_matcher(path, MatcherNet(CONFIG).state_dict(), CONFIG, weights=weights, **recorded)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, and an untrained matcher for the lite set."""
    root = bundled_folder(tmp_path_factory.mktemp("bundle"))
    bundle(untrained(root.parent / "matcher.safetensors", threshold=0.2), root, threshold=0.0)
    return root


@pytest.fixture
def bundled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "weights_folder", lambda: folder)
    return folder


@pytest.fixture(scope="module")
def both() -> list[Features]:
    detector = SuperPointFeature2D.create(200, weights=LITE, **PINNED)
    return [detector.extract(image) for image in (PHOTOGRAPH, OTHER)]


@pytest.mark.parametrize("name", available_matchers())
def test_a_shipped_matcher_is_that_of_its_weights(name: str) -> None:
    matcher = LightGlueMatcher.create(name)
    loaded, weights = matcher.loaded, load_weights(name)
    assert loaded.fitted_to == weights.tensor_digest
    assert loaded.config.descriptor_dim == weights.config.descriptor_dim
    assert 0 < matcher.threshold == loaded.threshold < 1
    assert loaded.recipe
    assert loaded.commit
    assert loaded.licence == "Apache-2.0"
    assert loaded.path.stat().st_size <= 4e6


@pytest.mark.parametrize("name", available_matchers())
def test_a_shipped_matcher_sees_no_rounding(name: str) -> None:
    """Descriptors of 8 bits and of float32 have a cosine of .9995; their matches are the same."""
    detector = SuperPointFeature2D.create(400, weights=name, **PINNED)
    first, second = (detector.extract(picture) for picture in (PHOTOGRAPH, OTHER))
    matcher = LightGlueMatcher.create(name)
    rows, _ = matcher(first, second)
    rng = np.random.default_rng(0)
    rounded = []
    for features in (first, second):
        length = features.descriptors.shape[1]
        noise = rng.normal(0, 0.03 / np.sqrt(length), features.descriptors.shape)
        moved = features.descriptors + noise.astype(np.float32)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        rounded.append(replace(features, descriptors=moved))
    again, _ = matcher(*rounded)
    same = {tuple(each) for each in rows} & {tuple(each) for each in again}
    assert len(rows) > 50
    assert len(same) > 0.95 * max(len(rows), len(again))


@pytest.mark.usefixtures("bundled")
def test_weights_bring_their_matcher(both: list[Features]) -> None:
    assert available_matchers() == (LITE,)
    matcher = LightGlueMatcher.create(LITE)
    assert matcher.loaded.weights == LITE
    assert matcher.loaded.fitted_to == load_weights(LITE).tensor_digest == both[0].weights
    assert matcher.threshold == 0.0  # the manifest's, not the file's
    assert matcher.loaded.licence == "Apache-2.0"
    rows, scores = matcher(*both)
    assert len(rows) == len(scores) > 0


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("name", [None, "superpoint", "nothing"])
def test_weights_without_a_matcher_are_told(name: str | None) -> None:
    with pytest.raises(WeightsError, match=r"no matcher is bundled for .*; with one: superpoint-l"):
        LightGlueMatcher.create(name)


@pytest.mark.usefixtures("bundled")
def test_features_of_other_weights_and_formats_are_refused_by_name(both: list[Features]) -> None:
    matcher = LightGlueMatcher.create(LITE)
    # As many numbers as the lite set's, and they are unit rows: only the name says it.
    short = SuperPointFeature2D.create(50, descriptorDim=64, **PINNED).extract(PHOTOGRAPH)
    with pytest.raises(FeatureError, match="features of superpoint-lite, image 1 has those of su"):
        matcher(both[0], short)
    fewer = SuperPointFeature2D.create(50, weights=LITE, descriptorDim=32, **PINNED)
    with pytest.raises(FeatureError, match=r"64 numbers of superpoint-lite, image 0 .* of 32"):
        matcher(fewer.extract(PHOTOGRAPH), both[1])
    bits = SuperPointFeature2D.create(50, weights=LITE, descriptorFormat="binary", **PINNED)
    with pytest.raises(FeatureError, match="float32 descriptors, got binary"):
        matcher(bits.extract(PHOTOGRAPH), both[1])
    long = both[0].descriptors * np.float32(3)
    matcher.setPairInfo(both[0].keypoints, both[1].keypoints, (320, 240), (320, 240))
    with pytest.raises(FeatureError, match="unit length"):
        matcher.match(long, both[1].descriptors)


@pytest.mark.usefixtures("bundled")
def test_bytes_stand_for_the_same_numbers(both: list[Features]) -> None:
    # float32, one thread
    matcher = LightGlueMatcher.create(LITE, backend="numpy")
    detector = SuperPointFeature2D.create(200, weights=LITE, descriptorFormat="uint8", **PINNED)
    rows, scores = matcher(*(detector.extract(image) for image in (PHOTOGRAPH, OTHER)))
    expected, values = matcher(*both)
    found = dict(zip(map(tuple, rows.tolist()), scores, strict=True))
    common = [
        (found[pair], value)
        for pair, value in zip(map(tuple, expected.tolist()), values, strict=True)
        if pair in found
    ]
    assert len(common) >= 0.8 * len(expected) > 0
    np.testing.assert_allclose(*np.transpose(common), rtol=0.05)


def test_an_entry_that_does_not_fit_is_refused(bundled: Path, tmp_path: Path) -> None:
    path = bundled / "manifest.json"
    before = path.read_text()
    try:
        for change, says in (
            ({"sha256": "0" * 64}, "expected sha256"),
            ({"threshold": 2}, "threshold must lie"),
            ({"architecture": asdict(MatcherConfig())}, "expected the architecture"),
            ({"file": "../x"}, "expected the name of a file"),
        ):
            manifest = json.loads(before)
            manifest["matchers"][LITE].update(change)
            path.write_text(json.dumps(manifest))
            with pytest.raises(WeightsError, match=says):
                LightGlueMatcher.create(LITE)
    finally:
        path.write_text(before)
    with pytest.raises(WeightsError, match="which is not bundled"):
        bundle(untrained(tmp_path / "own.safetensors", weights="own"), bundled)
    other = untrained(tmp_path / "other.safetensors", fitted_to="0" * 64)
    assert load_matcher(other).fitted_to == "0" * 64
    with pytest.raises(WeightsError, match="learned from other weights"):
        bundle(other, bundled)
    assert path.read_text() == before


def test_weights_are_called_by_their_names() -> None:
    for name in store.available_weights():
        assert name_of(load_weights(name).tensor_digest) == name
    assert name_of("abcdef" * 9) == "other weights (abcdefabcdef)"
