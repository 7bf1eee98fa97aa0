"""The matcher's network in OpenVINO, without ONNX in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.forks import is_forked, no_fork, wait_for_sleepers
from cv_superpoint.backends.openvino_core import openvino, opset8, shared_core
from cv_superpoint.matching.lightglue.arrays import EPSILON
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.lanes import Inputs, side_by_side
from cv_superpoint.matching.lightglue.layers import MatcherLayers

Floats = NDArray[np.float32]
T = TypeVar("T")
MOST_FREE = 4
"""Inference requests that wait for another call."""


class OpenVinoRunner:
    """Runs a matcher, see :class:`cv_superpoint.matching.lightglue.running.Runner`.

    Args:
        tensors: Tensors of the network by name.
        config: Sizes of the network.
        threads: Threads of one call.
    """

    name = "openvino"

    def __init__(self, tensors: Mapping[str, Floats], config: MatcherConfig, threads: int) -> None:
        wait_for_sleepers()  # its threads take locks when they wake and when they go to sleep
        self._tensors, self._config, self._threads = tensors, config, threads
        self._together = self._compile(alone=False)
        self._alone: _Model | None = None

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        return self._together(points, descriptors)

    def each(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """Side by side."""
        # A forked child lacks the threads that OpenVINO hands calls on single threads to.
        lanes = 1 if is_forked() else self._threads
        if self._alone is None and 1 < lanes <= len(pairs):
            self._alone = self._compile(alone=True)
        alone = self._alone or self._together
        return side_by_side(alone, self._together, pairs, finish, lanes)

    def _compile(self, *, alone: bool) -> _Model:
        """The network, for one call on all threads or for as many calls, each alone on one."""
        options = {
            **({"NUM_STREAMS": self._threads} if alone else {"PERFORMANCE_HINT": "LATENCY"}),
            # Without it a CPU that multiplies in bfloat16 does.
            "INFERENCE_PRECISION_HINT": "f32",
            # With its cache of kernels OpenVINO 2026.4 gives wrong scores where the numbers of
            # keypoints change from call to call.
            "CPU_RUNTIME_CACHE_CAPACITY": 0,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": self._threads,
        }
        with no_fork():
            model = build_model(self._tensors, self._config)
            return _Model(shared_core().compile_model(model, "CPU", options))


class _Model:
    """A compiled model; safe to call from several threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: deque[Any] = deque()  # its append and pop are atomic

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        with no_fork():
            request.infer({index: rows[None] for index, rows in enumerate((*points, *descriptors))})
        scores: Floats = request.get_output_tensor(0).data[0].copy()
        if len(self._free) < MOST_FREE:
            self._free.append(request)
        return scores


def build_model(tensors: Mapping[str, Floats], config: MatcherConfig) -> Any:
    """Positions (1, N, 2), (1, M, 2) and descriptors (1, N, D), (1, M, D) -> scores (1, N, M)."""
    sizes = (2, 2, config.descriptor_dim, config.descriptor_dim)
    inputs = [
        opset8.parameter(openvino.PartialShape([1, -1, size]), np.float32, name)
        for size, name in zip(sizes, ("kpts0", "kpts1", "desc0", "desc1"), strict=True)
    ]
    scores = _Layers(tensors, config).scores(inputs[:2], inputs[2:])
    return openvino.Model([scores], inputs, "matcher")


class _Layers(MatcherLayers):
    """ONNX's operators, as far as the network needs them, in OpenVINO's."""

    def constant(self, value: NDArray[Any] | float | Sequence[int], name: str = "") -> Any:
        array = np.asarray(value)
        wide = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
        return opset8.constant(array.astype(wide))

    def add(self, kind: str, *inputs: Any, outputs: int = 1, **options: Any) -> Any:
        if kind == "MatMul":
            return opset8.matmul(*inputs, False, False)
        if kind == "Split":
            parts = opset8.variadic_split(inputs[0], options["axis"], inputs[1])
            return [parts.output(index) for index in range(outputs)]
        if kind == "Concat":
            return opset8.concat(list(inputs), options["axis"])
        if kind == "Transpose":
            return opset8.transpose(inputs[0], opset8.constant(options["perm"]))
        if kind == "Reshape":
            return opset8.reshape(*inputs, False)
        if kind == "Softmax":
            return opset8.softmax(inputs[0], options["axis"])
        assert not options, kind
        return _PLAIN[kind](*inputs)

    def normalised(self, x: Any, weight: Any, bias: Any) -> Any:
        inner = opset8.mvn(x, opset8.constant([-1]), True, EPSILON, "inside_sqrt")
        return opset8.add(opset8.multiply(inner, weight), bias)

    def gelu(self, x: Any) -> Any:
        return opset8.gelu(x, "tanh")


_PLAIN = {
    "Add": opset8.add,
    "Sub": opset8.subtract,
    "Mul": opset8.multiply,
    "Cos": opset8.cos,
    "Sin": opset8.sin,
    "Sigmoid": opset8.sigmoid,
    "Unsqueeze": opset8.unsqueeze,
}
