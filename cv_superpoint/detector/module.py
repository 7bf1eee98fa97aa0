"""SuperPoint as a module of torch: tensors in, tensors out, on any device."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.tensors import decode_image, logits_to_heatmap
from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.pictures.conversions import describe
from cv_superpoint.weights import load_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorFeatures:
    """The keypoints of one image, strongest first, on the image's device.

    Attributes:
        keypoints: (N, 2), (x, y) in pixels, (0, 0) the centre of the top-left pixel.
        scores: (N,), descending, see ``score_radius`` of :class:`Decoding`.
        descriptors: (N, D), rows of unit length; D is 0 for a network without descriptors.
    """

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor


class SuperPoint(nn.Module):
    """The network and its decoding as one module of torch.

    :meth:`dense` is differentiable, for use in a larger model. A call of the module gives
    keypoints. Their scores and descriptors are differentiable, too, and their positions through
    the sub-pixel mean.

    Args:
        net: The network.
        decoding: Options of the decoding; None takes the defaults of :class:`Decoding`.
        options: Single fields of :class:`Decoding`, such as ``max_keypoints=500``.

    Raises:
        FeatureError: If an option is out of range.
        TypeError: If there is no such option.
    """

    def __init__(
        self, net: SuperPointNet, decoding: Decoding | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.net = net
        self.decoding = replace(decoding or Decoding(), **options)

    @classmethod
    def from_pretrained(
        cls, weights: str | os.PathLike[str] | None = None, **options: Any
    ) -> SuperPoint:
        """Load bundled weights or a checkpoint, as ``SuperPointFeature2D`` does.

        Args:
            weights: Bundled name, path, or None for the bundled default.
            options: Fields of :class:`Decoding`. Without ``score_threshold`` and ``score_radius``
                they are those that the weights recommend.

        Raises:
            WeightsError: If the weights cannot be loaded.
            FeatureError: If an option is out of range, or there is no threshold for the
                ``score_radius``.
            TypeError: If there is no such option.
        """
        loaded = load_weights(weights)
        return cls(loaded.net, loaded.decoding(**options)).eval()

    @classmethod
    def from_weights(
        cls, weights: str | os.PathLike[str] | None = None, **options: Any
    ) -> SuperPoint:
        """Old name of :meth:`from_pretrained`, removed in 0.3."""
        warnings.warn(
            "SuperPoint.from_weights is from_pretrained now", DeprecationWarning, stacklevel=2
        )
        return cls.from_pretrained(weights, **options)

    def dense(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the heatmap and the dense descriptors, differentiably.

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
        found = []
        for heatmap, dense in zip(*self.dense(images), strict=True):
            points, scores, descriptors = decode_image(heatmap, dense, self.decoding)
            found.append(TensorFeatures(keypoints=points, scores=scores, descriptors=descriptors))
        return found


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
