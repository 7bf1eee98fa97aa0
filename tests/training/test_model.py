import pytest
import torch
from skimage import data

from cv_superpoint.network import SuperPointNet, fold_batchnorm
from cv_superpoint.weights import load_weights
from train.model import STEM_LAYERS, TrainingNetwork, unfold_batchnorm


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
    assert min(learning) == STEM_LAYERS


def test_colour_network_takes_three_channels() -> None:
    network = TrainingNetwork(0, in_channels=3).eval()
    logits, _ = network(torch.zeros(1, 3, 16, 24, dtype=torch.uint8))
    assert logits.shape == (1, 65, 2, 3)
