"""Keypoints and descriptors of a network in training, for validation and adaptation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cv_superpoint.decoding import Decoding, arrays
from cv_superpoint.evaluation.predictions import Detections
from train.learning.model import TrainingNetwork

SCORE_RADIUS = Decoding().score_radius
"""What trained weights recommend; the sub-pixel window of the same size holds all of a corner."""
LOW = Decoding(score_threshold=1e-4)
"""Nearly all maxima, of which the strongest are taken later."""


@torch.inference_mode()
def detect(
    network: TrainingNetwork, images: Tensor, decoding: Decoding, *, describe: bool = True
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
        points, scores = arrays.find(arrays.logits_to_heatmap(cells), decoding)
        described = np.empty((len(points), 0), np.float32)
        if dense is not None:
            described = arrays.sample_descriptors(dense[index], points)
        result.append(Detections(points=points, scores=scores, descriptors=described, binary=False))
    return result
