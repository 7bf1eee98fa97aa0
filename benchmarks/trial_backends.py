"""Backends that are measured and not offered: rounded after every layer, and two in turn."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend, Outputs
from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    DETECTOR,
    IMAGE,
    Convolution,
    for_bytes,
    layers,
)
from cv_superpoint.weights import LoadedWeights

Floats = NDArray[np.float32]


class RoundedBackend:
    """The network as a processor with 16-bit products computes it, on any processor.

    Products of 16-bit numbers are summed in float32, on CPUs and on tensor cores alike; so weights,
    biases and the maps after every layer are rounded, and torch computes in float32 in between.
    torch's own bfloat16 on a CPU without it rounds alike and takes many times as long.

    Args:
        weights: The network.
        precision: "bfloat16" or "float16".
    """

    name = "torch"
    device = "cpu"
    batch = 1
    decodes = False
    lanes = 1

    def __init__(self, weights: LoadedWeights, precision: str) -> None:
        import torch

        self.precision = precision
        self._kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        self._layers = layers(weights.config)
        self._kernels = for_bytes(weights.config, weights.convolutions())

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
            maps = {IMAGE: x.contiguous(memory_format=torch.channels_last)}
            for layer in self._layers:
                inputs = [maps[name] for name in layer.inputs]
                if layer.kind == "pool":
                    x = torch.nn.functional.max_pool2d(inputs[0], 2)
                elif layer.kind == "sum":
                    x = self._round(torch.relu(functools.reduce(torch.add, inputs)))
                else:
                    x = self._convolution(inputs[0], self._kernels[layer.name])
                maps[layer.name] = x
            logits = maps[DETECTOR[1]]
            found = logits, maps.get(DESCRIPTOR[1], logits[:, :0])
            first, second = (list(one.permute(0, 2, 3, 1).numpy()) for one in found)
            return first, second

    def _convolution(self, x: Any, layer: Convolution) -> Any:
        import torch

        weight, bias = (self._round(torch.from_numpy(v)) for v in (layer.weight, layer.bias))
        weight = weight.contiguous(memory_format=torch.channels_last)
        x = torch.nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding)
        x = self._round(x.relu_() if layer.relu else x)
        if layer.scale is not None and layer.shift is not None:
            for values, work in ((layer.scale, torch.mul), (layer.shift, torch.add)):
                x = self._round(work(x, self._round(torch.from_numpy(values))[:, None, None]))
        return x

    def _round(self, values: Any) -> Any:
        return values.to(self._kind).float()

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        return f"torch in float32, rounded to {self.precision} after every layer"


class AlternatingBackend:
    """One backend for the first image of each pair, another for the second.

    So features that were extracted in one precision meet those of another. Calls are counted, so
    images must be small enough to be no tiles.

    Args:
        first: Backend of every other call, from the first on.
        second: Backend of the calls between.
    """

    device = "cpu"
    batch = 1
    decodes = False
    lanes = 1

    def __init__(self, first: Backend, second: Backend) -> None:
        self.name, self.precision = first.name, f"{first.precision} and {second.precision}"
        self._turns = itertools.cycle((first, second))
        self._told = f"{first.info()}; then {second.info()}"

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        return next(self._turns).run(images)

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        return self._told
