"""The matcher's network in torch: what training learns, and what the exports are held to.

Source:
    LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023), sections 3.1 and 3.2: layers of self
    and cross attention, rotary positions, and an assignment of a dual softmax and matchabilities.

What differs:
    - Positions are divided by each axis' own size, as ``cv2.LightGlueMatcher`` gives them.
    - It is small: 64 to 128 numbers for each keypoint, one or a few heads, and no early exit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.matching.lightglue.config import MatcherConfig


class Assignment(NamedTuple):
    """Which keypoints belong together.

    Attributes:
        similarity: (B, N, M), before the softmax over either axis.
        matchable0: (B, N) logits of having a counterpart.
        matchable1: (B, M) logits.
    """

    similarity: Tensor
    matchable0: Tensor
    matchable1: Tensor

    def scores(self) -> Tensor:
        """(B, N, M) probabilities of a match (equation 6)."""
        both = self.similarity.log_softmax(dim=2) + self.similarity.log_softmax(dim=1)
        either = F.logsigmoid(self.matchable0)[:, :, None] + F.logsigmoid(self.matchable1)[:, None]
        return (both + either).exp()


class MatcherNet(nn.Module):
    """Keypoints and descriptors of two images to an assignment.

    Args:
        config: Sizes of the network.
    """

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.project = nn.Linear(config.descriptor_dim, width)
        self.frequencies = nn.Linear(2, width // config.heads // 2, bias=False)
        nn.init.normal_(self.frequencies.weight)
        self.self_layers = nn.ModuleList(SelfLayer(config) for _ in range(config.layers))
        self.cross_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.layers))
        self.heads = nn.ModuleList(AssignmentHead(width) for _ in range(config.layers))

    def forward(
        self,
        points0: Tensor,
        points1: Tensor,
        descriptors0: Tensor,
        descriptors1: Tensor,
        valid0: Tensor | None = None,
        valid1: Tensor | None = None,
    ) -> list[Assignment]:
        """The assignment after every layer, the last one last.

        Args:
            points0: (B, N, 2) positions in [-1, 1].
            points1: (B, M, 2).
            descriptors0: (B, N, D) rows of unit length.
            descriptors1: (B, M, D).
            valid0: (B, N) boolean, rows that are no padding; all by default.
            valid1: (B, M).
        """
        x0, x1 = self.project(descriptors0), self.project(descriptors1)
        turn0, turn1 = self.frequencies(points0), self.frequencies(points1)
        found = []
        for own, cross, head in zip(self.self_layers, self.cross_layers, self.heads, strict=True):
            x0, x1 = own(x0, turn0, valid0), own(x1, turn1, valid1)
            x0, x1 = cross(x0, x1, valid1), cross(x1, x0, valid0)
            found.append(head(x0, x1, valid0, valid1))
        return found


class _Attention(nn.Module):
    """Attention of several heads, and the message that it leaves."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        width = config.width
        self.count = config.heads
        self.message = nn.Linear(width, width)
        self.mix = nn.Sequential(
            nn.Linear(2 * width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, width),
        )

    def split(self, rows: Tensor) -> Tensor:
        """(B, N, width) -> (B, heads, N, width / heads)."""
        batch, count, width = rows.shape
        return rows.view(batch, count, self.count, width // self.count).transpose(1, 2)

    def update(
        self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None
    ) -> Tensor:
        """``x`` (B, N, width) plus the message from the valid rows of the other side."""
        mask = None if valid is None else valid[:, None, None]
        told = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        message = self.message(told.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.mix(torch.cat([x, message], dim=2))
        return changed


class SelfLayer(_Attention):
    """Self attention of one image's keypoints, which depends on their distances (section 3.1)."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__(config)
        self.inputs = nn.Linear(config.width, 3 * config.width)

    def forward(self, x: Tensor, turn: Tensor, valid: Tensor | None) -> Tensor:
        """(B, N, width) -> the same, of the same image; ``turn`` as :func:`rotate` takes it."""
        query, key, value = (self.split(part) for part in self.inputs(x).chunk(3, dim=2))
        return self.update(x, rotate(query, turn), rotate(key, turn), value, valid)


class CrossLayer(_Attention):
    """Cross attention between the keypoints of both images; keys are the queries too."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__(config)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, other: Tensor, valid: Tensor | None) -> Tensor:
        """(B, N, width) of an image and (B, M, width) of the other -> (B, N, width)."""
        query, key = self.split(self.key(x)), self.split(self.key(other))
        return self.update(x, query, key, self.split(self.value(other)), valid)


class AssignmentHead(nn.Module):
    """Similarities and matchabilities of both images' keypoints (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.matchable = nn.Linear(width, 1)

    def forward(
        self, x0: Tensor, x1: Tensor, valid0: Tensor | None, valid1: Tensor | None
    ) -> Assignment:
        """(B, N, width) and (B, M, width) -> what belongs together."""
        shrink = 1 / math.sqrt(math.sqrt(x0.shape[2]))
        first, second = self.project(x0) * shrink, self.project(x1) * shrink
        similarity = first @ second.transpose(1, 2)
        if valid0 is not None and valid1 is not None:
            similarity = similarity.masked_fill(~valid0[:, :, None] | ~valid1[:, None], -1e4)
        return Assignment(similarity, self.matchable(x0)[..., 0], self.matchable(x1)[..., 0])


def rotate(rows: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions: the numbers k and k + n / 2 of every row are turned by angle k.

    Args:
        rows: (B, heads, N, n).
        turn: (B, N, n / 2) angles.
    """
    first, second = rows.chunk(2, dim=3)
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=3)
