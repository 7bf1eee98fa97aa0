"""Recipes: a run is a function that returns its complete configuration.

What follows the paper: MagicPoint on synthetic shapes with heavy photometric changes; homographic
adaptation with the identity first; joint training from warped pairs with Adam at 1e-3.

What differs, and why:
    - Batch normalisation before the ReLU while training, folded at export: it converges in a
      fraction of the steps, and inference is the paper's network.
    - Schedules in minutes of wall-clock time with a cosine to zero: machines differ a lot.
    - The first stage of the network is frozen for most of the time: on a CPU it is half the cost.
    - Soft sub-pixel labels, dual-softmax descriptor loss (see ``losses``).
    - 80 x 112 drawings and 160 x 208 pairs; the paper trains at 240 x 320 on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from train.adapt import AdaptConfig
from train.config import RunConfig
from train.data.images import ImageConfig
from train.data.pairs import PairConfig
from train.data.synthetic import SyntheticConfig
from train.geometry.homography import HomographyConfig
from train.joint import JointConfig
from train.loop import LoopConfig
from train.magicpoint import MagicPointConfig
from train.validate import ValidationConfig


def smoke() -> RunConfig:
    """Every stage for a few steps, in seconds: shows that the chain works, nothing else."""
    few = LoopConfig(steps=3, batch_size=2, workers=0, warmup_steps=1, freeze_stem_from=0.5)
    refine = replace(few, freeze_stem_from=1.0)
    return RunConfig(
        drawings=4,
        held_out=1,
        magicpoint=MagicPointConfig(
            loop=few, data=SyntheticConfig(size=(64, 80)), validation_images=4
        ),
        adapt=AdaptConfig(images=ImageConfig(shorter_side=96, longest_side=128), views=4),
        joint=JointConfig(
            loop=few,
            data=PairConfig(size=(64, 80)),
            validation=ValidationConfig(pairs=1, points=50),
        ),
        refine=JointConfig(
            loop=refine,
            data=PairConfig(size=(64, 80)),
            validation=ValidationConfig(pairs=1, points=50),
            reprojection_weight=1.0,
            keypoint_threshold=0.0,
        ),
    )


def default() -> RunConfig:
    """About two hours on two CPU cores; the bundled weights' recipe."""
    return RunConfig(
        magicpoint=MagicPointConfig(
            loop=LoopConfig(
                minutes=38,
                batch_size=8,
                warmup_steps=150,
                freeze_stem_from=0.45,
                validate_minutes=6,
            ),
            # Small drawings at the usual zoom: more corners per pixel, so more per second.
            data=SyntheticConfig(
                size=(80, 112),
                homography=HomographyConfig(
                    scale=(0.8, 1.8), rotation=np.pi, corner_jitter=0.2, translation=0.15
                ),
            ),
        ),
        adapt=AdaptConfig(views=12, minutes=12),
        joint=JointConfig(
            loop=LoopConfig(
                minutes=60, batch_size=4, flat=0.15, freeze_stem_from=0.0, validate_minutes=8
            ),
            data=PairConfig(size=(160, 208)),
        ),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {"smoke": smoke, "default": default}
