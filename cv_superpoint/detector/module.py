"""SuperPoint for those who live in Torch: tensors in, tensors out, on any device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.decoding.arrays import LARGEST_SHIFT
from cv_superpoint.decoding.tensors import keypoint_scores, soft_argmax
from cv_superpoint.detector.detector import DetectorConfig
from cv_superpoint.errors import FeatureError
from cv_superpoint.network.torch_network import (
    CELL_SIZE,
    SuperPointNet,
    logits_to_heatmap,
    sample_descriptors,
)
from cv_superpoint.pictures.conversions import describe
from cv_superpoint.weights import load_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorFeatures:
    """The keypoints of one image, strongest first, on the image's device.

    Attributes:
        keypoints: (N, 2), (x, y) in pixels, (0, 0) the centre of the top-left pixel.
        scores: (N,), descending, see ``score_radius`` of :class:`SuperPoint`.
        descriptors: (N, D), rows of unit length.
    """

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor


class SuperPoint(nn.Module):
    """The network with its decoding as one module.

    :meth:`dense` is differentiable and takes part in a larger model; calling the module gives
    keypoints, whose scores and descriptors are differentiable as well, while their positions
    are so through the sub-pixel mean.

    Args:
        net: The network.
        max_keypoints: Keep the strongest of each image; -1 or 0 keeps all above the threshold.
        score_threshold: In [0, 1), that a keypoint's score has to exceed.
        nms_radius: No two keypoints lie within this Chebyshev distance, in pixels.
        score_radius: A keypoint's score is the sum of the probabilities within this Chebyshev
            distance, in pixels; 0 takes the probability of its pixel, as the paper.
        border_margin: No keypoint lies closer to the border, in pixels.
        subpixel: Refine positions below the pixel.

    Raises:
        FeatureError: If an option is out of range.
    """

    def __init__(
        self,
        net: SuperPointNet,
        *,
        max_keypoints: int = -1,
        score_threshold: float = 0.015,
        nms_radius: int = 4,
        score_radius: int = 0,
        border_margin: int = 4,
        subpixel: bool = True,
    ) -> None:
        super().__init__()
        self.net = net
        config = DetectorConfig(
            max_keypoints=max_keypoints,
            score_threshold=score_threshold,
            nms_radius=nms_radius,
            score_radius=score_radius,
            border_margin=border_margin,
            subpixel=subpixel,
        )
        self.max_keypoints = config.max_keypoints
        self.score_threshold = config.score_threshold
        self.nms_radius = config.nms_radius
        self.score_radius = config.score_radius
        self.border_margin = config.border_margin
        self.subpixel = config.subpixel

    @classmethod
    def from_weights(
        cls,
        weights: str | os.PathLike[str] | None = None,
        *,
        max_keypoints: int = -1,
        score_threshold: float | None = None,
        nms_radius: int = 4,
        score_radius: int | None = None,
        border_margin: int = 4,
        subpixel: bool = True,
    ) -> SuperPoint:
        """Load bundled weights or a checkpoint, as ``SuperPointFeature2D`` does.

        Args:
            weights: Bundled name, path, or None for the bundled default.
            max_keypoints: See the class.
            score_threshold: See the class; None takes what the weights recommend.
            nms_radius: See the class.
            score_radius: See the class; None takes what the weights recommend. Another one needs
                a ``score_threshold`` of its own.
            border_margin: See the class.
            subpixel: See the class.

        Raises:
            WeightsError: If the weights cannot be loaded.
            FeatureError: If there is no threshold for the ``score_radius``.
        """
        loaded = load_weights(weights)
        score_threshold, score_radius = loaded.scoring(score_threshold, score_radius)
        return cls(
            loaded.net,
            max_keypoints=max_keypoints,
            score_threshold=score_threshold,
            nms_radius=nms_radius,
            score_radius=score_radius,
            border_margin=border_margin,
            subpixel=subpixel,
        ).eval()

    def dense(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable maps.

        Args:
            images: (B, C, H, W) in [0, 1], any H and W; C is 1 (grey) or 3 (RGB) as the network.

        Returns:
            The heatmap (B, H, W) of probabilities, and unit descriptors (B, D, H'/8, W'/8) of
            the image padded to multiples of 8; a cell is centred on pixel (8 j + 3.5, 8 i + 3.5).

        Raises:
            FeatureError: If the images are no such tensor.
        """
        _check_tensor(images)
        height, width = images.shape[-2:]
        padding = (0, -width % CELL_SIZE, 0, -height % CELL_SIZE)
        logits, descriptors = self.net(F.pad(images, padding, mode="replicate"))
        return logits_to_heatmap(logits)[:, :height, :width], descriptors

    def forward(self, images: Tensor) -> list[TensorFeatures]:
        """Keypoints of each image; see :meth:`dense` for the argument."""
        heatmaps, dense = self.dense(images)
        return [self._decode(heatmaps[i], dense[i : i + 1]) for i in range(len(images))]

    def _decode(self, heatmap: Tensor, dense: Tensor) -> TensorFeatures:
        height, width = heatmap.shape
        maps = keypoint_scores(
            heatmap[None], self.score_threshold, self.nms_radius, self.score_radius
        )
        found, scores = maps[0][0], maps[1][0]
        margin = self.border_margin
        found[:margin] = found[max(height - margin, 0) :] = False
        found[:, :margin] = found[:, max(width - margin, 0) :] = False
        rows, columns = torch.nonzero(found, as_tuple=True)
        best = torch.argsort(scores[rows, columns].detach(), descending=True, stable=True)
        if self.max_keypoints >= 0:
            best = best[: self.max_keypoints]
        rows, columns = rows[best], columns[best]
        points = torch.stack([columns, rows], dim=1).to(heatmap.dtype)
        if self.subpixel:
            shift, _ = soft_argmax(heatmap[None], rows[None], columns[None])
            points = points + shift[0].clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
        return TensorFeatures(
            keypoints=points,
            scores=scores[rows, columns],
            descriptors=sample_descriptors(dense, points[None])[0],
        )


def _check_tensor(images: Any) -> None:
    is_tensor = isinstance(images, Tensor)
    if is_tensor and images.ndim == 4 and images.is_floating_point():
        return
    how = "images[None] makes a batch of one" if is_tensor else "torch.from_numpy makes one"
    if is_tensor and images.ndim == 4:
        how = "convert with images / 255"
    raise FeatureError(
        "images must be a floating tensor (B, C, H, W) with values in [0, 1], got "
        f"{describe(images)}; {how}"
    )
