"""Stage 3, joint training of detector and descriptors on warped pairs (section 3.4 to 6)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cv_superpoint.decoding.tensors import sample_descriptors
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.torch_network import NetworkConfig
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs
from train.learning.distillation import DistillationConfig, Teacher
from train.learning.keypoints import SoftKeypoints, soft_keypoints
from train.learning.loader import Batch
from train.learning.loop import LoopConfig
from train.learning.losses import (
    Taught,
    agreement_loss,
    cell_pairs,
    dense_hinge_loss,
    detector_loss,
    dual_softmax_loss,
    reprojection_loss,
)
from train.learning.model import TrainingNetwork, TrainingNorm
from train.learning.validate import ValidationConfig, draw_pair, fixed_pairs, measure_pairs
from train.reporting.pictures import Picture, with_points
from train.runtime import distributed

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Configuration of the stage.

    Attributes:
        loop: Length, batch (in pairs), learning rate.
        norm: "before_relu" trains with batch normalisation; "none" goes on from folded weights
            without any, which takes a CPU two thirds of the time a step, and makes training and
            inference the same function. From nothing a network needs normalisation.
        data: How pairs are made.
        validation: The pairs that are watched.
        pairs: Maker of the pairs: "workers" (processes, on the CPU) or the training "device", where
            all photographs must fit into memory; "auto": on the device if it is a GPU.
        descriptor_loss: "dual_softmax", or the paper's "dense_hinge".
        negative_margin: Lower margin of the dense hinge: products of cells that do not correspond
            are pushed down to it. The paper's 0.2; -1 pushes them all the way.
        detector_weight: Weight of the detector's loss, the mean of both images.
        descriptor_weight: Weight of the descriptors' loss. At 1 its gradient starves the detector.
        reprojection_weight: Weight of the distance between corresponding keypoints, in pixels.
        spread_weight: Weight of the spread of their 5 x 5 windows, in pixels squared.
        agreement_weight: Weight of the difference between what both images say about a keypoint, in
            nats.
        keypoints: Strongest keypoints of an image that these three terms look at.
        keypoint_threshold: Smallest probability of such a keypoint.
        temperature: Where the learned temperature of the dual softmax starts.
        largest_scale: Bound of the inverse temperature.
        distillation: What is learned from trained weights beside labels and correspondences.
    """

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            minutes=45, batch_size=4, flat=0.15, freeze_stem_from=0.0, validate_minutes=8
        )
    )
    norm: TrainingNorm = "before_relu"
    data: PairConfig = field(default_factory=PairConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    pairs: Literal["auto", "workers", "device"] = "auto"
    descriptor_loss: Literal["dual_softmax", "dense_hinge"] = "dual_softmax"
    negative_margin: float = 0.2
    detector_weight: float = 2.0
    descriptor_weight: float = 0.3
    reprojection_weight: float = 0.0
    spread_weight: float = 0.0
    agreement_weight: float = 0.0
    keypoints: int = 200
    keypoint_threshold: float = 0.02
    temperature: float = 0.07
    largest_scale: float = 60.0
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        if self.distillation.descriptor and self.descriptor_loss != "dual_softmax":
            raise ValueError(
                "distillation.descriptor is a share in the target of the dual softmax; set "
                f"descriptor_loss to dual_softmax, not {self.descriptor_loss}"
            )


class Joint:
    """The task: pairs -> cell labels of both images and matching descriptors."""

    def __init__(
        self,
        config: JointConfig,
        seed: int,
        images: list[LabelledImage],
        held_out: list[Path],
        sizes: ImageConfig,
        name: str = "joint",
        network: NetworkConfig | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.seed = seed
        self.images = images
        self.sizes = sizes
        network = replace(
            network or NetworkConfig(), in_channels=3 if sizes.colour else 1, norm=config.norm
        )
        self.network = TrainingNetwork(seed, network)
        self.log_scale = torch.nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.network.register_parameter("log_scale", self.log_scale)
        self.pairs = fixed_pairs(held_out, sizes, config.validation)
        taught = config.distillation
        self.teacher = Teacher(taught.teacher, network.in_channels) if taught.is_used else None

    def start_from(self, network: dict[str, Tensor]) -> None:
        """Take the weights of a network that was trained before; the temperature is new.

        The descriptor head that a detector lacks is new, too.
        """
        new = {k: v for k, v in self.network.state_dict().items() if k.startswith("net.descriptor")}
        self.network.load_state_dict({**new, **network, "log_scale": self.log_scale.detach()})

    def dataset(self) -> WarpedPairs:
        """Warped pairs of the labelled photographs."""
        return WarpedPairs(self.seed, self.images, self.sizes, self.config.data)

    def device_batches(self, device: torch.device, step: int, share: int) -> Iterator[Batch] | None:
        """Warped pairs made on the device, if that is where they are to be made."""
        if self.config.pairs == "workers" or (self.config.pairs, device.type) == ("auto", "cpu"):
            return None
        pairs = DevicePairs(
            self.seed, self.images, self.sizes, self.config.data, device,
            rank=distributed.rank(), world_size=distributed.world_size(),
        )  # fmt: skip
        return pairs.batches(step, share)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The whole network and the temperature."""
        return list(self.network.parameters())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the detector's and the descriptors' losses."""
        images = torch.cat([batch["image0"], batch["image1"]])
        logits, dense = self.network(images)
        # The network alone is in bfloat16: its next number after 256 is 258, and positions in
        # pixels and similarities need more.
        with torch.autocast("cuda" if images.is_cuda else "cpu", enabled=False):
            return self._loss(batch, images, logits.float(), dense.float())

    def _loss(
        self, batch: Batch, images: Tensor, logits: Tensor, dense: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What :meth:`loss` says of the network's outputs, in float32."""
        config = self.config
        valid = torch.cat([batch["valid0"], batch["valid1"]])
        targets = torch.cat([batch["targets0"], batch["targets1"]])
        scale = self.log_scale.exp().clamp(max=config.largest_scale)
        taught = None
        if self.teacher is not None:
            probabilities, theirs = self.teacher(images)
            targets = targets.lerp(probabilities, config.distillation.detector)
            taught = self._taught(theirs, batch, scale)
        detector = detector_loss(logits, targets, valid)
        dense0, dense1 = dense.chunk(2)
        if config.descriptor_loss == "dense_hinge":
            descriptor = dense_hinge_loss(
                dense0, dense1, *cell_pairs(batch), negative_margin=config.negative_margin
            )
        else:
            descriptor = dual_softmax_loss(
                sample_descriptors(dense0, batch["points0"]),
                sample_descriptors(dense1, batch["points1"]),
                batch["points1"],
                batch["visible"],
                scale,
                safe_radius=CELL_SIZE / 2,
                taught=taught,
            )
        total = config.detector_weight * detector + config.descriptor_weight * descriptor
        parts = {"detector": detector, "descriptor": descriptor, "scale": scale}
        if config.reprojection_weight or config.spread_weight or config.agreement_weight:
            found = soft_keypoints(logits, valid, config.keypoints, config.keypoint_threshold)
            first = SoftKeypoints(*(value.chunk(2)[0] for value in found))
            second = SoftKeypoints(*(value.chunk(2)[1] for value in found))
            distance, spread = reprojection_loss(first, second, batch["homography"])
            agreement = agreement_loss(first, second, batch["homography"])
            total = total + config.reprojection_weight * distance + config.spread_weight * spread
            total = total + config.agreement_weight * agreement
            parts |= {"reprojection": distance, "spread": spread, "agreement": agreement}
        return total, parts

    def _taught(self, theirs: Tensor, batch: Batch, scale: Tensor) -> Taught | None:
        """The teacher's descriptors at the points of the pairs, at the temperature learned here."""
        share = self.config.distillation.descriptor
        if not share:
            return None
        rows = [
            sample_descriptors(dense, batch[f"points{k}"])
            for k, dense in enumerate(theirs.chunk(2))
        ]
        return Taught(rows[0], rows[1], scale.detach(), share)

    def validate(self, network: TrainingNetwork) -> dict[str, float]:
        """Measures on warped pairs of photographs that are not trained on."""
        return measure_pairs(network, self.pairs, self.config.validation)

    def pictures(self, network: TrainingNetwork) -> dict[str, Picture]:
        """Matches of the first validation pair and the labels of the first training pair."""
        views = self.dataset().views(0)[:2]
        labels = np.hstack([with_points(view.image, view.keypoints) for view in views])
        matches = [draw_pair(network, pair, 100) for pair in self.pairs[:1]]
        return {"labels": labels, **{f"matches{k}": picture for k, picture in enumerate(matches)}}
