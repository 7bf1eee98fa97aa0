"""Networks -> safetensors files that :func:`cv_superpoint.weights.load_weights` reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cv_superpoint.network.architecture import fold_state
from cv_superpoint.network.quantisation import Ranges
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights.files import write_file
from cv_superpoint.weights.ranges import KEY, check_ranges, write_ranges
from cv_superpoint.weights.store import LoadedWeights, clean_fields

if TYPE_CHECKING:
    from cv_superpoint.network.torch_network import SuperPointNet


def save_weights(
    net: SuperPointNet,
    path: str | os.PathLike[str],
    *,
    score_threshold: float | None = None,
    score_radius: int = 0,
    scales: Sequence[float] | None = None,
    recipe: str | None = None,
    commit: str | None = None,
    ranges: Ranges | None = None,
) -> str:
    """Write a network for inference as safetensors; :func:`load_weights` reads it by its path.

    Normalisations before the ReLU are folded. Architecture and the fields below go into the file.

    Args:
        net: A trained network.
        path: Target, ending in ``.safetensors``; replaced in one step if it exists.
        score_threshold: Recommended threshold of a keypoint's score.
        score_radius: Radius in pixels of the window whose probabilities sum to the score.
        scales: Recommended levels of the pyramid; None for the image alone.
        recipe: Training recipe.
        commit: Commit of the training code.
        ranges: Ranges of the folded network's maps, for 8 bits, see
            :func:`cv_superpoint.weights.find_ranges`.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        ValueError: If ``path`` has another ending, ``score_threshold`` is not in [0, 1],
            ``score_radius`` is negative, or the ranges are of another network.
    """
    tensors = {
        key: value.detach().cpu().float().numpy()
        for key, value in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    config = net.config
    if config.norm == "before_relu":
        tensors, config = fold_state(tensors, config)
    return write_weights(
        NetworkWeights(config=config, tensors=tensors, ranges=ranges),
        path,
        score_threshold=score_threshold,
        score_radius=score_radius,
        scales=scales,
        recipe=recipe,
        commit=commit,
    )


def save_again(
    loaded: LoadedWeights,
    path: str | os.PathLike[str],
    *,
    ranges: Ranges | None = None,
    precisions: Sequence[str] | None = None,
) -> str:
    """Write loaded weights and all their fields into a file in this project's layout.

    Args:
        loaded: Weights of any release's file.
        path: Target, ending in ``.safetensors``.
        ranges: Ranges of the maps; None keeps the present ones.
        precisions: Precisions in which the network keeps its accuracy; None keeps the listed ones.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        ValueError: If ``path`` has another ending, or the ranges are of another network.
    """
    return write_weights(
        loaded if ranges is None else replace(loaded, ranges=ranges),
        path,
        score_threshold=loaded.score_threshold,
        score_radius=loaded.score_radius,
        scales=None if loaded.scales == (1.0,) else loaded.scales,
        recipe=loaded.recipe,
        commit=loaded.commit,
        precisions=list(loaded.precisions if precisions is None else precisions),
    )


def write_weights(weights: NetworkWeights, path: str | os.PathLike[str], **fields: Any) -> str:
    """Same as :func:`save_weights`, but of arrays and without torch.

    Args:
        weights: The network, normalised nowhere or after its ReLUs, and its ranges.
        path: Target, ending in ``.safetensors``.
        fields: Fields of :func:`save_weights`, and ``precisions``, a list.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        ValueError: If :func:`save_weights` would raise it.
    """
    # The same checks as on loading, so that no file is written that cannot be read.
    record = {"architecture": asdict(weights.config), **clean_fields(fields, str(path))}
    if record.get("precisions") == ("float32",):
        del record["precisions"]  # what a file without the entry says
    if weights.ranges is not None:
        record[KEY] = write_ranges(check_ranges(weights.ranges, weights, str(path)))
    return hashlib.sha256(write_file(path, weights.tensors, record)).hexdigest()
