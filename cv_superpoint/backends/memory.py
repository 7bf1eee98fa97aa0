"""Arrays in memory that belongs to what runs the network, so that its outputs are not copied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


def keep_with(array: NDArray[np.float32], *owners: Any) -> NDArray[np.float32]:
    """The same memory as an array that keeps its owners alive, and so do all views of it.

    Args:
        array: Float32, in memory that the owners free.
        owners: Let go in the order given.
    """
    # A tuple lets go of its last element first.
    holder: Any = SimpleNamespace(
        owners=owners[::-1], __array_interface__=array.__array_interface__
    )
    return np.asarray(holder)
