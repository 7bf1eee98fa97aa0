"""Configuration of a whole run: the configurations that live beside its stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cv_superpoint.network import NetworkConfig
from train.stages.adapt import AdaptConfig
from train.stages.joint import JointConfig
from train.stages.magicpoint import MagicPointConfig

# How a given time is shared: about what each stage gained from more of it.
SHARES = {"magicpoint": 0.25, "adapt": 0.15, "joint": 0.35, "refine": 0.25}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the outcome of a run, besides the photographs.

    Attributes:
        seed: Seed of the weights, the data and their order.
        threads: Threads of the training process on a CPU; 0 leaves the choice to torch.
        drawings: Synthetic drawings that replace photographs when none are given.
        held_out: Photographs kept out of joint training to watch it.
        network: The architecture that is trained, unless training starts from weights; the stages
            say where it is normalised.
        teacher: Weights (a bundled name or a file) that label the photographs of the first round.
            The network then starts from nothing, without the stage magicpoint.
        rounds: How often the photographs are labelled, each time with the newest detector, and
            trained on.
        magicpoint: The first stage.
        adapt: The labelling of every round.
        joint: The training of every round.
        refine: The training after the last round.
        refinement: Whether there is one.
    """

    seed: int = 0
    threads: int = 0
    drawings: int = 400
    held_out: int = 12
    network: NetworkConfig = field(default_factory=NetworkConfig)
    teacher: str | None = None
    rounds: int = 1
    magicpoint: MagicPointConfig = field(default_factory=MagicPointConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    refine: JointConfig = field(default_factory=JointConfig)
    refinement: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        if self.held_out < 1:
            raise ValueError(
                f"held_out must be at least 1, got {self.held_out}: photographs that are not "
                "trained on watch the run"
            )
        if self.magicpoint.data.colour != self.adapt.images.colour:
            raise ValueError(
                "drawings and photographs must both be in colour or both grey: set both "
                "--magicpoint.data.colour and --adapt.images.colour"
            )

    def within(self, minutes: float, stage: str) -> RunConfig:
        """The same run in a given time: a stage that runs alone gets all of it.

        So does magicpoint of a network without descriptors, which has no other stage.

        Args:
            minutes: Wall-clock minutes of all that is run, without evaluation.
            stage: A name of ``SHARES``, or "all".
        """
        if stage == "all" and not self.network.descriptor_dim:
            stage = "magicpoint"
        counts = {"magicpoint": 1, "adapt": self.rounds, "joint": self.rounds}
        counts["refine"] = int(self.refinement)
        total = sum(SHARES[name] * count for name, count in counts.items())

        def length(name: str) -> float:
            return minutes if stage == name else minutes * SHARES[name] / total

        def trained(config: JointConfig, name: str) -> JointConfig:
            return replace(config, loop=replace(config.loop, minutes=length(name), steps=0))

        first = self.magicpoint
        return replace(
            self,
            magicpoint=replace(
                first, loop=replace(first.loop, minutes=length("magicpoint"), steps=0)
            ),
            adapt=replace(self.adapt, minutes=length("adapt")),
            joint=trained(self.joint, "joint"),
            refine=trained(self.refine, "refine"),
        )
