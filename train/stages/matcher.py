"""The matcher's training on the features of a detector whose weights stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.matching.lightglue.network import Assignment, MatcherNet
from train.data.feature_pairs import FeaturePairs, FeaturesConfig, MatchPairConfig
from train.learning.loader import Batch
from train.learning.loop import LoopConfig
from train.learning.matching import matching_loss, mutual_matches, precision_and_recall
from train.learning.model import Trainable
from train.reporting.pictures import Picture

THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Scores that a match must exceed, of which a matcher recommends one."""


@dataclass(frozen=True, kw_only=True)
class MatcherTrainingConfig:
    """How a matcher is trained.

    Attributes:
        seed: Seed of the scenes, of the pairs and of the initial weights.
        width: Numbers that the network keeps for each keypoint.
        layers: Layers of self and cross attention, each.
        heads: Heads of the attention.
        features: What is extracted once.
        pairs: How pairs are made of it.
        held_out: Scenes that are not trained on and watch the run.
        validation: Pairs of these that are measured.
        loop: Length, batch (in pairs), learning rate. In float32: in bfloat16 such networks have
            been reported to diverge.
    """

    seed: int = 0
    width: int = 64
    layers: int = 4
    heads: int = 1
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    pairs: MatchPairConfig = field(default_factory=MatchPairConfig)
    held_out: int = 32
    validation: int = 128
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=5500, batch_size=16, learning_rate=1e-3, warmup_steps=200, flat=0.1,
            clip_norm=1.0, average=0.998, precision="float32", validate_minutes=8,
            report_steps=50,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 2 <= self.held_out <= self.features.scenes - 2:
            raise ValueError(
                f"held_out must leave two scenes on either side of {self.features.scenes}, "
                f"got {self.held_out}"
            )


class TrainingMatcher(Trainable):
    """A :class:`MatcherNet` under training.

    Args:
        seed: Seed of the initial weights.
        config: Sizes of the network.
        descriptors: (N, D) descriptors whose principal components it starts with.
    """

    def __init__(self, seed: int, config: MatcherConfig, descriptors: Tensor) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = MatcherNet(config)
        self._project_on_components(descriptors)

    @torch.no_grad()
    def _project_on_components(self, descriptors: Tensor) -> None:
        """Let the first layer keep similarities, in numbers of the size that attention expects."""
        project = self.net.project
        components = torch.linalg.svd(descriptors, full_matrices=False).Vh[: self.config.width]
        project.weight.zero_()
        project.weight[: len(components)] = components * self.config.width**0.5
        project.bias.zero_()

    @property
    def config(self) -> MatcherConfig:
        """Config of the network."""
        return self.net.config

    def forward(self, batch: Batch) -> list[Assignment]:
        """The assignment after every layer."""
        names = ("points", "descriptors", "valid")
        inputs = [batch[f"{name}{side}"] for name in names for side in "01"]
        found: list[Assignment] = self.net(*inputs)
        return found


class MatcherTask:
    """The task: pairs of feature sets -> which belong together.

    Args:
        config: How it is trained.
        files: Features of all scenes.
        start: Matcher whose network it starts with.
    """

    name = "matcher"

    def __init__(
        self,
        config: MatcherTrainingConfig,
        files: Sequence[Path],
        start: LoadedMatcher | None = None,
    ) -> None:
        self.config = config
        self.seed = config.seed
        self.held_out, self.training = files[: config.held_out], files[config.held_out :]
        descriptors = self._descriptors()
        sizes = MatcherConfig(
            descriptor_dim=descriptors.shape[1],
            width=config.width,
            layers=config.layers,
            heads=config.heads,
        )
        self.network = TrainingMatcher(config.seed, sizes, descriptors)
        if start is not None:
            _start_with(self.network.net, start)

    def _descriptors(self) -> Tensor:
        """Some descriptors of the scenes that are trained on."""
        pairs = self._pairs(self.training, self.seed, 1)
        items = [pairs[k] for k in range(64)]
        return torch.cat([item["descriptors0"][item["valid0"]] for item in items])

    def _pairs(self, files: Sequence[Path], seed: int, together: int) -> FeaturePairs:
        views = self.config.features.scene.views
        return FeaturePairs(seed, files, views, self.config.pairs, together)

    def dataset(self) -> FeaturePairs:
        """Pairs of the scenes that are trained on."""
        return self._pairs(self.training, self.seed, self.config.loop.batch_size)

    def device_batches(self, device: torch.device, step: int, share: int) -> Iterator[Batch] | None:
        """None: workers make the pairs."""
        return None

    def parameters(self) -> list[torch.nn.Parameter]:
        """The whole network."""
        return list(self.network.parameters())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood of the true assignment."""
        return matching_loss(self.network(batch), batch)

    def validate(self, network: TrainingMatcher) -> dict[str, float]:
        """Precision and recall on held-out scenes, beside those of mutual nearest neighbours."""
        batches, scores = self._held_out_scores(network)
        rates = _rates(scores, batches)
        nearest = precision_and_recall([_nearest(batch) for batch in batches], batches)
        best = max(rates, key=lambda threshold: _f1(rates[threshold]))
        return {
            **rates[best],
            "threshold": best,
            **{f"nearest_{name}": value for name, value in nearest.items()},
        }

    def recommended(self, network: TrainingMatcher) -> float:
        """The threshold at which precision and recall on held-out scenes have the best F1."""
        return self.validate(network)["threshold"]

    def _held_out_scores(self, network: TrainingMatcher) -> tuple[list[Batch], list[Tensor]]:
        together, count = 16, self.config.validation
        pairs = self._pairs(self.held_out, self.seed + 1, together)
        batches = [
            torch.utils.data.default_collate(
                [pairs[k] for k in range(start, min(start + together, count))]
            )
            for start in range(0, count, together)
        ]
        device = next(network.parameters()).device
        with torch.inference_mode():
            found = [
                network({name: value.to(device) for name, value in batch.items()})
                for batch in batches
            ]
            return batches, [one[-1].scores().cpu() for one in found]

    def pictures(self, network: TrainingMatcher) -> dict[str, Picture]:
        """None: the features do not hold the images."""
        return {}


def _start_with(network: MatcherNet, start: LoadedMatcher) -> None:
    """Take over what a matcher of the same sizes has learned.

    Raises:
        ValueError: If its sizes differ.
    """
    if start.config != network.config:
        raise ValueError(
            f"{start.path} has the sizes {start.config}, this training {network.config}: give "
            "the same width, layers and heads"
        )
    network.load_state_dict({name: torch.from_numpy(row) for name, row in start.tensors.items()})


def _rates(scores: Sequence[Tensor], batches: Sequence[Batch]) -> dict[float, dict[str, float]]:
    """Precision and recall at each threshold."""
    return {
        threshold: precision_and_recall([mutual_matches(one, threshold) for one in scores], batches)
        for threshold in THRESHOLDS
    }


def _f1(rates: Mapping[str, float]) -> float:
    total = rates["precision"] + rates["recall"]
    return 2 * rates["precision"] * rates["recall"] / total if total else 0.0


def _nearest(batch: Batch) -> Tensor:
    """Mutual nearest neighbours of a batch, as :func:`mutual_matches` gives them."""
    similarity = batch["descriptors0"] @ batch["descriptors1"].transpose(1, 2)
    both = batch["valid0"][:, :, None] & batch["valid1"][:, None]
    return mutual_matches(similarity.masked_fill(~both, -1), -1.0)
