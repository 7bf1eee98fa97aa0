"""The network, as data and in torch.

architecture.py   its layers and folded convolutions, without torch; every backend is built of them
arrays.py         the same in numpy, layer by layer
quantisation.py   what of it is in 8 bits
torch_network.py  the same as a torch module
weights.py        its tensors

Everything that runs, reads, exports or trains a network enters.
"""

import warnings
from typing import Any

from cv_superpoint.network.architecture import NetworkConfig

__all__ = ["NetworkConfig", "SuperPointNet"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import.
    if name == "SuperPointNet":
        from cv_superpoint.network.torch_network import SuperPointNet

        return SuperPointNet
    if name in ("logits_to_heatmap", "sample_descriptors"):  # where they were until 0.1
        from cv_superpoint.decoding import tensors

        warnings.warn(f"{name} is in {tensors.__name__} now", DeprecationWarning, stacklevel=2)
        return getattr(tensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
