"""Stage 1, MagicPoint: the detector learns corners from synthetic shapes (section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from cv_superpoint.decoding import Decoding
from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.predictions import Detections
from cv_superpoint.network.torch_network import NetworkConfig
from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample
from train.data.images import to_tensor
from train.data.synthetic import SyntheticShapes
from train.learning.detect import LOW, detect
from train.learning.loader import Batch
from train.learning.loop import LoopConfig
from train.learning.losses import detector_loss
from train.learning.model import TrainingNetwork
from train.reporting.pictures import Picture, with_points

THRESHOLD = 0.1
"""Smallest probability of the detections whose precision and recall are watched."""
WEAK = Decoding(score_threshold=0.01, border_margin=0)
"""What is found on drawings, which have corners at their borders."""


@dataclass(frozen=True, kw_only=True)
class MagicPointConfig:
    """Configuration of the stage.

    Attributes:
        loop: Length, batch, learning rate.
        data: What is drawn.
        keypoint_weight: How much more than empty cells those with a keypoint count.
        validation_images: Held-out drawings, each judged clean and with photometric changes.
    """

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(minutes=35, warmup_steps=150))
    data: SyntheticConfig = field(default_factory=SyntheticConfig)
    keypoint_weight: float = 1.0
    validation_images: int = 96


class MagicPoint:
    """The task: synthetic shapes -> cell labels."""

    name = "magicpoint"

    def __init__(
        self, config: MagicPointConfig, seed: int, network: NetworkConfig | None = None
    ) -> None:
        self.config = config
        self.seed = seed
        network = replace(
            network or NetworkConfig(),
            in_channels=3 if config.data.colour else 1,
            norm="before_relu",
        )
        self.network = TrainingNetwork(seed, network)
        for name, parameter in self.network.net.named_parameters():
            parameter.requires_grad_(not name.startswith("descriptor"))

    def dataset(self) -> SyntheticShapes:
        """Drawings of the run's seed."""
        return SyntheticShapes(self.seed, self.config.data)

    def device_batches(self, device: torch.device, step: int, share: int) -> None:
        """Drawings are made by workers."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """The network without its descriptor head."""
        named = self.network.net.named_parameters()
        return [p for name, p in named if not name.startswith("descriptor")]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the cells."""
        features = self.network.encode(batch["image"])
        logits = self.network.net.detect(features)
        weight = self.config.keypoint_weight
        return detector_loss(logits, batch["targets"], keypoint_weight=weight), {}

    def validate(self, network: TrainingNetwork) -> dict[str, float]:
        """Measure on clean drawings and on drawings with photometric changes, at 2.5 px.

        Average precision, precision and recall of the detections above ``THRESHOLD``, and the
        localisation error of the correct ones.
        """
        measures = {}
        for kind in ("clean", "noisy"):
            config = replace(self.config.data, clean=kind == "clean")
            scores, distances, corners = _judged(
                network, self.seed, config, self.config.validation_images, WEAK
            )
            correct, strong = np.isfinite(distances), scores > THRESHOLD
            hits = float((correct & strong).sum())
            measures[f"precision_{kind}"] = hits / max(int(strong.sum()), 1)
            measures[f"recall_{kind}"] = hits / max(corners, 1)
            measures[f"ap_{kind}"] = metrics.average_precision(scores, correct, corners)
            measures[f"localisation_{kind}"] = (
                float(np.mean(distances[correct])) if correct.any() else float("nan")
            )
        return measures

    def pictures(self, network: TrainingNetwork) -> dict[str, Picture]:
        """Detections on held-out drawings."""
        samples = [draw_sample(self.seed + 2**31, index, self.config.data) for index in range(6)]
        found = [with_points(s.image, _find(network, s, WEAK).points) for s in samples]
        return {"detections": np.hstack(found)}


def best_threshold(network: TrainingNetwork, seed: int, data: SyntheticConfig) -> float:
    """The score with the best balance of precision and recall (F1, at 2.5 px) on drawings.

    Args:
        network: A detector.
        seed: Seed of its run, which saw none of these drawings.
        data: What it learned from.

    Returns:
        The threshold, for scores of the window that exported weights recommend.
    """
    scores, distances, corners = _judged(network, seed, data, 200, replace(LOW, border_margin=0))
    order = np.argsort(-scores)
    hits = np.isfinite(distances[order]).cumsum()
    # 2 P R / (P + R), with all that is as strong found.
    balance = 2 * hits / (np.arange(1, len(hits) + 1) + corners)
    return float(scores[order[balance.argmax()]]) if len(order) else 0.0


def _judged(
    network: TrainingNetwork, seed: int, data: SyntheticConfig, count: int, decoding: Decoding
) -> tuple[metrics.Array, metrics.Array, int]:
    """Scores (N,) and distances (N,) of what is found on held-out drawings, and their corners."""
    # Far from the seed of any training run.
    samples = [draw_sample(seed + 2**31, index, data) for index in range(count)]
    pairs = [(_find(network, sample, decoding), sample.keypoints) for sample in samples]
    distances = np.concatenate(
        [metrics.match_detections(f.points, f.scores, corners, 2.5) for f, corners in pairs]
    )
    scores = np.concatenate([found.scores for found, _ in pairs])
    return scores, distances, sum(len(corners) for _, corners in pairs)


def _find(network: TrainingNetwork, sample: SyntheticSample, decoding: Decoding) -> Detections:
    image = to_tensor(sample.image)[None]
    return detect(network, image, decoding, describe=False)[0]
