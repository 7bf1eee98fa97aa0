"""The network, as data and in torch.

architecture.py   its layers and folded convolutions, without torch; every backend is built of them
torch_network.py  the same as a torch module

Everything that runs, reads, exports or trains a network enters.
"""

from typing import Any

from cv_superpoint.network.architecture import NetworkConfig

__all__ = ["NetworkConfig", "SuperPointNet"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import.
    if name == "SuperPointNet":
        from cv_superpoint.network.torch_network import SuperPointNet

        return SuperPointNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
