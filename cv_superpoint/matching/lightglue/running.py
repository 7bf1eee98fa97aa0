"""Ways to run the matcher's network on the CPU, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.choosing import is_installed
from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.forks import no_fork
from cv_superpoint.errors import FeatureError, require
from cv_superpoint.matching.lightglue.arrays import assignment_scores
from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.matching.lightglue.graph import scores_model

Floats = NDArray[np.float32]
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
    makers: dict[str, Callable[[LoadedMatcher, int], Runner]] = {
        "onnxruntime": OnnxRuntimeRunner,
        "torch": TorchRunner,
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


class OnnxRuntimeRunner:
    """Runs the network in ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, loaded: LoadedMatcher, threads: int) -> None:
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from those that work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = scores_model(loaded.tensors, loaded.config).SerializeToString()
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        names = ("kpts0", "kpts1", "desc0", "desc1")
        rows = (each[None] for each in (*points, *descriptors))
        with no_fork():
            (scores,) = self._session.run(None, dict(zip(names, rows, strict=True)))
        found: Floats = scores[0]
        return found


class TorchRunner:
    """Runs the network in torch, on CUDA if there is a device, else on torch's own threads."""

    name = "torch"

    def __init__(self, loaded: LoadedMatcher, threads: int) -> None:
        self._torch = torch = require("torch", "torch")
        from cv_superpoint.matching.lightglue.network import MatcherNet

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng(devices=[]):  # its initial weights are drawn
            self._net = MatcherNet(loaded.config)
        state = {name: torch.from_numpy(value.copy()) for name, value in loaded.tensors.items()}
        self._net.load_state_dict(state)
        self._net.eval().to(self._device)

    def __call__(self, points: Sequence[Floats], descriptors: Sequence[Floats]) -> Floats:
        """Scores (N, M)."""
        torch = self._torch
        rows = [torch.from_numpy(np.ascontiguousarray(each)) for each in (*points, *descriptors)]
        with torch.inference_mode():
            found = self._net(*(each[None].to(self._device) for each in rows))
            scores: Floats = found[-1].scores()[0].cpu().numpy()
        return scores
