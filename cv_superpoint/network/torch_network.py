"""The SuperPoint network: a shared VGG-style encoder with a detector and a descriptor head.

DeTone, Malisiewicz, Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection and
Description", CVPR Workshops 2018, section 3. Written from the paper.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    DETECTOR,
    Layer,
    NetworkConfig,
    Norm,
    fold_state,
    layers,
)

__all__ = [
    "ConvBlock",
    "Encoded",
    "NetworkConfig",
    "Norm",
    "SuperPointNet",
    "fold_batchnorm",
]


class Encoded(NamedTuple):
    """What the heads take: maps (B, C, H/8, W/8), the same ones unless the detector has skips."""

    detector: Tensor
    descriptor: Tensor


class ConvBlock(nn.Module):
    """Convolution, optional batch normalisation, optional ReLU."""

    def __init__(self, layer: Layer, *, norm: Norm, eps: float) -> None:
        super().__init__()
        c_out, c_in, kernel, _ = layer.shape
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride=layer.stride, padding=layer.padding)
        self.norm = nn.BatchNorm2d(c_out, eps=eps) if norm != "none" else None
        self.norm_first = norm == "before_relu"
        self.relu = layer.relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        x = self.conv(x)
        if self.norm is not None and self.norm_first:
            x = self.norm(x)
        if self.relu:
            # With gradients in bfloat16, clamping in place takes a CPU twice as long.
            x = F.relu(x, inplace=not (x.requires_grad and x.dtype == torch.bfloat16))
        if self.norm is not None and not self.norm_first:
            x = self.norm(x)
        return x


class SuperPointNet(nn.Module):
    """Image -> detector logits and dense descriptors.

    Convention:
        ``logits`` are (B, 65, H/8, W/8): channel ``8 r + c`` of a cell is its pixel in row r and
        column c, the last channel is the "no keypoint" dustbin. The dense descriptor of cell
        (i, j) belongs to the cell's centre, pixel (8 j + 3.5, 8 i + 3.5).
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        built = {}
        for layer in layers(config):
            if layer.kind == "convolution":
                last = layer.name in (DETECTOR[1], DESCRIPTOR[1])
                norm = "none" if last and not config.output_norm else config.norm
                built[layer.name] = ConvBlock(layer, norm=norm, eps=config.norm_eps)

        def group(name: str) -> nn.ModuleList:
            return nn.ModuleList(block for key, block in built.items() if key.startswith(name))

        self.encoder = group("encoder.")
        if config.detector_skips:
            self.detector_skips = group("detector_skips.")
        self.detector_hidden, self.detector_output = (built[name] for name in DETECTOR)
        if config.descriptor_dim:
            self.descriptor_hidden, self.descriptor_output = (built[name] for name in DESCRIPTOR)

    def first_stage(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the maps of the first encoder stage."""
        x = image
        for layer in self.encoder[: self.config.depths[0]]:
            x = layer(x)
        return x

    def later_stages(self, first: Tensor) -> Encoded:
        """The maps of the first encoder stage -> what the heads take (sections 3.1, 3.2)."""
        maps, index = [first], self.config.depths[0]
        for depth in self.config.depths[1:]:
            x = maps[-1]
            # Three halvings make the cell size of 8.
            if self.config.downsampling == "pool":
                x = F.max_pool2d(x, 2, 2)
            for layer in self.encoder[index : index + depth]:
                x = layer(x)
            maps.append(x)
            index += depth
        shared = maps[-1]
        if not self.config.detector_skips:
            return Encoded(shared, shared)
        total = shared
        for skip, x in zip(self.detector_skips, maps[:-1], strict=True):
            total = total + skip(x)
        return Encoded(F.relu(total), shared)

    def encode(self, image: Tensor) -> Encoded:
        """(B, C, H, W) in [0, 1] -> what the heads take."""
        return self.later_stages(self.first_stage(image))

    def detect(self, features: Encoded) -> Tensor:
        """Encoder maps -> logits (B, 65, H/8, W/8) (section 3.2)."""
        return cast(Tensor, self.detector_output(self.detector_hidden(features.detector)))

    def describe(self, features: Encoded) -> Tensor:
        """Encoder maps -> dense descriptors (B, D, H/8, W/8) of unit length (section 3.3)."""
        raw = self.raw_descriptors(features)
        # float16 has no 1e-12: what is 0 everywhere would be divided by 0.
        return F.normalize(raw, dim=1, eps=max(1e-12, torch.finfo(raw.dtype).tiny))

    def raw_descriptors(self, features: Encoded) -> Tensor:
        """Same as :meth:`describe`, but of any length, to normalise only what is sampled."""
        if not self.config.descriptor_dim:
            return features.descriptor[:, :0]
        return cast(Tensor, self.descriptor_output(self.descriptor_hidden(features.descriptor)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            image: (B, C, H, W) in [0, 1], H and W multiples of 8.

        Returns:
            logits (B, 65, H/8, W/8) and unit dense descriptors (B, D, H/8, W/8); D is 0 without
            a descriptor head.

        Raises:
            FeatureError: If the shape does not fit.
        """
        if image.ndim != 4 or image.shape[1] != self.config.in_channels:
            raise FeatureError(
                f"image must be (B, {self.config.in_channels}, H, W), got {tuple(image.shape)}"
            )
        if image.shape[2] % CELL_SIZE or image.shape[3] % CELL_SIZE:
            raise FeatureError(
                f"height and width must be multiples of {CELL_SIZE}, got "
                f"{image.shape[2]} x {image.shape[3]}; pad the image first"
            )
        features = self.encode(image)
        return self.detect(features), self.describe(features)


def fold_batchnorm(net: SuperPointNet) -> SuperPointNet:
    """The same function without its batch normalisations, for inference.

    Args:
        net: A network with ``norm="before_relu"`` (or "none", which is copied).

    Returns:
        A new network in eval mode with ``norm="none"``.

    Raises:
        FeatureError: If the batch normalisation follows the ReLU and cannot be folded.
    """
    state = {key: value.detach().cpu().numpy() for key, value in net.state_dict().items()}
    folded_state, config = fold_state(state, net.config)
    folded = SuperPointNet(config)
    folded.load_state_dict({key: torch.from_numpy(value) for key, value in folded_state.items()})
    return folded.eval()
