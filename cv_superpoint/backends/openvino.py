"""The network in OpenVINO: bfloat16 where the CPU has it, float32 elsewhere."""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset8

from cv_superpoint.architecture import DESCRIPTOR, DETECTOR, IMAGE, Convolution, layers
from cv_superpoint.backends.cache import CachedFile
from cv_superpoint.backends.processor import CPU_BFLOAT16, instructions
from cv_superpoint.weights import LoadedWeights

GRAPH_VERSION = "2"
"""Changes with the graph below, so that no compiled model of another one is read."""
MOST_SHAPES = 64
"""Compiled kernels that are kept for each of the shapes seen; OpenVINO's own bound is 5000."""
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_LOG = logging.getLogger(__name__)


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16, and OpenVINO may use it."""
    return CPU_BFLOAT16 in instructions()


class OpenVinoBackend:
    """See :class:`cv_superpoint.backends.Backend`.

    One model with dynamic shapes; images of a batch run one after the other, so a result does not
    depend on the rest of its batch. Every call takes an inference request that no other uses.

    Raises:
        ValueError: If the CPU does not have the precision.
    """

    name = "openvino"
    device = "cpu"
    batch = 1
    decodes = False

    def __init__(
        self, weights: LoadedWeights, *, precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision not in _HINTS:
            raise ValueError(
                f"precision must be one of {', '.join(_HINTS)} with openvino, got {precision!r}"
            )
        if precision == "bfloat16" and not has_bfloat16():
            raise ValueError(
                "this CPU has neither AMX nor AVX512-BF16, or ONEDNN_MAX_CPU_ISA forbids them; "
                "use precision='float32' or 'auto'"
            )
        self.precision = precision
        self._model = _compile(weights, precision, threads)
        self._free: deque[Any] = deque()  # its append and pop are atomic

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`cv_superpoint.backends.Backend.run`."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self._model.create_infer_request()
        outputs: list[list[NDArray[np.float32]]] = [[], []]
        for image in images:
            request.infer({0: image[None]}, share_inputs=True)
            for index, rows in enumerate(outputs):
                rows.append(request.get_output_tensor(index).data.copy())
        self._free.append(request)
        if len(images) == 1:
            return outputs[0][0], outputs[1][0]
        return np.concatenate(outputs[0]), np.concatenate(outputs[1])

    def describe(self) -> str:
        """See :meth:`cv_superpoint.backends.Backend.describe`."""
        version = openvino.__version__.partition("-")[0]
        return f"openvino {version} on cpu, {self.precision}"


def _compile(weights: LoadedWeights, precision: str, threads: int | None) -> Any:
    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "CPU_RUNTIME_CACHE_CAPACITY": MOST_SHAPES,
        # Two processes that pin themselves would share the first core.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    key = (weights.sha256, str(weights.config), openvino.__version__, GRAPH_VERSION)
    cached = CachedFile("openvino", *key, *sorted(capabilities), str(sorted(options.items())))
    blob = cached.read()
    if blob is not None:
        try:
            return core.import_model(blob, "CPU", options)
        except RuntimeError as error:
            _LOG.info("the cached model is not taken, compiling anew: %s", error)
    compiled = core.compile_model(build_model(weights), "CPU", options)
    cached.write(compiled.export_model().getvalue())
    return compiled


def build_model(weights: LoadedWeights) -> Any:
    """(B, H, W, C) uint8 -> logits and unit descriptors, channels last."""
    kernels = weights.convolutions()
    shape = openvino.PartialShape([-1, -1, -1, weights.config.in_channels])
    images = opset8.parameter(shape, np.uint8, "images")
    x = opset8.divide(opset8.convert(images, np.float32), opset8.constant(np.float32(255)))
    maps = {IMAGE: opset8.transpose(x, opset8.constant([0, 3, 1, 2]))}
    for layer in layers(weights.config):
        inputs = [maps[name] for name in layer.inputs]
        if layer.kind == "pool":
            x = opset8.max_pool(inputs[0], [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        elif layer.kind == "sum":
            x = opset8.relu(functools.reduce(opset8.add, inputs))
        else:
            x = _convolution(inputs[0], kernels[layer.name])
        maps[layer.name] = x
    logits, raw = maps[DETECTOR[1]], maps[DESCRIPTOR[1]]
    unit = opset8.normalize_l2(raw, opset8.constant(np.array([1])), 1e-24, "max")
    last = opset8.constant([0, 2, 3, 1])
    results = [opset8.transpose(maps, last) for maps in (logits, unit)]
    return openvino.Model(results, [images], "superpoint")


def _convolution(x: Any, layer: Convolution) -> Any:
    weight = opset8.constant(layer.weight)
    stride, side = [layer.stride] * 2, [layer.padding] * 2
    x = opset8.convolution(x, weight, stride, side, side, [1, 1])
    x = opset8.add(x, opset8.constant(layer.bias[None, :, None, None]))
    if layer.relu:
        x = opset8.relu(x)
    if layer.scale is not None and layer.shift is not None:
        x = opset8.multiply(x, opset8.constant(layer.scale[None, :, None, None]))
        x = opset8.add(x, opset8.constant(layer.shift[None, :, None, None]))
    return x
