"""Backends that are measured and not offered: rounded after every layer, and quantised."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import require
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

    def __init__(self, weights: LoadedWeights, precision: str) -> None:
        import torch

        self.precision = precision
        self._kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        self._layers = layers(weights.config)
        self._kernels = for_bytes(weights.config, weights.convolutions())

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """See :meth:`cv_superpoint.backends.Backend.run`."""
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
            logits, dense = (
                maps[name].permute(0, 2, 3, 1) for name in (DETECTOR[1], DESCRIPTOR[1])
            )
            return list(logits.numpy()), list(dense.numpy())

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
        """See :meth:`cv_superpoint.backends.Backend.info`."""
        return f"torch in float32, rounded to {self.precision} after every layer"


class QuantisedBackend:
    """The network in OpenVINO with 8-bit weights and maps, after training (NNCF's default).

    Args:
        weights: The network.
        calibration: (H, W) uint8 photographs of one size, whose maps set the ranges.
        threads: Of the CPU.
    """

    name = "openvino"
    device = "cpu"
    precision = "int8"
    batch = 1
    decodes = False

    def __init__(
        self,
        weights: LoadedWeights,
        calibration: Sequence[NDArray[np.uint8]],
        threads: int | None = None,
    ) -> None:
        nncf = require("nncf", "")
        require("openvino", "cpu")
        from cv_superpoint.backends.openvino import build_model
        from cv_superpoint.backends.openvino_core import shared_core

        images = [image[None, :, :, None] for image in calibration]
        model = nncf.quantize(build_model(weights), nncf.Dataset(images), subset_size=len(images))
        # What is not quantised is in float32, whatever the CPU has.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._model = shared_core().compile_model(model, "CPU", options)

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """See :meth:`cv_superpoint.backends.Backend.run`."""
        found = [self._model(image[None]) for image in images]
        logits = [one[0][0].transpose(1, 2, 0) for one in found]
        dense = [
            one[1].reshape(*cells.shape[:2], -1) for cells, one in zip(logits, found, strict=True)
        ]
        return logits, dense

    def info(self) -> str:
        """See :meth:`cv_superpoint.backends.Backend.info`."""
        return "openvino on cpu, int8"
