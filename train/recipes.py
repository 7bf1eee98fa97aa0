"""Recipes: a run is a function that returns its complete configuration.

What follows the paper (DeTone et al. 2018; its section in brackets):
    - MagicPoint learns from synthetic shapes with heavy photometric changes (4).
    - Homographic adaptation labels photographs over 100 homographies, the first the identity, and
      is repeated with the better detector (5; ``views`` and ``rounds``).
    - Joint training from there on warped pairs, detector loss on both images (3.3, 6).
    - Adam at 1e-3, photographs at 240 x 320, NMS of 4 pixels (6).

What differs, and why:
    - Batch normalisation before the ReLU while training, folded at export: it converges in a
      fraction of the steps, and inference is the paper's network.
    - A cosine to zero at the end of a schedule in minutes of wall-clock time, where the paper
      counts 200 000 batches at a constant rate: machines differ a lot, and a rate that ends at
      zero is worth more than steps. Averaged weights for the same reason.
    - Soft sub-pixel labels, dual-softmax descriptor loss, reprojection and agreement terms: see
      ``losses``.
    - On a CPU: fewer views (16; most of the gain comes with the first ones), 80 x 112 drawings,
      two pairs in a batch, and the first stage of the network frozen for most of the time, because
      it is half the cost. Photographs at 320 x 480 instead of 240 x 320: the pairs are cut out of
      them, so a larger picture costs nothing there, and its labels are sharper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cv_superpoint.geometry import HomographyConfig
from cv_superpoint.network import NetworkConfig
from cv_superpoint.synthetic.photometric import PhotometricConfig
from cv_superpoint.synthetic.samples import SyntheticConfig
from train.config import RunConfig
from train.data.images import ImageConfig
from train.data.pairs import PairConfig
from train.learning.distillation import DistillationConfig
from train.learning.loop import LoopConfig
from train.learning.validate import ValidationConfig
from train.stages.adapt import AdaptConfig
from train.stages.joint import JointConfig
from train.stages.magicpoint import MagicPointConfig

# Small drawings at the usual zoom: more corners per pixel, so more per second.
SMALL_DRAWINGS = SyntheticConfig(
    size=(80, 112),
    homography=HomographyConfig(
        scale=(0.8, 1.8), rotation=np.pi, corner_jitter=0.2, translation=0.15
    ),
)


def smoke() -> RunConfig:
    """The whole chain in a minute or two on two CPU cores.

    MagicPoint learns enough to beat Harris on noisy shapes; the other stages only show that they
    run.
    """
    few = LoopConfig(steps=4, batch_size=2, workers=0, warmup_steps=1, freeze_stem_from=0.5)
    joint = JointConfig(
        loop=few,
        data=PairConfig(size=(64, 80)),
        validation=ValidationConfig(pairs=1, points=50),
    )
    return RunConfig(
        drawings=4,
        held_out=1,
        magicpoint=MagicPointConfig(
            loop=LoopConfig(
                steps=250, batch_size=8, learning_rate=2e-3, warmup_steps=30, average=0.98
            ),
            data=replace(SMALL_DRAWINGS, size=(64, 80)),
            keypoint_weight=10.0,
            validation_images=24,
        ),
        adapt=AdaptConfig(images=ImageConfig(shorter_side=96, longest_side=128), views=4),
        joint=joint,
        refinement=True,
        refine=replace(joint, loop=replace(few, freeze_stem_from=1.0), reprojection_weight=1.0),
    )


def default() -> RunConfig:
    """About twelve hours on two CPU cores."""
    return RunConfig(
        rounds=5,
        magicpoint=MagicPointConfig(
            loop=LoopConfig(
                minutes=38,
                batch_size=8,
                warmup_steps=150,
                freeze_stem_from=0.45,
                validate_minutes=6,
            ),
            data=SMALL_DRAWINGS,
        ),
        adapt=AdaptConfig(
            images=ImageConfig(shorter_side=320, longest_side=480),
            views=16,
            most_points=1000,
            points_per_image=350,
            minutes=30,
        ),
        joint=JointConfig(
            loop=LoopConfig(
                minutes=100,
                batch_size=2,
                learning_rate=5e-4,
                flat=0.15,
                freeze_stem_from=0.2,
                validate_minutes=15,
            ),
            data=PairConfig(
                size=(240, 320),
                mild=HomographyConfig(
                    scale=(0.65, 1.4),
                    rotation=0.2,
                    corner_jitter=0.06,
                    translation=0.05,
                    flip=0.5,
                ),
                strong=HomographyConfig(
                    scale=(0.5, 1.4),
                    rotation=0.7,
                    any_angle=0.1,
                    corner_jitter=0.16,
                    translation=0.08,
                ),
                photometric=PhotometricConfig(probability=0.4),
                drawings=0.15,
            ),
            reprojection_weight=2.0,
            spread_weight=0.05,
            agreement_weight=0.5,
            keypoints=300,
            keypoint_threshold=0.03,
        ),
    )


def gpu() -> RunConfig:
    """About half an hour on one big GPU with a dozen CPU cores."""
    loop = LoopConfig(
        minutes=7, batch_size=48, warmup_steps=300, flat=0.2, average=0.999,
        validate_minutes=3, report_steps=100,
    )  # fmt: skip
    joint = JointConfig(
        loop=loop,
        data=PairConfig(size=(240, 320)),
        validation=ValidationConfig(pairs=24),
        reprojection_weight=1.0,
        spread_weight=0.05,
        agreement_weight=0.5,
        keypoints=400,
    )
    return RunConfig(
        rounds=2,
        held_out=24,
        magicpoint=MagicPointConfig(
            loop=replace(loop, minutes=6, batch_size=192, workers=14),
            data=SyntheticConfig(size=(120, 160)),
        ),
        adapt=AdaptConfig(views=100, batch_size=50, minutes=2.5),
        joint=joint,
        refinement=True,
        refine=replace(
            joint,
            loop=replace(loop, minutes=5, batch_size=16, learning_rate=3e-4),
            data=replace(joint.data, size=(320, 432)),
            reprojection_weight=2.0,
            keypoints=600,
        ),
    )


def finetune() -> RunConfig:
    """Trained weights to photographs of another kind, with ``--start superpoint``.

    The training's length is in steps, so that every machine does the same work; a slow one labels
    fewer photographs.
    """
    base = default()
    joint = base.joint
    return replace(
        base,
        rounds=1,
        adapt=replace(base.adapt, minutes=3),
        joint=replace(
            joint,
            norm="none",
            loop=replace(
                joint.loop,
                minutes=0.0,
                steps=400,
                batch_size=8,
                learning_rate=4e-4,
                warmup_steps=50,
                average=0.99,
                freeze_stem_from=0.3,
                validate_minutes=5,
            ),
            # Drawings have other corners than the photographs that are asked for.
            data=replace(joint.data, drawings=0.0),
        ),
    )


def dense_labels(adapt: AdaptConfig) -> AdaptConfig:
    """All photographs, with more keypoints each; one folder of labels serves several recipes."""
    return replace(adapt, views=14, most_points=1400, points_per_image=500, minutes=0.0)


def rotation() -> RunConfig:
    """Trained weights to views turned by any angle, with ``--start superpoint``.

    The length is in steps, so that every machine does the same work. The detector keeps to what
    ``superpoint`` says of the same image: which corner counts does not change with a turn.
    """
    base = default()
    data = base.joint.data
    joint = replace(
        base.joint,
        norm="none",
        loop=replace(
            base.joint.loop,
            minutes=0.0,
            steps=3600,
            batch_size=4,
            learning_rate=4e-4,
            warmup_steps=100,
            freeze_stem_from=0.0,
            average=0.999,
        ),
        # The mild view is turned as well now and then, so that the detector sees both.
        data=replace(
            data,
            size=(192, 256),
            mild=replace(data.mild, any_angle=0.25),
            strong=replace(data.strong, any_angle=0.75, scale=(0.4, 1.5)),
            drawings=0.0,
        ),
        temperature=0.04,
        distillation=DistillationConfig(detector=0.5),
    )
    return replace(
        base,
        rounds=1,
        adapt=dense_labels(base.adapt),
        joint=joint,
        refinement=True,
        # Mostly upright again: what was learned of turns stays, and upright pairs gain.
        refine=replace(
            joint,
            loop=replace(joint.loop, steps=2700),
            data=replace(
                data,
                mild=replace(data.mild, any_angle=0.1),
                strong=replace(data.strong, any_angle=0.3, scale=(0.45, 1.45)),
                drawings=0.0,
            ),
            keypoints=400,
        ),
    )


def varied_pairs(data: PairConfig) -> PairConfig:
    """The same pairs at night, with shadows, with JPEG, at several sizes, and some turned."""
    return replace(
        data,
        mild=replace(data.mild, any_angle=0.05),
        strong=replace(data.strong, any_angle=0.25),
        photometric=replace(data.photometric, night=0.25, shadow=0.3, jpeg=0.3),
        zooms=(1.0, 1.25, 1.5),
    )


def varied() -> RunConfig:
    """Trained weights to what pictures differ in, with ``--start``: light, sizes, turns.

    It goes on from the recipe ``rotation``; the bundled weights come from both. The length is in
    steps, so that every machine does the same work. The detector's whole target is what
    ``superpoint`` says of each view, so labels only say where descriptors learn.
    """
    base = rotation()
    joint = replace(
        base.refine,
        loop=replace(base.refine.loop, steps=3000, learning_rate=3e-4),
        data=varied_pairs(base.refine.data),
        descriptor_weight=0.5,
        distillation=DistillationConfig(detector=1.0),
    )
    return replace(base, joint=joint, refinement=False)


LITE = NetworkConfig(
    channels=(16, 32, 64),
    depths=(2, 2, 4),
    downsampling="stride",
    detector_skips=True,
    head_channels=64,
    descriptor_dim=64,
)
"""1.6 GMAC for 480 x 640 pixels, a sixteenth of the paper's 26."""


