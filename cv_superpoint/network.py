"""The SuperPoint network: a shared VGG-style encoder with a detector and a descriptor head.

DeTone, Malisiewicz, Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection and
Description", CVPR Workshops 2018, section 3. Written from the paper.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.architecture import CELL_SIZE, POOLED, NetworkConfig, Norm, fold_state

__all__ = [
    "CELL_SIZE",
    "ConvBlock",
    "NetworkConfig",
    "Norm",
    "SuperPointNet",
    "fold_batchnorm",
    "logits_to_heatmap",
    "sample_descriptors",
]


class ConvBlock(nn.Module):
    """Convolution, optional batch normalisation, optional ReLU; keeps the size."""

    def __init__(
        self, c_in: int, c_out: int, *, kernel: int = 3, relu: bool = True, norm: Norm, eps: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(c_out, eps=eps) if norm != "none" else None
        self.norm_first = norm == "before_relu"
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        x = self.conv(x)
        if self.norm is not None and self.norm_first:
            x = self.norm(x)
        if self.relu:
            x = F.relu(x, inplace=True)
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
        c1, c2, c3, c4 = config.channels
        widths = (config.in_channels, c1, c1, c2, c2, c3, c3, c4, c4)

        def block(c_in: int, c_out: int) -> ConvBlock:
            return ConvBlock(c_in, c_out, norm=config.norm, eps=config.norm_eps)

        def output(c_out: int) -> ConvBlock:
            norm = config.norm if config.output_norm else "none"
            return ConvBlock(
                config.head_channels, c_out, kernel=1, relu=False, norm=norm, eps=config.norm_eps
            )

        self.encoder = nn.ModuleList(block(a, b) for a, b in pairwise(widths))
        self.detector_hidden = block(c4, config.head_channels)
        self.detector_output = output(CELL_SIZE * CELL_SIZE + 1)
        self.descriptor_hidden = block(c4, config.head_channels)
        self.descriptor_output = output(config.descriptor_dim)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> shared features (B, 128, H/8, W/8)."""
        x = image
        for index, layer in enumerate(self.encoder):
            # Three poolings of two after stages 1 to 3 make the cell size of 8 (section 3.1).
            if index in POOLED:
                x = F.max_pool2d(x, 2, 2)
            x = layer(x)
        return x

    def detect(self, features: Tensor) -> Tensor:
        """Shared features -> logits (B, 65, H/8, W/8) (section 3.2)."""
        return cast(Tensor, self.detector_output(self.detector_hidden(features)))

    def describe(self, features: Tensor) -> Tensor:
        """Shared features -> dense descriptors (B, D, H/8, W/8) of unit length (section 3.3)."""
        raw = self.descriptor_output(self.descriptor_hidden(features))
        return F.normalize(raw, dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            image: (B, C, H, W) in [0, 1], H and W multiples of 8.

        Returns:
            logits (B, 65, H/8, W/8) and unit dense descriptors (B, D, H/8, W/8).

        Raises:
            ValueError: If the shape does not fit.
        """
        if image.ndim != 4 or image.shape[1] != self.config.in_channels:
            raise ValueError(
                f"image must be (B, {self.config.in_channels}, H, W), got {tuple(image.shape)}"
            )
        if image.shape[2] % CELL_SIZE or image.shape[3] % CELL_SIZE:
            raise ValueError(
                f"height and width must be multiples of {CELL_SIZE}, got "
                f"{image.shape[2]} x {image.shape[3]}; pad the image first"
            )
        features = self.encode(image)
        return self.detect(features), self.describe(features)


def logits_to_heatmap(logits: Tensor) -> Tensor:
    """Keypoint probability of every pixel: softmax over the cell, dustbin dropped (section 3.2).

    Args:
        logits: (B, 65, h, w).

    Returns:
        (B, 8 h, 8 w) probabilities in [0, 1].
    """
    probabilities = torch.softmax(logits, dim=1)[:, :-1]
    return F.pixel_shuffle(probabilities, CELL_SIZE)[:, 0]


def sample_descriptors(dense: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of the dense descriptors, made unit length (section 3.3).

    Outside the outermost cell centres the border cells are repeated.

    Args:
        dense: (B, D, h, w).
        points: (B, N, 2) as (x, y) pixels of the network's input.

    Returns:
        (B, N, D) unit rows; differentiable in ``dense`` and ``points``.
    """
    h, w = dense.shape[-2:]
    # Cell centres lie at 8 j + 3.5; align_corners=False maps index j to (2 j + 1) / w - 1.
    cells = (points - (CELL_SIZE - 1) / 2) / CELL_SIZE
    size = points.new_tensor((w, h))
    grid = ((2 * cells + 1) / size - 1)[:, :, None]
    sampled = F.grid_sample(
        dense.contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return F.normalize(sampled[..., 0].transpose(1, 2), dim=-1)


def fold_batchnorm(net: SuperPointNet) -> SuperPointNet:
    """The same function without its batch normalisations, for inference.

    Args:
        net: A network with ``norm="before_relu"`` (or "none", which is copied).

    Returns:
        A new network in eval mode with ``norm="none"``.

    Raises:
        ValueError: If the batch normalisation follows the ReLU and cannot be folded.
    """
    state = {key: value.detach().cpu().numpy() for key, value in net.state_dict().items()}
    folded_state, config = fold_state(state, net.config)
    folded = SuperPointNet(config)
    folded.load_state_dict({key: torch.from_numpy(value) for key, value in folded_state.items()})
    return folded.eval()
