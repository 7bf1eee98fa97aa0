"""The Torch-native module: the same keypoints as the OpenCV face, and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cv_superpoint import SuperPoint, SuperPointFeature2D
from cv_superpoint.network import torch_network as network

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32) / 255)[None, None]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("crop", [(240, 320), (237, 309), (5, 3)])
def test_same_keypoints_as_the_face(
    detector: SuperPointFeature2D, grey: np.ndarray, crop: tuple[int, int], device: str
) -> None:
    image = grey[: crop[0], : crop[1]].copy()
    expected = detector.extract(image)
    module = SuperPoint.from_pretrained().to(device)
    with torch.inference_mode():
        (found,) = module(tensor(image).to(device))
    assert len(found.keypoints) == len(expected)
    np.testing.assert_allclose(found.keypoints.cpu(), expected.keypoints, atol=1e-2)
    np.testing.assert_allclose(found.scores.cpu(), expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.descriptors.cpu(), expected.descriptors, atol=1e-3)


def test_batch_gives_one_set_for_each_image(grey: np.ndarray) -> None:
    module = SuperPoint.from_pretrained(max_keypoints=30)
    images = torch.cat([tensor(grey), tensor(grey[:, ::-1].copy())])
    with torch.inference_mode():
        sets = module(images)
    assert [len(one.keypoints) for one in sets] == [30, 30]
    assert torch.all(sets[0].scores.diff() <= 0)


def test_dense_outputs_have_gradients(grey: np.ndarray) -> None:
    module = SuperPoint.from_pretrained()
    images = tensor(grey[:61, :83].copy()).requires_grad_()
    heatmap, descriptors = module.dense(images)
    assert heatmap.shape == (1, 61, 83)
    assert descriptors.shape == (1, 256, 8, 11)
    (heatmap.amax() + descriptors[0, 0].sum()).backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_positions_have_gradients(grey: np.ndarray) -> None:
    module = SuperPoint.from_pretrained(max_keypoints=10)
    images = tensor(grey[:64, :96].copy()).requires_grad_()
    module(images)[0].keypoints.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_wrong_shapes_are_named() -> None:
    net = network.SuperPointNet()
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        net(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="multiples of 8"):
        net(torch.zeros(1, 1, 17, 16))


def test_folding_keeps_the_function() -> None:
    generator = torch.Generator().manual_seed(0)
    config = network.NetworkConfig(norm="before_relu", output_norm=True)
    net = network.SuperPointNet(config)
    for name, tensor_ in [*net.named_parameters(), *net.named_buffers()]:
        if "norm" in name and tensor_.is_floating_point():
            tensor_.data.copy_(torch.rand(tensor_.shape, generator=generator) + 0.5)
    net.eval()
    folded = network.fold_batchnorm(net)
    assert not any("norm" in name for name in folded.state_dict())
    image = torch.rand((1, 1, 32, 40), generator=generator)
    with torch.inference_mode():
        for before, after in zip(net(image), folded(image), strict=True):
            torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be folded"):
        network.fold_batchnorm(network.SuperPointNet(network.NetworkConfig(norm="after_relu")))
