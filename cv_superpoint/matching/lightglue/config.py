"""Sizes of the matcher's network."""

from __future__ import annotations

from dataclasses import dataclass

from cv_superpoint.errors import FeatureError


@dataclass(frozen=True, kw_only=True)
class MatcherConfig:
    """Architecture of a :class:`~cv_superpoint.matching.lightglue.network.MatcherNet`.

    Attributes:
        descriptor_dim: Length of the descriptors that it takes.
        width: Numbers that it keeps for each keypoint.
        layers: Number of layers of self attention, and of cross attention.
        heads: Heads of the attention.
    """

    descriptor_dim: int = 256
    width: int = 64
    layers: int = 4
    heads: int = 1

    def __post_init__(self) -> None:
        for name in ("descriptor_dim", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise FeatureError(f"{name} must be positive, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise FeatureError(
                f"width must be a multiple of twice heads, got {self.width} and {self.heads}"
            )
