"""The network as data: its configuration and its folded convolutions, without torch.

What runs the network outside torch (OpenVINO, ONNX, ncnn) is built from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CELL_SIZE = 8
"""Pixels on one side of a detector cell, and the stride of the dense descriptors."""

POOLED = (2, 4, 6)
"""Encoder convolutions that a 2 x 2 maximum pooling comes before (paper, section 3.1)."""

ENCODER = tuple(f"encoder.{index}" for index in range(8))
DETECTOR = ("detector_hidden", "detector_output")
DESCRIPTOR = ("descriptor_hidden", "descriptor_output")

Norm = Literal["none", "before_relu", "after_relu"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of a :class:`SuperPointNet`; the defaults are the paper's.

    Attributes:
        in_channels: 1 for grey images, 3 for colour.
        channels: Channels of the four encoder stages (two convolutions each).
        head_channels: Channels of each head's hidden convolution.
        descriptor_dim: Length of a descriptor.
        norm: Where a batch normalisation sits: "before_relu" while training (it folds into the
            convolution), "none" once folded, "after_relu" in some third-party checkpoints, where
            it cannot be folded because zero padding and max pooling come after it.
        output_norm: Whether the heads' last convolutions have one too (third-party checkpoints).
        norm_eps: Epsilon of the batch normalisations.
    """

    in_channels: int = 1
    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_dim: int = 256
    norm: Norm = "none"
    output_norm: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, got {self.in_channels}")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ValueError(f"channels must be four positive counts, got {self.channels}")
        if self.norm not in ("none", "before_relu", "after_relu"):
            raise ValueError(f"norm must be none, before_relu or after_relu, got {self.norm!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """One convolution and what follows it: a ReLU, then a scale and a shift, where there are any.

    Attributes:
        name: Its block in the network, such as ``encoder.0``.
        weight: (out, in, k, k), k 3 (padding 1) or 1.
        bias: (out,).
        relu: Whether a ReLU follows.
        scale: (out,) factor after the ReLU, or None.
        shift: (out,) added after the factor, or None.
    """

    name: str
    weight: Floats
    bias: Floats
    relu: bool
    scale: Floats | None = None
    shift: Floats | None = None


def normalisation(
    state: Mapping[str, NDArray[np.floating]], block: str, eps: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift, each (out,), that a block's batch normalisation comes to in inference."""
    entry = {
        field: state[f"{block}.norm.{field}"].astype(np.float64)
        for field in ("weight", "bias", "running_mean", "running_var")
    }
    scale = entry["weight"] / np.sqrt(entry["running_var"] + eps)
    return scale, entry["bias"] - entry["running_mean"] * scale


def fold_state(
    state: Mapping[str, NDArray[np.floating]], config: NetworkConfig
) -> tuple[dict[str, Floats], NetworkConfig]:
    """The same function without its batch normalisations.

    Args:
        state: Entries of a network with ``norm="before_relu"`` (or "none", which is copied).
        config: Its architecture.

    Returns:
        Weights and biases, and the architecture with ``norm="none"``.

    Raises:
        ValueError: If the batch normalisation follows the ReLU and cannot be folded.
    """
    if config.norm == "after_relu":
        raise ValueError("a batch normalisation after the ReLU cannot be folded")
    folded: dict[str, Floats] = {}
    for block in (*ENCODER, *DETECTOR, *DESCRIPTOR):
        weight = state[f"{block}.conv.weight"].astype(np.float64)
        bias = state[f"{block}.conv.bias"].astype(np.float64)
        if f"{block}.norm.weight" in state:
            scale, shift = normalisation(state, block, config.norm_eps)
            weight = weight * scale[:, None, None, None]
            bias = bias * scale + shift
        with np.errstate(over="ignore"):  # the caller checks that all is finite
            folded[f"{block}.conv.weight"] = weight.astype(np.float32)
            folded[f"{block}.conv.bias"] = bias.astype(np.float32)
    return folded, replace(config, norm="none", output_norm=False, norm_eps=NetworkConfig.norm_eps)


def convolutions(state: Mapping[str, Floats], config: NetworkConfig) -> dict[str, Convolution]:
    """The twelve convolutions by block name, for those who build the network elsewhere.

    Args:
        state: Entries of a network without normalisations, or with them after the ReLU.
        config: Its architecture.
    """
    assert config.norm != "before_relu", "fold_state comes first"
    found = {}
    for block in (*ENCODER, *DETECTOR, *DESCRIPTOR):
        scale = shift = None
        if f"{block}.norm.weight" in state:
            wide = normalisation(state, block, config.norm_eps)
            scale, shift = (values.astype(np.float32) for values in wide)
        found[block] = Convolution(
            name=block,
            weight=np.ascontiguousarray(state[f"{block}.conv.weight"], np.float32),
            bias=np.ascontiguousarray(state[f"{block}.conv.bias"], np.float32),
            relu=not block.endswith("_output"),
            scale=scale,
            shift=shift,
        )
    return found
