"""Peers in PyTorch with our weights: a plain module in the Magic Leap layout, and transformers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cv_superpoint.weights import LoadedWeights
from cv_superpoint.weights.layouts import BLOCKS

Call = Callable[[NDArray[np.uint8]], Any]
_NAMES = (
    *("conv1a", "conv1b", "conv2a", "conv2b", "conv3a", "conv3b", "conv4a", "conv4b"),
    *("convPa", "convPb", "convDa", "convDb"),
)


class PlainSuperPoint(nn.Module):
    """The network as most ports write it: one convolution after the other, float32, NCHW.

    The layers carry the names that the first release gave them; the code is written from the
    paper.
    """

    def __init__(self, weights: LoadedWeights, *, threshold: float, count: int) -> None:
        super().__init__()
        self.threshold, self.count = threshold, count
        for name, block in zip(_NAMES, BLOCKS, strict=True):
            kernel = torch.from_numpy(weights.tensors[f"{block}.conv.weight"].copy())
            c_out, c_in, size, _ = kernel.shape
            layer = nn.Conv2d(c_in, c_out, size, padding=size // 2)
            layer.weight.data = kernel
            layer.bias = nn.Parameter(
                torch.from_numpy(weights.tensors[f"{block}.conv.bias"].copy())
            )
            self.add_module(name, layer)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 1, H, W) in [0, 1] -> keypoints (N, 2), scores (N,), descriptors (N, D)."""
        layers = dict(self.named_children())
        x = image
        for index, name in enumerate(_NAMES[:8]):
            if index in (2, 4, 6):
                x = F.max_pool2d(x, 2, 2)
            x = F.relu(layers[name](x))
        logits = layers["convPb"](F.relu(layers["convPa"](x)))
        dense = F.normalize(layers["convDb"](F.relu(layers["convDa"](x))), dim=1)
        heat = F.pixel_shuffle(torch.softmax(logits, dim=1)[:, :-1], 8)
        highest = F.max_pool2d(heat, 9, stride=1, padding=4)
        found = (heat[0, 0] == highest[0, 0]) & (heat[0, 0] > self.threshold)
        rows, columns = torch.nonzero(found, as_tuple=True)
        scores = heat[0, 0, rows, columns]
        scores, best = scores.topk(min(self.count, len(scores)))
        points = torch.stack([columns[best], rows[best]], dim=1).float()
        size = points.new_tensor((image.shape[3], image.shape[2]))
        grid = ((points + 0.5) / size * 2 - 1)[None, None]
        rows_of = F.grid_sample(dense, grid, align_corners=False)[0, :, 0].T
        return points, scores, F.normalize(rows_of, dim=1)


def plain_call(weights: LoadedWeights, device: str, threshold: float, count: int) -> Call:
    """A call from the uint8 image to numpy arrays through :class:`PlainSuperPoint`."""
    model = PlainSuperPoint(weights, threshold=threshold, count=count).eval().to(device)

    @torch.inference_mode()
    def call(image: NDArray[np.uint8]) -> Any:
        tensor = torch.from_numpy(image).to(device)[None, None].float().div(255)
        return [part.cpu().numpy() for part in model(tensor)]

    return call


def transformers_call(
    weights: LoadedWeights, device: str, threshold: float, count: int, dtype: str = "float32"
) -> Call:
    """A call from the uint8 image, or a batch (B, H, W), to numpy arrays through transformers."""
    from transformers import SuperPointConfig, SuperPointForKeypointDetection

    theirs = (
        *(f"encoder.conv_blocks.{stage}.conv_{ab}" for stage in range(4) for ab in "ab"),
        *(f"keypoint_decoder.conv_score_{ab}" for ab in "ab"),
        *(f"descriptor_decoder.conv_descriptor_{ab}" for ab in "ab"),
    )
    state = {
        f"{name}.{field}": torch.from_numpy(weights.tensors[f"{block}.conv.{field}"].copy())
        for name, block in zip(theirs, BLOCKS, strict=True)
        for field in ("weight", "bias")
    }
    config = SuperPointConfig(keypoint_threshold=threshold, max_keypoints=count)
    model: Any = SuperPointForKeypointDetection(config)
    model.load_state_dict(state)
    kind = getattr(torch, dtype)
    model = model.eval().to(device, kind)

    @torch.inference_mode()
    def call(images: NDArray[np.uint8]) -> Any:
        batch = torch.from_numpy(images.reshape(-1, 1, *images.shape[-2:])).to(device)
        output = model(batch.to(kind).div(255).expand(-1, 3, -1, -1))
        return output.keypoints.float().cpu().numpy(), output.descriptors.float().cpu().numpy()

    return call