def lite() -> RunConfig:
    """A network at a sixteenth of the cost, from nothing, on labels of the bundled weights.

    Its steps are cheap, so it sees many more pairs than the default network in the same time; at
    the end it also learns what the bundled weights say of them. The length is in steps, so that
    every machine does the same work. The bundled set has seen as many, in four runs
    (docs/training_log.md, runs 9, 10, 13 and 19).
    """
    base = default()
    joint = replace(
        base.joint,
        loop=replace(
            base.joint.loop,
            minutes=0.0,
            steps=9000,
            batch_size=16,
            learning_rate=2e-3,
            flat=0.1,
            warmup_steps=300,
            freeze_stem_from=1.0,
            average=0.999,
            validate_minutes=10,
            workers=2,
        ),
        keypoints=400,
        # From nothing, few probabilities are high for the first tenth of the run.
        keypoint_threshold=0.01,
    )
    return replace(
        base,
        network=LITE,
        teacher="superpoint",
        rounds=1,
        adapt=dense_labels(base.adapt),
        joint=joint,
        refinement=True,
        refine=replace(
            joint,
            loop=replace(joint.loop, steps=4200, learning_rate=6e-4, warmup_steps=100),
            norm="none",
            data=varied_pairs(joint.data),
            temperature=0.04,
            distillation=DistillationConfig(detector=1.0, descriptor=0.5),
        ),
    )


def magicpoint() -> RunConfig:
    """The first stage alone, from nothing, as a detector of its own: corners of drawings.

    The length is in steps, so that every machine does the same work.
    """
    return RunConfig(
        network=replace(LITE, channels=(32, 64, 128), head_channels=128, descriptor_dim=0),
        magicpoint=MagicPointConfig(
            loop=LoopConfig(
                steps=7500,
                batch_size=32,
                learning_rate=2e-3,
                warmup_steps=300,
                average=0.999,
                validate_minutes=8,
            ),
            data=SyntheticConfig(size=(120, 160)),
            validation_images=150,
        ),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "smoke": smoke,
    "default": default,
    "gpu": gpu,
    "finetune": finetune,
    "rotation": rotation,
    "varied": varied,
    "lite": lite,
    "magicpoint": magicpoint,
}
