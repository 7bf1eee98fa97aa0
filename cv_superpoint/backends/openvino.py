"""The network in OpenVINO: in 8 bits, bfloat16 where the CPU has it, float32."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.cache import CachedFile
from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.forks import is_forked, no_fork, wait_for_sleepers
from cv_superpoint.backends.memory import keep_with
from cv_superpoint.backends.openvino_core import openvino, opset8, shared_core
from cv_superpoint.backends.pace import Pace
from cv_superpoint.backends.processor import CPU_BFLOAT16, check_8_bits, instructions
from cv_superpoint.backends.workers import Task, run_tasks
from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    IMAGE,
    Convolution,
    for_bytes,
    layers,
    multiplications,
    output_names,
    receptive_margin,
)
from cv_superpoint.network.quantisation import (
    MAP_STEPS,
    MapRange,
    convolutions_in_8_bits,
    whole_weights,
)
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights.ranges import needed_ranges

GRAPH_VERSION = "4"
"""Changes with the graph below, so that no compiled model of another one is read."""
MOST_SHAPES = 64
"""Compiled kernels that are kept for each of the shapes seen; OpenVINO's own bound is 5000."""
MOST_FREE = 4
"""Inference requests that wait for another call, each with the memory of its outputs."""
SMALL = 4e9
"""Multiplications for an image, below which models of one size pay: a model for any size takes up
to half a millisecond longer, and changes what it keeps when the levels of a pyramid take turns."""
OFTEN = 8
"""Calls of one size until a model is compiled for it, which takes as long as a dozen of them."""
MOST_SIZES = 8
"""Models of one size, each with its memory; further sizes have the model for any size. None goes
for another, or sizes that take turns would be compiled again and again."""
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""OpenVINO's hint by precision; int8 names float32, for the layers that are not in 8 bits."""
Floats = NDArray[np.float32]

