"""Configuration of a whole run: the configurations that live beside its stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from train.adapt import AdaptConfig
from train.joint import JointConfig
from train.magicpoint import MagicPointConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the outcome of a run, besides the photographs.

    Attributes:
        seed: Of the weights, the data and their order.
        threads: Threads of the training process on a CPU; 0 leaves the choice to torch.
        drawings: Synthetic drawings that stand in for photographs when none are given.
        held_out: Photographs kept out of joint training to watch it.
        magicpoint: Stage 1.
        adapt: Stage 2.
        joint: Stage 3.
    """

    seed: int = 0
    threads: int = 0
    drawings: int = 400
    held_out: int = 12
    magicpoint: MagicPointConfig = field(default_factory=MagicPointConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    joint: JointConfig = field(default_factory=JointConfig)
