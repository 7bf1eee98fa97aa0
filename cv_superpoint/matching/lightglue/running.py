"""Ways to run the matcher's network on the CPU, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.choosing import is_installed
from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.forks import no_fork
from cv_superpoint.errors import FeatureError, require
from cv_superpoint.matching.lightglue.arrays import assignment_scores
from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.matching.lightglue.graph import scores_model
from cv_superpoint.matching.lightglue.lanes import Inputs, side_by_side

Floats = NDArray[np.float32]
T = TypeVar("T")
MatcherBackend = Literal["auto", "openvino", "onnxruntime", "torch", "numpy"]
BACKENDS: tuple[MatcherBackend, ...] = get_args(MatcherBackend)
_NEEDS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx"), "numpy": ()}
"""What "auto" looks for, the fastest first (docs/results/performance.md); ONNX Runtime's graph is
built with onnx."""


class Runner(Protocol):
    """Runs the network; safe to call from several threads at once."""

    name: str

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Probability of a match of every pair of keypoints.

        Args:
            points: (N, 2) and (M, 2) float32 in [-1, 1]; N and M are 1 or more.
            descriptors: (N, D) and (M, D) float32.

        Returns:
            (N, M).
        """

    def each(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """What ``finish`` makes of the scores of each pair, in whichever way is the fastest.

        Args:
            pairs: Arguments of a call, for each pair.
            finish: Function of (N, M) scores, which may be called from several threads at once.
        """


def make_runner(loaded: LoadedMatcher, backend: MatcherBackend, threads: int | None) -> Runner:
    """What runs a matcher.

    Args:
        loaded: The matcher.
        backend: One of :data:`BACKENDS`; "auto" takes the fastest that is installed.
        threads: Threads of one call; None takes the cores that the process may use. With numpy they
            are those of its library of matrix products.

    Raises:
        FeatureError: If there is no such backend.
        ImportError: If its package is not installed; the message names the extra.
    """
    name = choose_backend(backend)
    count = threads or default_threads()
    if name == "openvino":
        require("openvino", "cpu")
        from cv_superpoint.matching.lightglue.openvino import OpenVinoRunner

        return OpenVinoRunner(loaded.tensors, loaded.config, count)
    if name == "torch":
        require("torch", "torch")
        from cv_superpoint.matching.lightglue.torch import TorchRunner

        return TorchRunner(loaded.tensors, loaded.config)
    makers: dict[str, Callable[[LoadedMatcher, int], Runner]] = {
        "onnxruntime": OnnxRuntimeRunner,
        "numpy": NumpyRunner,
    }
    return makers[name](loaded, count)


def choose_backend(backend: MatcherBackend) -> str:
    """The backend's name, of "auto" the first that is installed.

    Raises:
        FeatureError: If there is no such backend.
    """
    if backend not in BACKENDS:
        raise FeatureError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend != "auto":
        return backend
    return next(name for name, needed in _NEEDS.items() if all(map(is_installed, needed)))


class NumpyRunner:
    """Runs the network in numpy, which is always there."""

    name = "numpy"

    def __init__(self, loaded: LoadedMatcher, threads: int) -> None:
        self._loaded = loaded

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        tensors, config = self._loaded.tensors, self._loaded.config
        return assignment_scores(
            tensors, config, (points[0], points[1]), (descriptors[0], descriptors[1])
        )

    def each(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """Results one after the other, because its products of matrices take all threads."""
        return [finish(self(*pair)) for pair in pairs]


class OnnxRuntimeRunner:
    """Runs the network in ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, loaded: LoadedMatcher, threads: int) -> None:
        require("onnxruntime", "onnx")
        self._model = scores_model(loaded.tensors, loaded.config).SerializeToString()
        self._threads = threads
        self._session = _session(self._model, threads)
        self._for_one: Any = None

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        return _run(self._session, points, descriptors)

    def each(self, pairs: Sequence[Inputs], finish: Callable[[Floats], T]) -> list[T]:
        """Side by side."""
        if self._threads > 1 and len(pairs) >= self._threads and self._for_one is None:
            self._for_one = _session(self._model, 1)
        return side_by_side(partial(_run, self._for_one), self, pairs, finish, self._threads)


def _session(model: bytes, threads: int) -> Any:
    """A session; one with a single thread works on the thread that calls it."""
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from those that work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: Any, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
    names = ("kpts0", "kpts1", "desc0", "desc1")
    rows = (each[None] for each in (*points, *descriptors))
    with no_fork():
        (scores,) = session.run(None, dict(zip(names, rows, strict=True)))
    found: Floats = scores[0]
    return found
