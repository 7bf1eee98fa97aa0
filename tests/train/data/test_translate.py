"""A matcher of the default set becomes the beginning of one for the lite set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import LoadedMatcher, load_matcher, save_matcher
from cv_superpoint.matching.lightglue.network import MatcherNet
from train.data.translate import translate_matcher

NAMES = ("camera", "coffee", "chelsea", "astronaut", "rocket")


@pytest.fixture
def start(tmp_path: object) -> LoadedMatcher:
    torch.manual_seed(0)
    net = MatcherNet(MatcherConfig(descriptor_dim=256, width=16, layers=1))
    path = f"{tmp_path}/start.safetensors"
    save_matcher(path, net.state_dict(), net.config, weights="superpoint")
    return load_matcher(path)


def photographs(count: int) -> list[np.ndarray]:
    images = [getattr(skimage.data, name)() for name in NAMES[:count]]
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) if one.ndim == 3 else one for one in images]
    return [cv2.resize(one, (320, 240)) for one in grey]


def projected(matcher: LoadedMatcher, rows: np.ndarray) -> np.ndarray:
    return rows @ matcher.tensors["project.weight"].T + matcher.tensors["project.bias"]


def test_the_first_layer_sees_the_same_in_other_descriptors(start: LoadedMatcher) -> None:
    theirs = SuperPointFeature2D.create(300, weights="superpoint", **PINNED)
    own = SuperPointFeature2D.create(300, weights="superpoint-lite", **PINNED)
    *known, held_out = photographs(5)
    made = translate_matcher(start, theirs, own, known)
    length = own.descriptorSize()
    assert made.config == MatcherConfig(descriptor_dim=length, width=16, layers=1)
    assert made.tensors["project.weight"].shape == (16, length)
    assert made.tensors["heads.0.project.weight"] is start.tensors["heads.0.project.weight"]

    keypoints = own.detect(held_out)
    wanted = projected(start, theirs.compute(held_out, keypoints)[1])
    got = projected(made, own.compute(held_out, keypoints)[1])
    left = ((got - wanted) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum()
    assert left < 0.75


def test_rounding_of_descriptors_is_not_amplified(tmp_path: Path) -> None:
    """Descriptors of the default set hardly vary in many directions, by rounding alone in some."""
    torch.manual_seed(0)
    net = MatcherNet(MatcherConfig(descriptor_dim=64, width=16, layers=1))
    path = tmp_path / "start.safetensors"
    save_matcher(path, net.state_dict(), net.config, weights="superpoint-lite")
    theirs = SuperPointFeature2D.create(300, weights="superpoint-lite", **PINNED)
    own = SuperPointFeature2D.create(300, weights="superpoint", **PINNED)
    *known, held_out = photographs(5)
    made = translate_matcher(load_matcher(path), theirs, own, known)
    rows = own.detectAndCompute(held_out, None)[1]
    # In 8 bits a descriptor has a cosine of .9995 with that of float32.
    noise = np.random.default_rng(0).normal(0, 0.03 / 16, rows.shape)
    plain, moved = (projected(made, each) for each in (rows, rows + noise))
    assert np.std(moved - plain) < 0.15 * np.std(plain)


def test_too_few_keypoints_are_refused(start: LoadedMatcher) -> None:
    own = SuperPointFeature2D.create(20, weights="superpoint-lite", **PINNED)
    with pytest.raises(ValueError, match="give more photographs, or no start"):
        translate_matcher(start, own, own, photographs(1))
    with pytest.raises(ValueError, match="give more photographs, or no start"):
        translate_matcher(start, own, own, [])
