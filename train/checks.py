"""What can be known of a run before its first step: a mistake must not cost an hour."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cv_superpoint.files.guard import keep_inputs
from cv_superpoint.files.names import is_text
from cv_superpoint.weights import load_weights
from train.learning import checkpoint
from train.runtime import distributed
from train.stages.joint import JointConfig
from train.stages.magicpoint import MagicPointConfig

if TYPE_CHECKING:
    from train.run import Run

EXPORTED = ("superpoint", "magicpoint")
"""Names of the weights that a run writes."""
ELSEWHERE = ("minutes", "batch_size")
"""Fields of the labelling that may change while a run is under way."""


def check_run(run: Run, stage: str, round_: int = 1) -> None:
    """Check a run and record what its stages are trained with.

    Args:
        run: The run.
        stage: Stage that is to run, or "all".
        round_: Round of adapt and joint.

    Raises:
        ValueError: If photographs, weights, a checkpoint or a number are not as they must be, or
            the folder holds stages that were trained with other settings.
        OSError: If the folder cannot be written to.
    """
    if not is_text(run.run_dir.absolute()):
        raise ValueError(f"{run.run_dir}: TensorBoard writes to names in UTF-8 only; name another")
    checkpoint.check_folder(run.run_dir, 0)
    _check_descriptors(run, stage)
    trained = trained_stages(run, stage, round_)
    _check_batches(run, trained)
    _check_weights(run)
    _check_stage_before(run, stage, round_)
    settings = {name: settings_of(run, name) for name in trained}
    for name, each in settings.items():
        run.settings.check(name, each)
    if stage != "magicpoint" or run.folder is not None:
        _check_photographs(run)
    if distributed.rank() == 0:
        for name, each in settings.items():
            run.settings.begin(name, each)
        run.settings.write()
    distributed.wait()


def trained_stages(run: Run, stage: str, round_: int = 1) -> list[str]:
    """Names of the checkpoints that a stage, or "all", trains."""
    if stage == "all":
        return run.stages()[int(run.starts_from_weights) :]
    if stage == "joint":
        return [run.stages()[round_]]
    return [stage] if stage in ("magicpoint", "refine") else []


def settings_of(run: Run, name: str) -> dict[str, Any]:
    """What decides the outcome of a stage, besides the photographs."""
    kind, config = kind_of(name), run.config
    stage = asdict(_config_of(run, name))
    settings = {
        "seed": config.seed,
        "network": asdict(config.network),
        "loop": stage.pop("loop"),
        kind: stage,
    }
    if kind != "magicpoint":
        labels = asdict(config.adapt)
        settings["adapt"] = {key: labels[key] for key in labels if key not in ELSEWHERE}
        settings["held_out"] = config.held_out
        for key, weights in (("start", run.start), ("teacher", config.teacher)):
            settings[key] = None if weights is None else load_weights(weights).sha256
    return settings


def kind_of(name: str) -> str:
    """The stage that a checkpoint is of: "joint" of "joint2"."""
    return name.rstrip("0123456789")


def _config_of(run: Run, name: str) -> MagicPointConfig | JointConfig:
    stage: MagicPointConfig | JointConfig = getattr(run.config, kind_of(name))
    return stage


def _check_descriptors(run: Run, stage: str) -> None:
    """A network without descriptors learns in the stage magicpoint only."""
    trains = stage in ("adapt", "joint", "refine") or (stage == "all" and run.starts_from_weights)
    if trains and not run.network.descriptor_dim:
        raise ValueError(
            f"{run.start or 'this network'} has no descriptors, and photographs train some: set "
            "--network.descriptor-dim 256, or run the stages magicpoint and export only"
        )


def _check_batches(run: Run, trained: list[str]) -> None:
    count = distributed.world_size()
    for name in trained:
        size = _config_of(run, name).loop.batch_size
        if size % count:
            raise ValueError(
                f"batch_size {size} of {name} must be a multiple of the number of processes, "
                f"{count}"
            )


def _check_weights(run: Run) -> None:
    """Weights that training starts from, that label, or whose descriptors are learned from."""
    for taught in (run.config.joint.distillation, run.config.refine.distillation):
        if taught.descriptor:
            load_weights(taught.teacher).check_descriptors()
    channels = 3 if run.config.adapt.images.colour else 1
    for weights in (run.start, run.config.teacher):
        if weights is None:
            continue
        loaded = load_weights(weights)
        keep_inputs([loaded.path], (run.run_dir / f"{name}.safetensors" for name in EXPORTED))
        taken = loaded.config.in_channels
        if taken != channels:
            raise ValueError(
                f"{weights} takes images of {taken} channels, the run has {channels}: see "
                "--adapt.images.colour and --magicpoint.data.colour"
            )


def _check_stage_before(run: Run, stage: str, round_: int) -> None:
    """A stage that is run alone starts from the one before it."""
    stages = run.stages()
    before = {"adapt": round_ - 1, "joint": round_ - 1, "refine": run.config.rounds}.get(stage)
    if before is None or (before == 0 and run.starts_from_weights):
        return
    path = run.path(stages[before])
    if not path.exists():
        raise ValueError(
            f"{path} is missing, from which the stage {stage} starts; run the stage "
            f"{kind_of(stages[before])} first"
        )


def _check_photographs(run: Run) -> None:
    found, held_out = run.photographs(), run.config.held_out
    if len(found) <= held_out:
        raise ValueError(
            f"{found.folder} holds {len(found)} photographs that can be read, of which --held-out "
            f"keeps {held_out} out of training: give more, or a smaller --held-out"
        )
    looking = run.stages()[1:]
    run.settings.check_photographs(found, looking)
    if not any(run.path(name).exists() for name in looking):
        kept = [path.relative_to(found.folder).as_posix() for path in run.split()[1]]
        run.settings.held_out, run.settings.photographs = kept, dict(found.contents)
