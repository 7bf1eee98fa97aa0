"""The network in numpy, and what 8 bits leave of maps and weights."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cv_superpoint.network.architecture import Convolution, NetworkConfig, output_names
from cv_superpoint.network.arrays import run_layers
from cv_superpoint.network.quantisation import (
    MapRange,
    convolutions_in_8_bits,
    rounded_maps,
    whole_weights,
)
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import available_weights, load_weights

CONFIGS = {
    "paper": NetworkConfig(channels=(4, 5, 6, 7), head_channels=8, descriptor_dim=9),
    "colour": NetworkConfig(in_channels=3, channels=(4, 5, 6, 7), norm="after_relu"),
    "strided": NetworkConfig(
        channels=(4, 5, 6), depths=(2, 1, 2), downsampling="stride", detector_skips=True
    ),
}
finite = st.floats(-100, 100, width=32)


@pytest.mark.parametrize("kind", CONFIGS)
def test_numpy_computes_what_torch_does(kind: str) -> None:
    torch.manual_seed(4)
    net = SuperPointNet(CONFIGS[kind]).eval()
    for values in net.buffers():
        if values.is_floating_point():
            values.uniform_(0.5, 1.5)
    image = skimage.data.astronaut()[100:172, 80:176, : net.config.in_channels].copy()
    with torch.inference_mode():
        logits, dense = net(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    mine = run_layers(NetworkWeights.of(net), image)
    np.testing.assert_allclose(mine[0], logits[0].numpy(), atol=1e-4)
    units = mine[1] / np.linalg.norm(mine[1], axis=0)
    np.testing.assert_allclose(units, dense[0].numpy(), atol=1e-4)


@given(
    values=arrays.arrays(np.float32, 50, elements=finite),
    low=st.floats(-50, 0, width=32),
    high=st.floats(0.0625, 50, width=32),
)
def test_a_map_keeps_its_zeros_and_half_a_step(values: np.ndarray, low: float, high: float) -> None:
    to = MapRange(low=low, high=high)
    rounded = to.rounded(values)
    lowest, highest = to.ends
    assert 0 <= to.zero <= 255
    assert highest - lowest == pytest.approx(high - low, rel=1e-5)
    inside = (values >= lowest) & (values <= highest)
    assert np.all(np.abs(rounded - values)[inside] <= 0.5001 * to.scale)
    assert np.all((rounded >= lowest) & (rounded <= highest))
    np.testing.assert_array_equal(to.rounded(rounded), rounded)
    assert not to.rounded(np.zeros(1, np.float32)).any()
    assert len(np.unique(to.rounded(np.linspace(-200, 200, 5000, dtype=np.float32)))) <= 256


@given(
    weight=arrays.arrays(np.float32, (3, 2, 3, 3), elements=finite),
    factor=st.sampled_from([1, 1e-3, 1e-30, 1e-37, 1e-44, 0]),
)
def test_weights_are_bytes_of_their_channel(weight: np.ndarray, factor: float) -> None:
    weight[1] *= np.float32(factor)
    whole = whole_weights(Convolution(name="x", weight=weight, bias=weight[:, 0, 0, 0], relu=True))
    assert whole.values.dtype == np.int8
    assert np.abs(whole.values.astype(int)).max(initial=0) <= 127
    # Weights whose step would be below the smallest whole float32 are 0.
    steps = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / 127, 3e-36)
    error = np.abs(whole.rounded - weight).max(axis=(1, 2, 3))
    assert np.all(error <= 0.5001 * steps)


@pytest.mark.parametrize("name", available_weights())
def test_all_but_the_first_layer_are_in_8_bits(name: str) -> None:
    config = load_weights(name).config
    whole = convolutions_in_8_bits(config)
    assert "encoder.0" not in whole
    assert {"encoder.1", *output_names(config)} <= whole
    maps = rounded_maps(config)
    assert maps[0] == "encoder.0"
    # The skips' results are summed before they are rounded, and poolings change no value.
    assert not {one for one in maps if one.startswith(("detector_skips", "pooled"))}
    assert ("detector_input" in maps) == config.detector_skips
    assert not {"detector_output", "descriptor_output"} & set(maps)
