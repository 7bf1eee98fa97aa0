"""Losses of the detector and of the descriptors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def detector_loss(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy over the 65 channels of every cell.

    Args:
        logits: (B, 65, h, w).
        targets: (B, 65, h, w), summing to one over the channels.
        valid: (B, h, w) boolean, cells that count; all by default.

    Returns:
        Mean over the valid cells, a scalar; 0 when there are none.
    """
    cells = -(targets * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    if valid is None:
        return cells.mean()
    return (cells * valid).sum() / valid.sum().clamp(min=1)
