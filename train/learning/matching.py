"""The matcher's loss and its measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.matching.lightglue.network import Assignment
from train.data.scenes import UNMATCHED


def matching_loss(
    assignments: Sequence[Assignment], batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood of the true assignment, the mean over all layers.

    LightGlue, section 3.3: half of it are the matches, half the keypoints without one, of which
    both images count alike.

    Args:
        assignments: Assignments of every layer.
        batch: With ``matches0`` (B, N) and ``matches1`` (B, M): rows of the other image,
            :data:`UNMATCHED`, or less where nothing is known.

    Returns:
        The loss, a scalar, and that of the last layer by its parts, for the report.
    """
    matches0, matches1 = batch["matches0"], batch["matches1"]
    matched, target = matches0 > UNMATCHED, matches0.clamp(min=0)
    count = matched.sum().clamp(min=1)
    lonely = matches0 == UNMATCHED, matches1 == UNMATCHED
    total = matches0.new_zeros((), dtype=torch.float32)
    parts = {}
    for similarity, matchable0, matchable1 in assignments:
        across = similarity.gather(2, target[..., None])[..., 0]
        rows = similarity.logsumexp(dim=2)
        columns = similarity.logsumexp(dim=1).gather(1, target)
        both = F.logsigmoid(matchable0) + F.logsigmoid(matchable1).gather(1, target)
        found = -((2 * across - rows - columns + both) * matched).sum() / count
        left = [
            -(F.logsigmoid(-logits) * none).sum() / none.sum().clamp(min=1)
            for logits, none in zip((matchable0, matchable1), lonely, strict=True)
        ]
        alone = (left[0] + left[1]) / 2
        parts = {"matched": found.detach(), "alone": alone.detach()}
        total = total + (found + alone) / 2
    return total / len(assignments), parts


def mutual_matches(scores: Tensor, threshold: float) -> Tensor:
    """(B, N) rows of image 1 that are each other's best above a threshold, -1 for none."""
    best, target = scores.max(dim=2)
    back = scores.argmax(dim=1).gather(1, target)
    own = torch.arange(scores.shape[1], device=scores.device)
    return torch.where((back == own) & (best > threshold), target, -1)


def precision_and_recall(
    found: Sequence[Tensor], batches: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """Shares of right matches among those found, and of found ones among the right.

    Args:
        found: (B, N) of each batch, as :func:`mutual_matches` gives them.
        batches: Batches with the labels; keypoints of which nothing is known do not count.
    """
    right = said = true = 0
    for rows, batch in zip(found, batches, strict=True):
        labels = batch["matches0"]
        right += int(((rows == labels) & (labels >= 0)).sum())
        said += int(((rows >= 0) & (labels >= UNMATCHED)).sum())
        true += int((labels >= 0).sum())
    return {"precision": right / max(said, 1), "recall": right / max(true, 1)}
