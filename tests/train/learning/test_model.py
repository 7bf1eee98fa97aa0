from dataclasses import replace

import pytest
import torch
from skimage import data

from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet, fold_batchnorm
from cv_superpoint.weights import load_weights
from train.learning.model import ImageConvolution, TrainingNetwork, from_folded, unfold_batchnorm
from train.recipes import LITE
from train.runtime.process import memory_format


def photographs() -> torch.Tensor:
    crops = [getattr(data, name)()[:96, :128] for name in ("camera", "coins", "moon")]
    return torch.stack([torch.from_numpy(crop.copy())[None] for crop in crops]) / 255


@pytest.fixture(scope="module")
def bundled() -> SuperPointNet:
    return load_weights(None).net


def test_unfolded_network_computes_the_same(bundled: SuperPointNet) -> None:
    images = photographs()
    network = unfold_batchnorm(bundled, images).eval()
    with torch.inference_mode():
        for ours, theirs in zip(network(images), bundled(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        # While training the statistics are the batch's own: on the images that gave them, the same.
        for ours, theirs in zip(network.train()(images), bundled(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.05)
        folded = fold_batchnorm(network.eval().net)
    assert folded.config.norm == "none"


def test_unfolded_network_learns_everywhere(bundled: SuperPointNet) -> None:
    network = unfold_batchnorm(bundled, photographs()).train()
    logits, dense = network(photographs())
    (logits.square().mean() + dense[:, :5].sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_frozen_stem_does_not_learn_and_the_rest_does() -> None:
    network = TrainingNetwork(0)
    network.freeze_stem()
    assert network.frozen
    network(photographs())[0].square().mean().backward()
    learning = [k for k, block in enumerate(network.net.encoder) for p in block.parameters()
                if p.grad is not None and bool((p.grad != 0).any())]  # fmt: skip
    assert min(learning) == len(network.stem) == 2


def test_colour_network_takes_three_channels() -> None:
    network = TrainingNetwork(0, NetworkConfig(in_channels=3, norm="before_relu")).eval()
    logits, _ = network(torch.zeros(1, 3, 16, 24, dtype=torch.uint8))
    assert logits.shape == (1, 65, 2, 3)


def test_folded_weights_learn_on_as_they_are(bundled: SuperPointNet) -> None:
    """Precision float32, one thread."""
    network = from_folded(bundled).train()
    images = photographs()
    for ours, theirs in zip(network(images), bundled(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    logits, dense = network(images)
    (logits.square().mean() + dense[:, :5].sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("config", [NetworkConfig(), LITE], ids=["default", "lite"])
@pytest.mark.parametrize("norm", ["before_relu", "none"])
def test_a_frozen_stem_computes_the_same(config: NetworkConfig, norm: str) -> None:
    """Precision float32, one thread."""
    network = TrainingNetwork(1, replace(config, norm=norm)).eval()
    images = photographs()
    with torch.inference_mode():
        before = network(images)
    network.freeze_stem()
    with torch.inference_mode():
        after = network(images)
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_channel_of_zeros_changes_nothing(stride: int) -> None:
    """The first convolution, with and without it: float32, then bfloat16 of the same rounding."""
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(1, 8, 3, stride=stride, padding=1)
    ours = ImageConvolution(1, 8, 3, stride=stride, padding=1)
    ours.load_state_dict(plain.state_dict())
    images = photographs()
    torch.testing.assert_close(ours(images), plain(images), rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(images), plain(images)
        for result in (found, expected):
            result.float().square().mean().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("device", "bfloat16", "expected"),
    [
        ("cpu", False, torch.contiguous_format),
        ("cpu", True, torch.channels_last),
        ("cuda", False, torch.channels_last),
        ("cuda", True, torch.channels_last),
        ("mps", False, torch.contiguous_format),
    ],
)
def test_the_layout_follows_device_and_precision(
    device: str, bfloat16: bool, expected: torch.memory_format
) -> None:
    assert memory_format(torch.device(device), bfloat16=bfloat16) == expected
