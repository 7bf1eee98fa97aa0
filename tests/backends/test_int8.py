"""8 bits: both backends compute the same numbers, and find what float32 finds.

What a CPU without VNNI does instead is tested in tests/backends/test_backend_choice.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from outputs import run_units
from pinned import FLOAT32

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import Backend, choose, make_backend
from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.evaluation.paired import agreement, finder
from cv_superpoint.network.arrays import run_in_8_bits, run_layers
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import (
    LoadedWeights,
    available_weights,
    find_ranges,
    load_weights,
    save_weights,
)

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(CPU_INT8 not in instructions(), reason=f"needs a CPU with {CPU_INT8}"),
]

BACKENDS = ("openvino", "onnxruntime")
CAMERA = skimage.data.camera()[:240, 100:420]
NOISE = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)


def backend_of(weights: LoadedWeights, name: str, threads: int = 1) -> Backend:
    return make_backend(
        weights, choose(backend=name, device="cpu", precision="int8"), threads=threads
    )


def exact_backend(weights: LoadedWeights) -> Backend:
    return make_backend(weights, choose(backend="ncnn", **FLOAT32), threads=1)


@pytest.mark.parametrize("set_name", available_weights())
@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_computes_what_the_ranges_say(name: str, set_name: str) -> None:
    """Backends compute what numpy does, but for values on the edge between two bytes."""
    weights = load_weights(set_name)
    image = CAMERA[:120, :160, None].copy()
    logits, _ = run_units(backend_of(weights, name), image[None])
    meant, exact = run_in_8_bits(weights, image)[0], run_layers(weights, image)[0]
    error = np.abs(logits[0].transpose(2, 0, 1) - meant).mean()
    assert 0 < error < 0.75 * np.abs(exact - meant).mean()


@pytest.mark.parametrize("kind", ["after_relu", "colour", "lite"])
@pytest.mark.parametrize("name", BACKENDS)
def test_other_networks(name: str, kind: str, tmp_path: Path) -> None:
    """A normalisation behind the ReLU gives maps with values below 0."""
    configs = {
        "after_relu": NetworkConfig(channels=(8, 9, 10, 12), norm="after_relu"),
        "colour": NetworkConfig(in_channels=3, channels=(8, 9, 10, 12)),
        "lite": NetworkConfig(
            channels=(8, 9, 12), depths=(1, 1, 2), downsampling="stride", detector_skips=True
        ),
    }
    torch.manual_seed(3)
    net = SuperPointNet(configs[kind])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.uniform_(-0.5, 0.5)
    save_weights(net.eval(), tmp_path / "other.safetensors")
    weights = load_weights(tmp_path / "other.safetensors")
    image = skimage.data.astronaut()[:80, 100:196, : weights.config.in_channels].copy()
    weights = replace(weights, ranges=find_ranges(weights, [image]))
    assert weights.ranges is not None
    assert (min(one.low for one in weights.ranges.maps.values()) < 0) == (kind == "after_relu")
    found = run_units(backend_of(weights, name), image[None])
    exact = run_units(exact_backend(weights), image[None])
    for mine, theirs in zip(found, exact, strict=True):
        spread = theirs.std()
        assert 0 < np.abs(mine - theirs).mean() < 0.05 * spread


@pytest.mark.parametrize("set_name", available_weights())
@pytest.mark.parametrize("name", BACKENDS)
def test_keypoints_are_nearly_those_of_float32(name: str, set_name: str) -> None:
    """Share of two photographs' keypoints, those just above the threshold too; .98 of many
    photographs."""
    weights = load_weights(set_name)
    exact, rough = (
        finder(backend, weights, [])
        for backend in (exact_backend(weights), backend_of(weights, name))
    )
    for image in (CAMERA, skimage.data.coins()):
        found = agreement(exact(image), rough(image))
        assert found.count > 80
        assert found.share(1.0) >= 0.93
        if weights.config.descriptor_dim:
            assert found.cosines[found.distances <= 1].min() > 0.99


@pytest.mark.parametrize(
    ("image", "share"),
    [
        (np.zeros((120, 160), np.uint8), 1.0),
        (np.full((120, 160), 255, np.uint8), 1.0),
        (np.full((120, 160), 128, np.uint8), 1.0),
        (NOISE, 0.9),
        (np.where(CAMERA > 120, 255, 0).astype(np.uint8), 0.85),  # nothing but black and white
    ],
    ids=["black", "white", "grey", "noise", "saturated"],
)
@pytest.mark.parametrize("set_name", ["superpoint", "superpoint-lite"])
@pytest.mark.parametrize("name", BACKENDS)
def test_images_that_are_no_photographs(
    name: str, set_name: str, image: np.ndarray, share: float
) -> None:
    weights = load_weights(set_name)
    exact, rough = (
        finder(backend, weights, [])(image)
        for backend in (exact_backend(weights), backend_of(weights, name))
    )
    assert agreement(exact, rough).share(1.0) >= share


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_promised_in_float32_holds(name: str, threads: int) -> None:
    """The same bits alone, in a batch, from bands of rows and from a stored model."""
    weights = load_weights()
    backend = backend_of(weights, name, threads)
    images = np.stack([CAMERA[top : top + 160, :160] for top in (0, 40, 80)])[..., None]
    together = backend.run(images)
    again = backend_of(weights, name, threads)
    for index in range(3):
        for which in (backend, again):
            alone = which.run(images[index : index + 1])
            for one, many in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one[0], many[index])


def test_a_detector_in_8_bits_says_so() -> None:
    for backend in BACKENDS:
        detector = SuperPointFeature2D.create(50, precision="int8", backend=backend, threads=1)
        assert f"{backend} " in detector.info()
        assert "int8" in detector.info()
        assert len(detector.extract(CAMERA)) == 50


def test_other_ranges_are_other_compiled_models() -> None:
    """Both are stored on the disk, under what they depend on."""
    weights = load_weights("superpoint-lite")
    assert weights.ranges is not None
    narrow = {name: replace(one, high=one.high / 4) for name, one in weights.ranges.maps.items()}
    other = replace(weights, ranges=replace(weights.ranges, maps=narrow))
    image = CAMERA[None, :64, :64, None]
    for name in BACKENDS:
        first, second = (backend_of(one, name).run(image)[0][0] for one in (weights, other))
        assert np.abs(first - second).max() > 0.1
