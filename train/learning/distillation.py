"""What a trained network says of the images that another one learns from.

Labels tell which corner of a cell counts. The teacher's probabilities also tell how sure it is of
that, and where else there nearly is one; its descriptors tell which other places look alike. Both
join the plain targets (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.backends import Backend, choose, make_backend
from cv_superpoint.weights import load_weights
from train.runtime.process import wants_bfloat16


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How much a network learns from a trained one, beside labels and correspondences.

    Attributes:
        teacher: Weights of the trained network, a bundled name or a file.
        detector: Share of the teacher's probabilities in the detector's target.
        descriptor: Share of the teacher's matches in the target of the descriptors' dual softmax.
    """

    teacher: str = "superpoint"
    detector: float = 0.0
    descriptor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("detector", "descriptor"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {share}")

    @property
    def is_used(self) -> bool:
        """Whether any target has a share of the teacher's."""
        return self.detector > 0 or self.descriptor > 0


class Teacher:
    """A trained network, in the fastest way that this machine has for it.

    Args:
        weights: A bundled name or a file.
        in_channels: Channels of the images: 1 (grey) or 3 (RGB).

    Raises:
        ValueError: If the weights take images of another number of channels.
    """

    def __init__(self, weights: str, in_channels: int) -> None:
        self.weights = load_weights(weights)
        if self.weights.config.in_channels != in_channels:
            raise ValueError(
                f"the teacher {weights} takes {self.weights.config.in_channels} channels and the "
                f"images have {in_channels}: set --adapt.images.colour, or take another teacher"
            )
        self._backend: Backend | None = None
        self._net: torch.nn.Module | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of images.

        Args:
            images: (B, C, H, W) uint8, or float in [0, 1].

        Returns:
            Probabilities (B, 65, h, w) and unit dense descriptors (B, D, h, w).
        """
        logits, dense = (
            self._on_cpu(images) if images.device.type == "cpu" else self._on_device(images)
        )
        return logits.softmax(dim=1), F.normalize(dense, dim=1)

    def _on_cpu(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self._backend is None:
            measured = self.weights.precisions
            choice = choose(backend="auto", device="cpu", precision="auto", measured=measured)
            threads = torch.get_num_threads()
            self._backend = make_backend(self.weights, choice, threads=threads)
        pixels = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
        found = self._backend.run(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))
        logits, dense = (torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2) for maps in found)
        return logits, dense

    def _on_device(self, images: Tensor) -> tuple[Tensor, Tensor]:
        device = images.device
        if self._net is None:
            self._net = self.weights.net.to(device).eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=wants_bfloat16("auto", device)):
            pixels = images.float() / 255 if images.dtype == torch.uint8 else images
            logits, dense = self._net(pixels)
        return logits.float(), dense.float()
