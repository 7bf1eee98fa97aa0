"""Networks of other shapes than the paper's: strides, skips, depths, in every backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import skimage.data
import torch
from outputs import run_units

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import BACKENDS, choose, make_backend
from cv_superpoint.export import export_onnx
from cv_superpoint.network.architecture import IMAGE, NetworkConfig, layers, receptive_margin
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.weights import WeightsError, load_weights, save_weights

THREADS = 2
CONFIGS = {
    "strided": NetworkConfig(
        channels=(8, 12, 16), depths=(2, 2, 3), downsampling="stride", head_channels=16,
        descriptor_dim=24,
    ),
    "strided with skips": NetworkConfig(
        channels=(8, 12, 16), depths=(1, 3, 2), downsampling="stride", detector_skips=True,
        head_channels=16, descriptor_dim=32,
    ),
    "pooled with skips": NetworkConfig(
        channels=(8, 8, 12, 16), depths=(1, 2, 1, 2), detector_skips=True, head_channels=16,
        descriptor_dim=16,
    ),
    "pooled, three convolutions first": NetworkConfig(
        channels=(8, 8, 12, 16), depths=(3, 1, 1, 1), head_channels=16, descriptor_dim=16
    ),
    "strided, colour": NetworkConfig(
        in_channels=3, channels=(8, 12, 16), depths=(1, 1, 1), downsampling="stride",
        detector_skips=True, head_channels=8, descriptor_dim=16,
    ),
}  # fmt: skip


def random_network(config: NetworkConfig, seed: int = 0) -> SuperPointNet:
    """Weights for which maps neither vanish nor explode, and some pixels win over the dustbin."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SuperPointNet(config).eval()
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                torch.nn.init.uniform_(module.bias, -0.05, 0.05)
    return net


@pytest.fixture(params=CONFIGS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "network.safetensors"
    save_weights(random_network(CONFIGS[request.param]), path, score_threshold=0.02)
    return path


def pixels(config: NetworkConfig, bgr: np.ndarray) -> np.ndarray:
    """(1, H, W, C) for the network."""
    image = bgr[:120, :176] if config.in_channels == 3 else bgr[:120, :176, :1]
    return np.ascontiguousarray(image[None])


def test_a_file_is_read_as_it_was_written(file: Path) -> None:
    loaded = load_weights(file)
    assert loaded.config in CONFIGS.values()
    expected = random_network(loaded.config).state_dict()
    assert set(loaded.tensors) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_in_float32(file: Path, bgr: np.ndarray, backend: str) -> None:
    loaded = load_weights(file)
    images = pixels(loaded.config, bgr)
    with torch.inference_mode():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = [maps.permute(0, 2, 3, 1).numpy() for maps in loaded.net(batch)]
    choice = choose(backend=backend, device="cpu", precision="float32")
    found = run_units(make_backend(loaded, choice, threads=THREADS), images)
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1.0, float(np.abs(want).max())))


def test_tiles_give_the_keypoints_of_the_whole(file: Path) -> None:
    options = {"weights": file, "device": "cpu", "precision": "float32", "threads": THREADS}
    image = np.ascontiguousarray(skimage.data.astronaut()[:400])
    detector = SuperPointFeature2D.create(**options)
    first = detector.extract(image)
    core = detector.detector.configured(replace(detector.detector.config, tile_size=64))
    second = core.extract(image)
    assert len(first) > 50
    # Of the last bits of a score the order of equally strong ones may depend.
    first, second = (found[np.lexsort(found.keypoints.round().T)] for found in (first, second))
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=1e-3)
    np.testing.assert_allclose(first.descriptors, second.descriptors, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_margin_is_as_far_as_outputs_reach(name: str) -> None:
    """Not a pixel more changes the cell in the middle, and the last cell of the margin does."""
    config = CONFIGS[name]
    net = random_network(config)
    side = 27 * 8
    image = torch.zeros(1, config.in_channels, side, side, requires_grad=True)
    with torch.no_grad():
        image += torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    logits, descriptors = net(image)
    (logits[..., 13, 13].abs().sum() + descriptors[..., 13, 13].abs().sum()).backward()
    rows = torch.nonzero(image.grad.abs().sum(dim=(0, 1, 3)))[:, 0]
    beyond = max(13 * 8 - int(rows.min()), int(rows.max()) - (14 * 8 - 1))
    assert receptive_margin(config) - 8 < beyond <= receptive_margin(config)


def test_the_papers_network_sees_38_pixels_beyond_a_cell() -> None:
    assert receptive_margin(NetworkConfig()) == 40


def test_every_layer_comes_after_what_it_takes() -> None:
    for config in (*CONFIGS.values(), NetworkConfig()):
        known = {IMAGE}
        for layer in layers(config):
            assert set(layer.inputs) <= known
            known.add(layer.name)


def test_the_exported_graph_computes_the_same(file: Path, bgr: np.ndarray, tmp_path: Path) -> None:
    loaded = load_weights(file)
    model = tmp_path / "heads.onnx"
    export_onnx(file, model, "heads")
    images = pixels(loaded.config, bgr).transpose(0, 3, 1, 2).astype(np.float32) / 255
    with torch.inference_mode():
        expected = loaded.net(torch.from_numpy(images))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images})
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=2e-5 * max(1.0, float(want.abs().max())))


def test_a_record_of_another_network_is_refused(tmp_path: Path) -> None:
    config = CONFIGS["strided with skips"]
    net = random_network(config)
    net.config = replace(config, depths=(1, 2, 3))
    save_weights(net, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="must have shape"):
        load_weights(tmp_path / "wrong.safetensors")
    net.config = replace(config, detector_skips=False)
    save_weights(net, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match="unexpected"):
        load_weights(tmp_path / "more.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        {"downsampling": "stride"},
        {"downsampling": "twice"},
        {"depths": (2, 2, 2)},
        {"depths": (2, 2, 2, 0)},
        {"channels": (8, 8, 8), "depths": (1, 1, 0), "downsampling": "stride"},
    ],
)
def test_an_architecture_that_cannot_be_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        NetworkConfig(**options)
