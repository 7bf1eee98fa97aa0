"""The network in numpy: slow and plain, to look at every map without a backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    DETECTOR,
    IMAGE,
    Convolution,
    for_bytes,
    layers,
)
from cv_superpoint.network.quantisation import convolutions_in_8_bits, whole_weights
from cv_superpoint.network.weights import NetworkWeights

Floats = NDArray[np.float32]
Change = Callable[[str, Floats], Floats]


def run_layers(
    weights: NetworkWeights,
    image: NDArray[np.uint8],
    change: Change = lambda _, values: values,
    kernels: Mapping[str, Convolution] | None = None,
) -> tuple[Floats, Floats]:
    """Logits (65, h, w) and descriptors (D, h, w) of any length of one image.

    Args:
        weights: The network; without descriptors D is 0.
        image: (H, W, C) uint8, H and W multiples of 8.
        change: Function of every layer's name and result (C, H, W); the next layer takes what it
            returns.
        kernels: Other convolutions for pixels in [0, 255] than those of the weights.
    """
    kernels = kernels or for_bytes(weights.config, weights.convolutions())
    maps: dict[str, Floats] = {IMAGE: image.transpose(2, 0, 1).astype(np.float32)}
    for layer in layers(weights.config):
        inputs = [maps[name] for name in layer.inputs]
        if layer.kind == "pool":
            halves = inputs[0][:, ::2], inputs[0][:, 1::2]
            rows = np.maximum(*halves)
            x = np.maximum(rows[..., ::2], rows[..., 1::2])
        elif layer.kind == "sum":
            x = np.maximum(functools.reduce(np.add, inputs), 0)
        else:
            x = _convolution(inputs[0], kernels[layer.name])
        maps[layer.name] = change(layer.name, x)
    logits = maps[DETECTOR[1]]
    return logits, maps.get(DESCRIPTOR[1], logits[:0])


def run_in_8_bits(weights: NetworkWeights, image: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Same as :func:`run_layers`, but maps and weights are rounded as in 8 bits.

    Args:
        weights: The network, with ranges.
        image: (H, W, C) uint8.
    """
    assert weights.ranges is not None
    maps, whole = weights.ranges.maps, convolutions_in_8_bits(weights.config)

    def change(name: str, values: Floats) -> Floats:
        return maps[name].rounded(values) if name in maps else values

    kernels = {
        name: replace(layer, weight=whole_weights(layer).rounded) if name in whole else layer
        for name, layer in for_bytes(weights.config, weights.convolutions()).items()
    }
    return run_layers(weights, image, change, kernels)


def _convolution(x: Floats, layer: Convolution) -> Floats:
    """A product of matrices for each place in the kernel."""
    count, channels, size, _ = layer.weight.shape
    side = layer.padding
    padded = np.pad(x, ((0, 0), (side, side), (side, side)))
    height, width = ((n - size) // layer.stride + 1 for n in padded.shape[1:])
    result = np.repeat(layer.bias[:, None], height * width, axis=1)
    for row in range(size):
        for column in range(size):
            rows = slice(row, row + (height - 1) * layer.stride + 1, layer.stride)
            columns = slice(column, column + (width - 1) * layer.stride + 1, layer.stride)
            seen = padded[:, rows, columns].reshape(channels, -1)
            result += layer.weight[:, :, row, column] @ seen
    result = result.reshape(count, height, width)
    if layer.relu:
        np.maximum(result, 0, out=result)
    if layer.scale is not None and layer.shift is not None:
        result = result * layer.scale[:, None, None] + layer.shift[:, None, None]
    return result
