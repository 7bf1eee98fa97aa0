"""Drawn shapes as a training set: the samples of :mod:`cv_superpoint.synthetic` as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample
from train.data.images import to_tensor
from train.data.labels import labels_from_points


class SyntheticShapes(Dataset[dict[str, Tensor]]):
    """Map-style endless set for a ``DataLoader``: item -> image and cell targets."""

    def __init__(self, seed: int, config: SyntheticConfig) -> None:
        self.seed = seed
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = draw_sample(self.seed, index, self.config)
        rng = np.random.default_rng((self.seed, index, 1))
        targets = labels_from_points(rng, sample.keypoints, self.config.size, soft=self.config.soft)
        return {"image": to_tensor(sample.image), "targets": torch.from_numpy(targets)}
