"""The network as data: its configuration and its folded convolutions, without torch.

What runs the network outside torch (OpenVINO, ONNX, ncnn) is built from these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE

DETECTOR = ("detector_hidden", "detector_output")
DESCRIPTOR = ("descriptor_hidden", "descriptor_output")
IMAGE = "image"
"""Name of the network's input among the inputs of its layers."""

Norm = Literal["none", "before_relu", "after_relu"]
Downsampling = Literal["pool", "stride"]
Floats = NDArray[np.float32]

_STAGES = {"pool": 4, "stride": 3}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of a :class:`SuperPointNet`; the defaults are the paper's.

    Attributes:
        in_channels: 1 for grey images, 3 for colour.
        channels: Channels of each encoder stage.
        depths: 3 x 3 convolutions of each encoder stage.
        downsampling: How the encoder gets from pixels to cells, in three steps of two. "pool": four
            stages with 2 x 2 maximum pooling between them (paper, section 3.1). "stride": three
            stages whose first convolutions have a stride of 2, which spares the full resolution.
        detector_skips: Whether the detector head also sees the maps of the stages before the last
            one. Each is brought to cells by one convolution whose kernel is as large as its stride,
            and added to the encoder's maps. They tell where inside the cell something lies.
        head_channels: Channels of each head's hidden convolution.
        descriptor_dim: Length of a descriptor; 0 for a network without the descriptor head, which
            finds keypoints only (MagicPoint, the paper's first stage).
        norm: Where a batch normalisation sits: "before_relu" while training (it folds into the
            convolution), "none" once folded, "after_relu" in some third-party checkpoints, where
            it cannot be folded because zero padding and max pooling come after it.
        output_norm: Whether the heads' last convolutions have one too (third-party checkpoints).
        norm_eps: Epsilon of the batch normalisations.
    """

    in_channels: int = 1
    channels: tuple[int, ...] = (64, 64, 128, 128)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    downsampling: Downsampling = "pool"
    detector_skips: bool = False
    head_channels: int = 256
    descriptor_dim: int = 256
    norm: Norm = "none"
    output_norm: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.in_channels not in (1, 3):
            raise FeatureError(f"in_channels must be 1 or 3, got {self.in_channels}")
        if self.downsampling not in _STAGES:
            raise FeatureError(f"downsampling must be pool or stride, got {self.downsampling!r}")
        stages = _STAGES[self.downsampling]
        for name, counts in (("channels", self.channels), ("depths", self.depths)):
            if len(counts) != stages or min(counts) < 1:
                raise FeatureError(
                    f"{name} must be {stages} positive counts with downsampling "
                    f"{self.downsampling!r}, got {counts}"
                )
        if self.descriptor_dim < 0:
            raise FeatureError(f"descriptor_dim must not be negative, got {self.descriptor_dim}")
        if self.norm not in ("none", "before_relu", "after_relu"):
            raise FeatureError(f"norm must be none, before_relu or after_relu, got {self.norm!r}")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One step from the image to the outputs.

    Attributes:
        name: Name of the step's result; of a convolution also its block in the network.
        kind: "convolution" (with the ReLU that follows), "pool" (2 x 2 maxima) or "sum" (of
            several maps, with a ReLU).
        inputs: Names of the results that it takes; :data:`IMAGE` is the network's input.
        shape: (out, in, k, k) of a convolution's kernel; empty for others.
        stride: Stride of a convolution.
        padding: Padding of a convolution, on each side, with zeros.
        relu: Whether a ReLU follows.
    """

    name: str
    kind: Literal["convolution", "pool", "sum"]
    inputs: tuple[str, ...]
    shape: tuple[int, ...] = ()
    stride: int = 1
    padding: int = 0
    relu: bool = True


def layers(config: NetworkConfig) -> tuple[Layer, ...]:
    """Every step of a network, each after the steps whose results it takes.

    The logits are the result of ``DETECTOR[1]``, the raw dense descriptors of ``DESCRIPTOR[1]``,
    which a network with a ``descriptor_dim`` of 0 does not have.
    """
    found: list[Layer] = []

    def convolution(
        name: str, source: str, c_in: int, c_out: int, k: int, stride: int = 1, *, relu: bool = True
    ) -> str:
        found.append(
            Layer(
                name=name,
                kind="convolution",
                inputs=(source,),
                shape=(c_out, c_in, k, k),
                stride=stride,
                padding=(k - 1) // 2 if k > stride else 0,
                relu=relu,
            )
        )
        return name

    x, width, index = IMAGE, config.in_channels, 0
    stages = []
    for stage, (channels, depth) in enumerate(zip(config.channels, config.depths, strict=True)):
        if config.downsampling == "pool" and stage:
            found.append(Layer(name=f"pooled_{stage}", kind="pool", inputs=(x,)))
            x = f"pooled_{stage}"
        for position in range(depth):
            halves = config.downsampling == "stride" and position == 0
            x = convolution(f"encoder.{index}", x, width, channels, 3, 2 if halves else 1)
            width, index = channels, index + 1
        stages.append(x)
    detector = x
    if config.detector_skips:
        steps = [CELL_SIZE >> halvings for halvings in range(8)]  # 8, 4, 2, 1 pixels of a cell
        first = 0 if config.downsampling == "pool" else 1
        skips = [
            convolution(
                f"detector_skips.{k}", source, config.channels[k], width, step, step, relu=False
            )
            for k, (source, step) in enumerate(zip(stages[:-1], steps[first:], strict=False))
        ]
        detector = "detector_input"
        found.append(Layer(name=detector, kind="sum", inputs=(x, *skips)))
    head = config.head_channels
    for source, (hidden, output), count in (
        (detector, DETECTOR, CELL_SIZE**2 + 1),
        (x, DESCRIPTOR, config.descriptor_dim),
    ):
        if count:
            convolution(hidden, source, width, head, 3)
            convolution(output, hidden, head, count, 1, relu=False)
    return tuple(found)


def output_names(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the layers whose results a network gives: logits, and descriptors if it has any."""
    return (DETECTOR[1], DESCRIPTOR[1]) if config.descriptor_dim else (DETECTOR[1],)


def for_bytes(config: NetworkConfig, kernels: Mapping[str, Convolution]) -> dict[str, Convolution]:
    """The convolutions of a network that takes pixels in [0, 255] instead of [0, 1].

    That spares a pass over the image, and in bfloat16 it keeps the pixels as they are.
    """
    gain = np.float32(1 / 255)
    first = [layer.name for layer in layers(config) if IMAGE in layer.inputs]
    scaled = {name: replace(kernels[name], weight=kernels[name].weight * gain) for name in first}
    return {**kernels, **scaled}


@functools.lru_cache(maxsize=16)
def receptive_margin(config: NetworkConfig) -> int:
    """Pixels beyond a cell that its outputs depend on, on the farther side, on the grid of cells.

    The paper's network: 2 at full resolution, 2 convolutions at a half, a quarter and an eighth
    each (4 + 8 + 16), one of the heads (8), 38 in all, which makes 40.
    """
    # For the first unit of each map: the first and last pixel that it sees, and the pixels from it
    # to the next unit.
    seen = {IMAGE: (0, 0, 1)}
    for layer in layers(config):
        inputs = [seen[name] for name in layer.inputs]
        low, high, step = min(i[0] for i in inputs), max(i[1] for i in inputs), inputs[0][2]
        kernel, stride = 1, 1
        if layer.kind == "pool":
            kernel, stride = 2, 2
        elif layer.kind == "convolution":
            kernel, stride = layer.shape[2], layer.stride
        low -= layer.padding * step
        high += (kernel - 1 - layer.padding) * step
        seen[layer.name] = low, high, step * stride
    farthest = max(
        max(-low, high - (CELL_SIZE - 1))
        for low, high, _ in (seen[name] for name in output_names(config))
    )
    return -(-farthest // CELL_SIZE) * CELL_SIZE


@functools.lru_cache(maxsize=64)
def multiplications(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Multiplications, each with its addition, that an image takes.

    Args:
        config: The network.
        size: (height, width) of the image, multiples of 8.
    """
    pixels, total = {IMAGE: size[0] * size[1]}, 0
    for layer in layers(config):
        step = {"convolution": layer.stride, "pool": 2, "sum": 1}[layer.kind]
        pixels[layer.name] = pixels[layer.inputs[0]] // step**2
        if layer.kind == "convolution":
            total += pixels[layer.name] * math.prod(layer.shape)
    return total


def blocks(config: NetworkConfig) -> tuple[str, ...]:
    """Names of a network's convolutions, in the order of :func:`layers`."""
    return tuple(layer.name for layer in layers(config) if layer.kind == "convolution")


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """One convolution and what follows it: a ReLU, then a scale and a shift, where there are any.

    Attributes:
        name: Name of its block in the network, such as ``encoder.0``.
        weight: (out, in, k, k).
        bias: (out,).
        stride: Pixels from one window to the next.
        padding: Zeros on each side.
        relu: Whether a ReLU follows.
        scale: (out,) factor after the ReLU, or None.
        shift: (out,) added after the factor, or None.
    """

    name: str
    weight: Floats
    bias: Floats
    relu: bool
    stride: int = 1
    padding: int = 0
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
        config: Architecture of the network.

    Returns:
        Weights and biases, and the architecture with ``norm="none"``.

    Raises:
        FeatureError: If the batch normalisation follows the ReLU and cannot be folded.
    """
    if config.norm == "after_relu":
        raise FeatureError("a batch normalisation after the ReLU cannot be folded")
    folded: dict[str, Floats] = {}
    for block in blocks(config):
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
    """The convolutions by block name, for other implementations of the network.

    Args:
        state: Entries of a network without normalisations, or with them after the ReLU.
        config: Architecture of the network.
    """
    assert config.norm != "before_relu", "fold_state comes first"
    found = {}
    for layer in layers(config):
        if layer.kind != "convolution":
            continue
        block = layer.name
        scale = shift = None
        if f"{block}.norm.weight" in state:
            wide = normalisation(state, block, config.norm_eps)
            scale, shift = (values.astype(np.float32) for values in wide)
        found[block] = Convolution(
            name=block,
            weight=np.ascontiguousarray(state[f"{block}.conv.weight"], np.float32),
            bias=np.ascontiguousarray(state[f"{block}.conv.bias"], np.float32),
            relu=layer.relu,
            stride=layer.stride,
            padding=layer.padding,
            scale=scale,
            shift=shift,
        )
    return found
