"""A network's configuration and its tensors: what backends, exporters and training run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import require
from cv_superpoint.network.architecture import Convolution, NetworkConfig, blocks, convolutions
from cv_superpoint.network.quantisation import Ranges

if TYPE_CHECKING:
    from cv_superpoint.network.torch_network import SuperPointNet


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkWeights:
    """The tensors of a network.

    Attributes:
        config: Architecture; its ``norm`` is "none", or "after_relu" where it cannot be folded.
        tensors: float32 arrays by the names of :class:`SuperPointNet`'s state.
        ranges: Ranges of the maps, for 8 bits; None where they were not computed.
    """

    config: NetworkConfig
    tensors: Mapping[str, NDArray[np.float32]]
    ranges: Ranges | None = None

    @classmethod
    def of(cls, net: SuperPointNet) -> NetworkWeights:
        """The tensors of a torch module that is folded."""
        tensors = {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
        return NetworkWeights(config=net.config, tensors=tensors)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, hexadecimal: what is compiled or converted is kept by it."""
        digest = hashlib.sha256(str(self.config).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.tensors[name]).tobytes())
        return digest.hexdigest()

    @property
    def tensor_digest(self) -> str:
        """SHA-256 of the tensors alone, hexadecimal: the same whatever file they come from."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            values = np.ascontiguousarray(self.tensors[name], "<f4")
            digest.update(f"{name} {values.shape}".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    @property
    def net(self) -> SuperPointNet:
        """A new torch module at each access, in eval mode on the CPU.

        Raises:
            ImportError: If torch is not installed.
        """
        torch = require("torch", "torch")
        from cv_superpoint.network.torch_network import SuperPointNet

        # Constructing a module draws initial weights; the caller's random state must not notice.
        with torch.random.fork_rng(devices=[]):
            net = SuperPointNet(self.config)
        # Not strict only for BatchNorm's num_batches_tracked; the names were checked on reading.
        state = {name: torch.from_numpy(array.copy()) for name, array in self.tensors.items()}
        net.load_state_dict(state, strict=False)
        return net.eval()

    @property
    def without_descriptors(self) -> NetworkWeights:
        """The same detector without its descriptor head, and without ranges."""
        config = replace(self.config, descriptor_dim=0)
        kept = tuple(f"{name}." for name in blocks(config))
        tensors = {name: value for name, value in self.tensors.items() if name.startswith(kept)}
        return NetworkWeights(config=config, tensors=tensors)

    def convolutions(self) -> dict[str, Convolution]:
        """The network's convolutions by block name, for backends without torch."""
        return convolutions(self.tensors, self.config)
