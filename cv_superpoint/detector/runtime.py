"""Where and how a network runs, and its start: the one place where detectors are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cv_superpoint.backends import Backend, Choice, choose, make_backend
from cv_superpoint.checks import as_count, as_device, as_name
from cv_superpoint.detector.detector import Detector, DetectorConfig
from cv_superpoint.weights import LoadedWeights


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how a network runs.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", "mps", or a ``torch.device``.
        precision: "auto", "float32", "bfloat16", "float16" or "int8".
        backend: "auto", "ncnn", "openvino", "onnxruntime" or "torch".
        threads: Threads of a network on the CPU; None takes the cores that the process may use.

    Raises:
        FeatureError: If a value is of the wrong type.
    """

    device: Any = "auto"
    precision: Any = "auto"
    backend: Any = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        self._set("device", as_device(self.device))
        self._set("precision", as_name("precision", self.precision))
        self._set("backend", as_name("backend", self.backend))
        if self.threads is not None:
            self._set("threads", as_count("threads", self.threads, 1, ", or None"))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # it is frozen

    def start(
        self,
        weights: LoadedWeights,
        config: DetectorConfig,
        make: Callable[..., Backend] = make_backend,
    ) -> tuple[Detector, Choice]:
        """A detector with these weights here, and why its backend was chosen.

        Args:
            weights: The network, and the precisions that it keeps its accuracy in.
            config: How images become keypoints.
            make: A function like :func:`make_backend`.

        Raises:
            ImportError: If the backend's package is not installed.
            FeatureError: If the device, the precision or the backend is unknown or not there.
        """
        choice = choose(
            backend=self.backend,
            device=self.device,
            precision=self.precision,
            measured=weights.precisions,
        )
        backend = make(weights, choice, threads=self.threads)
        detector = Detector(
            backend, weights.config, config, weights.compaction, weights.tensor_digest
        )
        return detector, choice