_LOG = logging.getLogger(__name__)


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16, and OpenVINO may use it."""
    return CPU_BFLOAT16 in instructions()


class OpenVinoBackend:
    """Runs the network in OpenVINO, see :class:`cv_superpoint.backends.Backend`.

    One model with dynamic shapes; images of a batch run one after the other, so a result does not
    depend on the rest of its batch.

    On several threads there are two ways to the same bits. OpenVINO's threads share every layer and
    wait for each other after it, which is the fastest on an idle machine. Or each of this package's
    threads computes one band of the image, with the rows around it that it depends on. That is more
    work, but no thread waits for another. The way that took less time in the last calls is taken.

    Raises:
        FeatureError: If the CPU does not have the precision.
        WeightsError: If the weights have no ranges for 8 bits.
    """

    name = "openvino"
    device = "cpu"
    batch = 1
    decodes = False

    def __init__(
        self, weights: NetworkWeights, *, precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision not in _HINTS:
            raise FeatureError(
                f"precision must be one of {', '.join(_HINTS)} with openvino, got {precision!r}"
            )
        if precision == "bfloat16" and not has_bfloat16():
            raise FeatureError(
                "this CPU has neither AMX nor AVX512-BF16, or ONEDNN_MAX_CPU_ISA forbids them; "
                "use precision='float32' or 'auto'"
            )
        if precision == "int8":
            check_8_bits()
            needed_ranges(weights)
        self.precision = precision
        wait_for_sleepers()  # its threads take locks when they wake and when they go to sleep
        self._weights, self._threads = weights, threads or default_threads()
        self._margin = receptive_margin(weights.config)
        with no_fork():
            self._model = _Model(_compile(weights, precision, self._threads))
        self._of_size: dict[tuple[int, int], _Model] = {}
        self._calls: dict[tuple[int, int], int] = {}
        self._may_fix = True
        self._for_bands: _Model | None = None
        self._pace = Pace(2)
        self._verified = False
        self._may_band = self._threads > 1

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        return _by_cells([self._network(image[None]) for image in images])

    @property
    def lanes(self) -> int:
        """Same as :attr:`cv_superpoint.backends.Backend.lanes`; 1 until both ways were tried."""
        shown = self._verified and self._may_band and not is_forked()
        return self._threads if shown else 1

    def run_alone(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run on one thread, see :meth:`cv_superpoint.detector.lanes.LanesBackend.run_alone`."""
        if self.lanes == 1:
            return self.run(images)
        assert self._for_bands is not None
        return _by_cells([self._for_bands.infer(image[None]) for image in images])

    def _network(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Logits (1, 65, h, w), descriptors (1, h w, D) of (1, H, W, C) images."""
        size = images.shape[1:3]
        count = min(self._threads, size[0] // (2 * self._margin))
        model = self._model_for(images)
        # A forked child lacks the threads that OpenVINO hands calls on single threads to.
        if count < 2 or not self._may_band or is_forked():
            return model.infer(images)
        way, start = self._pace.choose(size), time.perf_counter()
        outputs = model.infer(images) if way == 0 else self._run_bands(images, count)
        self._pace.report(size, way, time.perf_counter() - start)
        if way and not self._verified:
            # oneDNN promises no such thing, so each processor has to show it once.
            whole = model.infer(images)
            self._may_band = all(map(np.array_equal, whole, outputs))
            self._verified = True
            return whole
        return outputs

    def _model_for(self, images: NDArray[np.uint8]) -> _Model:
        """The model for any size, or that of this size where the network is small."""
        _, height, width, _ = images.shape
        size = height, width
        if size in self._of_size:
            return self._of_size[size]
        calls = self._calls[size] = self._calls.get(size, 0) + 1
        if len(self._calls) > MOST_SHAPES:
            self._calls.clear()
        small = multiplications(self._weights.config, size) < SMALL
        full = len(self._of_size) >= MOST_SIZES
        if calls <= OFTEN or full or not small or not self._may_fix or is_forked():
            return self._model
        with no_fork():
            compiled = _compile(self._weights, self.precision, self._threads, shape=images.shape)
            fixed = _Model(compiled)
        # As for bands: it is not promised that both compute the same.
        both = fixed.infer(images), self._model.infer(images)
        self._may_fix = all(map(np.array_equal, *both))
        if not self._may_fix:
            return self._model
        self._of_size[size] = fixed
        return fixed

    def _run_bands(self, images: NDArray[np.uint8], count: int) -> tuple[Floats, Floats]:
        """The same outputs as of the whole image, computed from bands of rows."""
        if self._for_bands is None:
            with no_fork():
                compiled = _compile(self._weights, self.precision, self._threads, alone=True)
            self._for_bands = _Model(compiled)
        model = self._for_bands
        height, width = (side // CELL_SIZE for side in images.shape[1:3])
        logits = np.empty((1, CELL_SIZE**2 + 1, height, width), np.float32)
        dense = np.empty((1, height, width, self._weights.config.descriptor_dim), np.float32)

        def work(first: int, last: int) -> None:
            around = self._margin // CELL_SIZE
            top, bottom = max(0, first - around), min(height, last + around)
            band = images[:, top * CELL_SIZE : bottom * CELL_SIZE]
            cells, descriptors = model.infer(band)
            rows = slice(first - top, last - top)
            logits[:, :, first:last] = cells[:, :, rows]
            dense[:, first:last] = descriptors.reshape(1, bottom - top, *dense.shape[2:])[:, rows]

        cuts = [round(height * k / count) for k in range(count + 1)]
        run_tasks([Task(work=partial(work, *cut)) for cut in pairwise(cuts)], count)
        return logits, dense.reshape(1, height * width, dense.shape[-1])

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        version = openvino.__version__.partition("-")[0]
        return f"openvino {version} on cpu, {self.precision}"


def _by_cells(outputs: Sequence[tuple[Floats, Floats]]) -> tuple[list[Floats], list[Floats]]:
    """Logits (h, w, 65) and descriptors (h, w, D) of each image."""
    logits = [one[0].transpose(1, 2, 0) for one, _ in outputs]
    dense = [
        one.reshape(*cells.shape[:2], one.shape[-1])
        for cells, (_, one) in zip(logits, outputs, strict=True)
    ]
    return logits, dense


class _Model:
    """A compiled model and its requests that no call uses."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._free: deque[Any] = deque()  # its append and pop are atomic

    def infer(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Both outputs, in the memory of a request that no other call uses meanwhile."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        loan = _Loan(request, self._free)
        with no_fork():
            request.infer({0: images}, share_inputs=True)
        logits, *dense = (one.data for one in request.output_tensors)
        if not dense:
            cells = math.prod(logits.shape[2:])
            return keep_with(logits, loan), np.empty((len(images), cells, 0), np.float32)
        return keep_with(logits, loan), keep_with(dense[0], loan)


class _Loan:
    """An inference request that no other call takes until nothing uses its outputs any more."""

    def __init__(self, request: Any, free: deque[Any]) -> None:
        self._request, self._free = request, free

    def __del__(self) -> None:
        if len(self._free) < MOST_FREE:
            self._free.append(self._request)


def _compile(
    weights: NetworkWeights,
    precision: str,
    threads: int,
    *,
    alone: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Any:
    """The model, for one call on all threads or for as many calls, each alone on one.

    Args:
        weights: The network.
        precision: One of those of the backend.
        threads: Threads of all calls together.
        alone: Whether each call runs on one.
        shape: Shape of all images; any by default.
    """
    core = shared_core()
    options: dict[str, Any] = {
        **({"NUM_STREAMS": threads} if alone else {"PERFORMANCE_HINT": "LATENCY"}),
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "CPU_RUNTIME_CACHE_CAPACITY": MOST_SHAPES,
        # Two processes that pin themselves would share the first core.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": threads,
    }
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ranges = str(weights.ranges) if precision == "int8" else ""
    key = [weights.digest, str(weights.config), openvino.__version__, GRAPH_VERSION, ranges]
    key += [] if shape is None else [str(shape)]
    cached = CachedFile("openvino", *key, *sorted(capabilities), str(sorted(options.items())))
    blob = cached.read()
    if blob is not None:
        try:
            return core.import_model(blob, "CPU", options)
        except RuntimeError as error:
            _LOG.info("the cached model is not taken, compiling anew: %s", error)
    model = build_model(weights, in_8_bits=precision == "int8")
    if shape is not None:
        model.reshape({0: list(shape)})
    compiled = core.compile_model(model, "CPU", options)
    cached.write(compiled.export_model().getvalue())
    return compiled


def build_model(weights: NetworkWeights, *, in_8_bits: bool = False) -> Any:
    """(B, H, W, C) uint8 -> logits (B, 65, h, w) and descriptors (B, h w, D) of any length.

    Without descriptors the logits are all that it gives.

    In 8 bits every map has a FakeQuantize with its range behind it, and weights are signed bytes
    with a factor for each output channel, as OpenVINO's transformations for low precision take
    them.
    """
    kernels = for_bytes(weights.config, weights.convolutions())
    ranges = needed_ranges(weights).maps if in_8_bits else {}
    whole = convolutions_in_8_bits(weights.config) if in_8_bits else frozenset()
    shape = openvino.PartialShape([-1, -1, -1, weights.config.in_channels])
    images = opset8.parameter(shape, np.uint8, "images")
    pixels = opset8.convert(images, np.float32)
    maps = {IMAGE: opset8.transpose(pixels, opset8.constant([0, 3, 1, 2]))}
    for layer in layers(weights.config):
        inputs = [maps[name] for name in layer.inputs]
        if layer.kind == "pool":
            x = opset8.max_pool(inputs[0], [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        elif layer.kind == "sum":
            x = opset8.relu(functools.reduce(opset8.add, inputs))
        else:
            kernel = kernels[layer.name]
            weight = _weight(kernel, in_8_bits=layer.name in whole)
            run = _product if layer.name == DESCRIPTOR[1] else _convolution
            x = run(inputs[0], weight, kernel)
        maps[layer.name] = _rounded(x, ranges[layer.name]) if layer.name in ranges else x
    results = [maps[name] for name in output_names(weights.config)]
    return openvino.Model(results, [images], "superpoint")


def _weight(layer: Convolution, *, in_8_bits: bool) -> Any:
    """A convolution's weights, (out, in, k, k)."""
    if not in_8_bits:
        return opset8.constant(layer.weight)
    whole = whole_weights(layer)
    values = opset8.convert(opset8.constant(whole.values), np.float32)
    return opset8.multiply(values, opset8.constant(whole.scales[:, None, None, None]))


def _rounded(x: Any, to: MapRange) -> Any:
    ends = [opset8.constant(end) for end in to.ends]
    return opset8.fake_quantize(x, *ends, *ends, MAP_STEPS + 1)


def _convolution(x: Any, weight: Any, layer: Convolution) -> Any:
    stride, side = [layer.stride] * 2, [layer.padding] * 2
    x = opset8.convolution(x, weight, stride, side, side, [1, 1])
    x = opset8.add(x, opset8.constant(layer.bias[None, :, None, None]))
    if layer.relu:
        x = opset8.relu(x)
    if layer.scale is not None and layer.shift is not None:
        x = opset8.multiply(x, opset8.constant(layer.scale[None, :, None, None]))
        x = opset8.add(x, opset8.constant(layer.shift[None, :, None, None]))
    return x


def _product(x: Any, weight: Any, layer: Convolution) -> Any:
    """A 1 x 1 convolution (B, C, h, w) -> (B, h w, D), channels last.

    A transposition behind a convolution gives the same, but where convolutions keep channels last
    in memory it takes longer, in a model of dynamic shapes, than all of the decoding.
    """
    count, channels, *_ = layer.weight.shape
    cells = opset8.reshape(x, opset8.constant([0, channels, -1]), True)
    rows = opset8.reshape(weight, opset8.constant([count, channels]), False)
    x = opset8.add(opset8.matmul(cells, rows, True, True), opset8.constant(layer.bias))
    assert not layer.relu
    if layer.scale is not None and layer.shift is not None:
        x = opset8.add(
            opset8.multiply(x, opset8.constant(layer.scale)), opset8.constant(layer.shift)
        )
    return x
