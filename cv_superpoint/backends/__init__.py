"""Ways to run the network: one small protocol, one file for each."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.choosing import BACKENDS, Choice, choose
from cv_superpoint.backends.forks import is_forked  # here, so that it sees every fork
from cv_superpoint.errors import require
from cv_superpoint.network.weights import NetworkWeights

__all__ = ["BACKENDS", "Backend", "Choice", "Outputs", "choose", "is_forked", "make_backend"]


Outputs = tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]


class Backend(Protocol):
    """Runs the network on images of one size. Safe to call from several threads at once."""

    name: str
    device: str
    precision: str
    batch: int
    """Images that one call takes in less time than as many calls; 1 if there is no gain."""
    decodes: bool
    """Whether it is a :class:`cv_superpoint.detector.on_device.DecodingBackend` as well."""

    @property
    def lanes(self) -> int:
        """Calls that run side by side, each on the thread that makes it; 1 where there is no gain.

        More for a :class:`cv_superpoint.detector.lanes.LanesBackend` only.
        """
        ...

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Logits and dense descriptors.

        Args:
            images: (B, H, W, C) uint8, H and W multiples of 8.

        Returns:
            Logits (H/8, W/8, 65) of each image, and descriptors (H/8, W/8, D) of any length; D is
            0 for a network without descriptors. Their order in memory is free: logits stay as the
            network wrote them; descriptors are fastest cell by cell.
        """
        ...

    def info(self) -> str:
        """What runs where, in half a line."""
        ...


def make_backend(weights: NetworkWeights, choice: Choice, *, threads: int | None = None) -> Backend:
    """The backend that was chosen.

    Args:
        weights: The network.
        choice: Result of :func:`choose`.
        threads: Number of threads on the CPU; None takes the cores that the process may use.

    Raises:
        ImportError: If its package is not installed; the message names the extra.
        FeatureError: If the device or the precision is not available.
    """
    device, precision = choice.device, choice.precision
    # Imported where needed: each is of an extra, and torch takes a second to import.
    if choice.backend == "ncnn":
        from cv_superpoint.backends.ncnn import NcnnBackend  # which imports ncnn with care

        return NcnnBackend(weights, threads=threads)
    if choice.backend == "openvino":
        from cv_superpoint.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(weights, precision=precision, threads=threads)
    if choice.backend == "onnxruntime":
        require("onnxruntime", "onnx")
        from cv_superpoint.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(weights, device=device, precision=precision, threads=threads)
    require("torch", "torch")
    from cv_superpoint.backends.torch import TorchBackend

    return TorchBackend(weights, device=device, precision=precision, threads=threads)
