"""Folded float32 weights for inference, with a description of how they were made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cv_superpoint.files import replace_file
from cv_superpoint.network.architecture import fold_state
from cv_superpoint.network.torch_network import NetworkConfig
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import find_ranges
from cv_superpoint.weights.saving import write_weights
from train.data.images import ImageConfig, load_readable, to_tensor
from train.learning import checkpoint
from train.learning.detect import LOW, SCORE_RADIUS, detect
from train.learning.model import TrainingNetwork
from train.stages.adapt import median_threshold

CALIBRATION_IMAGES = 48
KEYPOINTS = 160
"""Per photograph of working size, with the recommended threshold."""


def network_of(path: Path) -> TrainingNetwork:
    """The network of a checkpoint, in evaluation mode."""
    state = checkpoint.load(path)
    weights = checkpoint.weights_of(state)
    network = TrainingNetwork(0, architecture_of(state))
    network.load_state_dict(weights)
    return network.eval()


def architecture_of(state: dict[str, Any]) -> NetworkConfig:
    """The architecture of a checkpoint; the paper's, normalised, where it records none."""
    if "architecture" in state:
        return NetworkConfig(**state["architecture"])
    channels = state["network"]["net.encoder.0.conv.weight"].shape[1]
    return NetworkConfig(in_channels=channels, norm="before_relu")


def folded_weights(path: Path) -> NetworkWeights:
    """The averaged weights of a checkpoint, their batch normalisations folded."""
    state = checkpoint.load(path)
    prefix = "net."
    tensors = {
        name.removeprefix(prefix): value.cpu().numpy()
        for name, value in checkpoint.weights_of(state).items()
        if name.startswith(prefix)
    }
    folded, config = fold_state(tensors, architecture_of(state))
    return NetworkWeights(config=config, tensors=folded)


def recommended_threshold(
    network: TrainingNetwork, images: list[Path], sizes: ImageConfig, wanted: int
) -> float:
    """The score above which the median photograph has ``wanted`` keypoints (NMS 4)."""
    scores = []
    for photo in islice(load_readable(_shuffled(images), sizes), CALIBRATION_IMAGES):
        image = to_tensor(photo)[None]
        scores.append(detect(network, image, LOW, describe=False)[0].scores)
    return median_threshold(scores, wanted)


def _shuffled(images: list[Path]) -> Iterator[Path]:
    order = np.random.default_rng(3).permutation(len(images))
    return (images[position] for position in order)


def export(
    stage: Path,
    target: Path,
    images: list[Path],
    sizes: ImageConfig,
    recipe: dict[str, Any],
    left_out: Mapping[str, str] | None = None,
    scales: Sequence[float] | None = None,
    corners: float | None = None,
) -> None:
    """Write ``target`` (safetensors) and its description (JSON) beside it.

    The stage magicpoint trains no descriptors, so its weights are written without a head for them.

    Args:
        stage: Checkpoint of the stage to export.
        target: Target, ending in ``.safetensors``.
        images: Pictures on which the recommended threshold and the ranges for 8 bits are found.
        sizes: Their working size.
        recipe: Configuration of the run, for the description.
        left_out: Name of each picture that was not among the photographs, and why.
        scales: Levels of the pyramid that the weights recommend; None for one.
        corners: Threshold of a detector of drawn corners, which takes the place of what
            photographs recommend.
    """
    threshold, gives = corners, "the best F1 on drawings that were not trained on"
    if threshold is None:
        threshold = recommended_threshold(network_of(stage), images, sizes, KEYPOINTS)
        gives = (
            f"a median of {KEYPOINTS} keypoints per photograph, shorter side "
            f"{sizes.shorter_side}, NMS radius 4"
        )
    threshold = round(threshold, 5)
    commit = current_commit()
    description = {
        "stage": stage.stem,
        "score_threshold": threshold,
        "score_threshold_gives": gives,
        "score_radius": SCORE_RADIUS,
        "stages": _history(stage.parent),
        "photographs": len(images),
        "left_out": dict(left_out or {}),
        "labelled_photographs": len(list(stage.parent.glob("labels/*/*.npy"))),
        "commit": commit,
        "torch": torch.__version__,
        "recipe": recipe,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # Threshold and radius travel in the file, so that weights="path" finds them.
    folded = folded_weights(stage)
    if stage.stem == "magicpoint":
        folded = folded.without_descriptors
    photographs = islice(load_readable(_shuffled(images), sizes), CALIBRATION_IMAGES)
    arrays = (image.reshape(*image.shape[:2], -1) for image in photographs)
    ranges = find_ranges(folded, arrays, f"{CALIBRATION_IMAGES} photographs of the training")
    write_weights(
        replace(folded, ranges=ranges),
        target,
        score_threshold=threshold,
        score_radius=SCORE_RADIUS,
        scales=None if scales == (1.0,) else scales,
        recipe=f"python -m train, up to {stage.stem}; all settings in {target.stem}.json",
        commit=commit,
    )
    text = json.dumps(description, indent=2, default=str) + "\n"
    replace_file(target.with_suffix(".json"), text.encode())


def _history(run_dir: Path) -> dict[str, dict[str, Any]]:
    """How long each stage of a run has learned."""
    states = [checkpoint.load(path) for path in sorted(run_dir.glob("*.pt"))]
    return {
        state["task"]: {
            "minutes": round(state["elapsed"] / 60, 2),
            "steps": state["step"],
            "samples": state["samples"],
            "finished": state["finished"],
        }
        for state in states
    }


def current_commit() -> str:
    """The commit of the code, or "unknown" outside a checkout and where there is no git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"
