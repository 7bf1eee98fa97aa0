"""Ways to run the network: one small protocol, one file for each."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.weights import LoadedWeights


class Backend(Protocol):
    """Runs the network on images of one size. Safe to call from several threads at once."""

    name: str
    device: str
    precision: str
    batched: bool
    """Whether several images in one call are faster than one after the other."""

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and dense descriptors.

        Args:
            images: (B, H, W, C) uint8, H and W multiples of 8.

        Returns:
            logits (B, H/8, W/8, 65) and descriptors (B, H/8, W/8, D), channels last.
        """
        ...

    def describe(self) -> str:
        """One line: what runs where, and why it was chosen."""
        ...


def make_backend(weights: LoadedWeights, *, backend: str, device: str, precision: str) -> Backend:
    """The backend that fits the arguments; "auto" chooses.

    Raises:
        ValueError: If the name is unknown, or the device or the precision is not to be had.
    """
    if backend not in ("auto", "torch"):
        raise ValueError(f"backend must be 'auto' or 'torch', got {backend!r}")
    # Imported here: torch takes a second to import, and only this backend needs it.
    from cv_superpoint.backends.torch import TorchBackend

    return TorchBackend(weights, device=device, precision=precision)
