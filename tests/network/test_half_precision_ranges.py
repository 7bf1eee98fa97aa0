"""No map of a bundled network comes near the largest number that float16 holds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from cv_superpoint.network.torch_network import ConvBlock
from cv_superpoint.weights import available_weights, load_weights

LARGEST = 65504.0
"""Largest number of float16."""


def images() -> dict[str, np.ndarray]:
    """(H, W) uint8: what is usual, and what excites a network most."""
    rng = np.random.default_rng(0)
    size = (240, 320)
    photographs = {
        name: cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size[::-1])
        for name in ("astronaut", "coffee", "chelsea", "rocket")
        for picture in [getattr(skimage.data, name)()]
    }
    rows, columns = np.indices(size)
    return photographs | {
        "noise": rng.integers(0, 256, size, np.uint8),
        "black or white noise": (rng.integers(0, 2, size) * 255).astype(np.uint8),
        "chequerboard of pixels": ((rows + columns) % 2 * 255).astype(np.uint8),
        "chequerboard of cells": ((rows // 8 + columns // 8) % 2 * 255).astype(np.uint8),
        "black": np.zeros(size, np.uint8),
        "white": np.full(size, 255, np.uint8),
        "one white pixel": np.pad(np.full((1, 1), 255, np.uint8), ((120, 119), (160, 159))),
    }


@pytest.mark.parametrize("name", available_weights())
def test_activations_fit_into_float16(name: str) -> None:
    net = load_weights(name).net
    largest: dict[str, float] = {}

    def look(layer: str) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> None:
            largest[layer] = max(largest.get(layer, 0.0), float(output.abs().amax()))

        return hook

    for layer, block in net.named_modules():
        if isinstance(block, ConvBlock):
            # Before the ReLU, as it is stored.
            block.conv.register_forward_hook(look(layer))
    pictures = images()
    stack = torch.from_numpy(np.stack(list(pictures.values())))[:, None].float() / 255
    with torch.inference_mode():
        features = net.encode(stack.expand(-1, net.config.in_channels, -1, -1))
        net.detect(features)
        raw = net.raw_descriptors(features)
    assert len(largest) == sum(isinstance(one, ConvBlock) for one in net.modules())
    assert max(largest.values()) < LARGEST / 100, largest
    # Squares are summed in float32, and the length is stored.
    assert float(raw.square().sum(dim=1).sqrt().amax()) < LARGEST / 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_descriptor_of_zeros_stays_one(dtype: torch.dtype) -> None:
    """1e-12 is 0 in float16, and 0 / 0 is no number."""
    net = load_weights("superpoint-lite").net
    for parameter in net.descriptor_output.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.inference_mode():
        dense = net(torch.zeros(1, 1, 16, 16))[1]
        features = net.encode(torch.zeros(1, 1, 16, 16))
        low = net.to(dtype).describe(type(features)(*(one.to(dtype) for one in features)))
    assert torch.equal(dense, torch.zeros_like(dense))
    assert torch.equal(low, torch.zeros_like(low))
