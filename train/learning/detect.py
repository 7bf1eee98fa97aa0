"""Keypoints and descriptors of a network in training, for validation and adaptation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cv_superpoint.decoding import arrays as decode
from cv_superpoint.evaluation.predictions import Detections
from train.learning.model import TrainingNetwork

NMS_RADIUS = 4
BORDER = 4
SCORE_RADIUS = 2
"""What trained weights recommend; the sub-pixel window of the same size holds all of a corner."""


def points_of_heatmap(
    heatmap: npt.NDArray[np.float32],
    threshold: float,
    count: int,
    border: int = BORDER,
    score_radius: int = SCORE_RADIUS,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points (N, 2) and scores (N,) of a heatmap (H, W): NMS, border, the strongest, sub-pixel."""
    rows, columns, scores = decode.keypoints(heatmap, threshold, NMS_RADIUS, score_radius)
    h, w = heatmap.shape
    kept = (rows >= border) & (columns >= border) & (rows < h - border) & (columns < w - border)
    rows, columns, scores = rows[kept], columns[kept], scores[kept]
    order = decode.strongest(scores, count)
    rows, columns = rows[order], columns[order]
    return decode.refine(heatmap, rows, columns), scores[order]


@torch.inference_mode()
def detect(
    network: TrainingNetwork,
    images: Tensor,
    threshold: float,
    count: int = -1,
    *,
    border: int = BORDER,
    describe: bool = True,
) -> list[Detections]:
    """Detections of a batch (B, 1, H, W), best first; descriptors (N, 0) unless ``describe``."""
    device = next(network.parameters()).device
    features = network.encode(images.to(device))
    logits = network.net.detect(features).permute(0, 2, 3, 1).float().cpu().numpy()
    dense = None
    if describe:
        dense = network.net.describe(features).permute(0, 2, 3, 1).float().cpu().numpy()
    result = []
    for index, cells in enumerate(logits):
        heatmap = decode.logits_to_heatmap(cells)
        points, scores = points_of_heatmap(heatmap, threshold, count, border)
        described = np.empty((len(points), 0), np.float32)
        if dense is not None:
            described = decode.sample_descriptors(dense[index], points)
        result.append(Detections(points=points, scores=scores, descriptors=described, binary=False))
    return result
