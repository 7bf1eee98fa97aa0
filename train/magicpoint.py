"""Stage 1, MagicPoint: the detector learns corners from synthetic shapes (section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from train.data.synthetic import SyntheticConfig, SyntheticShapes, draw_sample
from train.detect import detect
from train.evaluate.metrics import detection_average_precision
from train.loop import Batch, LoopConfig
from train.losses import detector_loss
from train.model import TrainingNetwork


@dataclass(frozen=True, kw_only=True)
class MagicPointConfig:
    """Configuration of the stage.

    Attributes:
        loop: Length, batch, learning rate.
        data: What is drawn.
        validation_images: Held-out drawings, each judged clean and with photometric changes.
    """

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(minutes=35, warmup_steps=150))
    data: SyntheticConfig = field(default_factory=SyntheticConfig)
    validation_images: int = 96


class MagicPoint:
    """The task: synthetic shapes -> cell labels."""

    name = "magicpoint"

    def __init__(self, config: MagicPointConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.network = TrainingNetwork(seed)

    def dataset(self) -> SyntheticShapes:
        """Drawings of the run's seed."""
        return SyntheticShapes(self.seed, self.config.data)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The network without its descriptor head."""
        named = self.network.net.named_parameters()
        return [p for name, p in named if not name.startswith("descriptor")]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the cells."""
        features = self.network.encode(batch["image"])
        return detector_loss(self.network.net.detect(features), batch["targets"]), {}

    def validate(self) -> dict[str, float]:
        """Average precision (2.5 px) and localisation error, clean and with photometric changes."""
        measures = {}
        for kind in ("clean", "noisy"):
            config = replace(self.config.data, clean=kind == "clean")
            samples = [
                # Another seed than any training run's: a negative one is not a valid seed.
                draw_sample(self.seed + 2**31, index, config)
                for index in range(self.config.validation_images)
            ]
            found = []
            for sample in samples:
                image = torch.from_numpy(sample.image)[None, None]
                found += detect(self.network, image, 0.01, border=0, describe=False)
            measures[f"ap_{kind}"], measures[f"localisation_{kind}"] = detection_average_precision(
                [(d.points, d.scores) for d in found], [s.keypoints for s in samples], 2.5
            )
        return measures
