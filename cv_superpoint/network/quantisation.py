"""The network in 8 bits, as data: which layers, between which values, and their whole numbers.

A value of a map becomes one of 256 evenly spaced ones between the lowest and the highest that the
map takes on photographs; a weight one of 255, spaced by the largest of its output channel. Products
of such numbers are summed in whole numbers without loss. Backends and exporters differ in how they
write that down, not in the numbers: all of them take them from here.

The first layer stays in float32: its weights lose more by rounding than those of any other, and it
is quickly done. With it in 8 bits .974 of the keypoints stayed within 1 px, without it .983 (32
photographs of the training set, 480 x 640).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.network.architecture import IMAGE, Convolution, NetworkConfig, layers

MAP_STEPS = 255
"""Steps between the lowest and the highest value of a map, in unsigned bytes."""
WEIGHT_STEPS = 127
"""Steps between 0 and the largest weight of a channel, in signed bytes, symmetric."""


@dataclass(frozen=True, kw_only=True)
class MapRange:
    """Range of the values of a map in 8 bits.

    Attributes:
        low: Lowest value, at most 0.
        high: Highest value, above ``low``.
    """

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Distance from one of the 256 values to the next."""
        scale: np.float32 = np.float32((self.high - self.low) / MAP_STEPS)
        return scale

    @property
    def zero(self) -> int:
        """The byte that encodes 0 exactly: layers are padded with it."""
        return round(-self.low / float(self.scale))

    @property
    def ends(self) -> tuple[np.float32, np.float32]:
        """The values of the bytes 0 and 255."""
        low, high = -self.zero * self.scale, (MAP_STEPS - self.zero) * self.scale
        return np.float32(low), np.float32(high)

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest of the 256 values to each."""
        steps = np.clip(np.rint(values / self.scale) + self.zero, 0, MAP_STEPS)
        return np.asarray((steps - self.zero) * self.scale, np.float32)


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What 8 bits need beside the weights.

    Attributes:
        maps: Ranges by the layers' names, see :func:`rounded_maps`.
        tensors: :attr:`NetworkWeights.tensor_digest` of the network that they were found with.
        method: How they were found.
        photographs: Photographs that they were found on, in words.
    """

    maps: Mapping[str, MapRange]
    tensors: str
    method: str = ""
    photographs: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeWeights:
    """A convolution's weights in 8 bits.

    Attributes:
        values: (out, in, k, k) int8.
        scales: (out,) float32, the value of a 1.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def rounded(self) -> NDArray[np.float32]:
        """The weights that are computed with, (out, in, k, k)."""
        return self.values.astype(np.float32) * self.scales[:, None, None, None]


def convolutions_in_8_bits(config: NetworkConfig) -> frozenset[str]:
    """Names of the convolutions whose maps and weights are told in 8 bits: all but the first."""
    return frozenset(
        layer.name
        for layer in layers(config)
        if layer.kind == "convolution" and IMAGE not in layer.inputs
    )


def rounded_maps(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the layers whose results are told in 8 bits, in the order of :func:`layers`.

    Those that a convolution in 8 bits takes, at once or through a pooling, which changes no value.
    """
    whole, taken = convolutions_in_8_bits(config), set[str]()
    for layer in reversed(layers(config)):
        if layer.name in whole or (layer.kind == "pool" and layer.name in taken):
            taken |= set(layer.inputs)
    return tuple(
        layer.name for layer in layers(config) if layer.kind != "pool" and layer.name in taken
    )


def whole_weights(layer: Convolution) -> WholeWeights:
    """A convolution's weights in 8 bits, each output channel by its largest."""
    largest = np.abs(layer.weight).max(axis=(1, 2, 3))
    scales = (largest / WEIGHT_STEPS).astype(np.float32)
    # Of weights that are as good as 0 the scale is no whole float32 any more, or 0.
    scales = np.where(scales >= np.finfo(np.float32).tiny, scales, np.float32(1))
    steps = np.rint(layer.weight / scales[:, None, None, None])
    return WholeWeights(
        values=np.clip(steps, -WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8), scales=scales
    )
