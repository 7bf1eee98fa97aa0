"""A checkpoint's entries -> the network's tensors, after every check that a bad file can fail.

Importing this module does not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.network.architecture import NetworkConfig, blocks, fold_state, layers
from cv_superpoint.weights.files import WeightsError
from cv_superpoint.weights.layouts import (
    BLOCKS,
    CheckpointLayout,
    detect_layout,
    is_counter,
    own_layout,
    shorten,
    unwrap,
)

Floats = NDArray[np.float32]


LARGEST_WEIGHT = 1e6
"""Trained weights stay below 100; one wrong bit of an exponent makes 1e38 of them."""


def read_network(
    entries: Mapping[str, object], source: str, config: NetworkConfig | None = None
) -> tuple[dict[str, Floats], NetworkConfig, CheckpointLayout]:
    """Detect the layout of a checkpoint and read its tensors.

    Normalisations that sit before the ReLU are folded into the convolutions.

    Args:
        entries: Content of the file, see :func:`unwrap`.
        source: The file, for errors.
        config: Architecture that the file must have, if it is recorded somewhere.

    Returns:
        The tensors by our names, the architecture they are of, and the layout of the file.

    Raises:
        WeightsError: If the layout is unknown, or entries are missing, left over, of wrong shape
            or type, or not finite.
    """
    entries = unwrap(entries)
    if config is not None and not is_plain(config):
        # Strides do not show in tensors: such a file is what its record says, or is refused.
        layout = own_layout(config)
        tensors = _check_entries(entries, layout, source)
    else:
        layout = detect_layout(entries, source)
        tensors = _check_entries(entries, layout, source)
        config = _check_config(_infer_config(tensors, layout, source), config, source)
    _check_shapes(tensors, layout, config, source)
    ours = {name: tensors[key] for name, key in layout.keys().items()}
    if config.norm == "before_relu":
        ours, config = fold_state(ours, config)
    if not all(bool(np.isfinite(tensor).all()) for tensor in ours.values()):
        raise WeightsError(f"{source}: batch normalisation with extreme statistics; export it anew")
    for name, tensor in ours.items():
        largest = float(np.abs(tensor).max(initial=0))
        if largest > LARGEST_WEIGHT and "running_" not in name:
            raise WeightsError(
                f"{source}: {name} has a value of {largest:.1e}, with which the network's outputs "
                "overflow; the file is damaged: fetch or export it again"
            )
    return ours, config, layout


def _check_entries(
    entries: Mapping[str, object], layout: CheckpointLayout, source: str
) -> dict[str, Floats]:
    """Names, types and values; returns float32 arrays by the layout's names."""
    expected = set(layout.keys().values())
    present = {key for key in entries if not is_counter(key)}
    problems = []
    if missing := expected - present:
        problems.append(f"missing {shorten(missing)}")
    if unexpected := present - expected:
        problems.append(f"unexpected {shorten(unexpected)}")
    if problems:
        raise WeightsError(
            f"{source}: expected the {len(expected)} tensors of the {layout.name} layout, got "
            f"{'; '.join(problems)}; pass the whole checkpoint of an unmodified network"
        )
    tensors = {}
    for key in sorted(expected):
        value = entries[key]
        array = _dense_floats(value)
        if array is None:
            raise WeightsError(
                f"{source}: {key} must be a dense floating-point tensor, got {_kind(value)}; save "
                "the unquantised state_dict"
            )
        tensors[key] = array
        if not bool(np.isfinite(array).all()):
            raise WeightsError(
                f"{source}: {key} must be finite, got NaN or infinity; the training diverged or "
                "the file is damaged: use an earlier checkpoint"
            )
        if key.endswith("running_var") and bool((array < 0).any()):
            raise WeightsError(f"{source}: {key} must not be negative; the file is damaged")
    return tensors


def _dense_floats(value: object) -> Floats | None:
    """An entry as a float32 array; None if it is anything but a dense floating-point tensor."""
    if isinstance(value, np.ndarray):
        if not np.issubdtype(value.dtype, np.floating):
            return None
        with np.errstate(over="ignore"):  # infinities are told apart by the caller
            return np.ascontiguousarray(value, np.float32)
    torch: Any = sys.modules.get("torch")  # no torch, no torch tensors
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    tensor: Any = value
    # A few bytes can claim to be a huge tensor by repeating themselves (stride 0), or have none.
    stored = tensor.device.type == "cpu" and tensor.layout == torch.strided
    if (
        not stored
        or not tensor.is_floating_point()
        or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
    ):
        return None
    array: Floats = tensor.detach().float().contiguous().numpy()
    return array


def _kind(value: object) -> str:
    if isinstance(value, str):  # a type that numpy does not have
        return value
    return str(getattr(value, "dtype", type(value).__name__))


def _infer_config(
    tensors: Mapping[str, Floats], layout: CheckpointLayout, source: str
) -> NetworkConfig:
    kernels = [tensors[f"{conv}.weight"] for conv in layout.convolutions]
    for conv, kernel in zip(layout.convolutions, kernels, strict=True):
        if kernel.ndim != 4 or kernel.size == 0:
            raise WeightsError(
                f"{source}: {conv}.weight must be (out, in, height, width), got shape "
                f"{tuple(kernel.shape)}; pass the checkpoint of an unmodified network"
            )
    try:
        return NetworkConfig(
            in_channels=kernels[0].shape[1],
            channels=(len(kernels[0]), len(kernels[2]), len(kernels[4]), len(kernels[6])),
            head_channels=len(kernels[8]),
            descriptor_dim=len(kernels[11]),
            norm=layout.norm,
            output_norm=layout.output_norm,
            norm_eps=layout.norm_eps,
        )
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from error


def _check_config(
    inferred: NetworkConfig, recorded: NetworkConfig | None, source: str
) -> NetworkConfig:
    """The recorded architecture, if it agrees with all that shows in the tensors."""
    if recorded is None:
        return inferred
    # Place and epsilon of the normalisation do not show in the tensors, its presence does.
    visible = replace(recorded, norm=inferred.norm, norm_eps=inferred.norm_eps)
    if visible != inferred or (recorded.norm == "none") != (inferred.norm == "none"):
        raise WeightsError(
            f"{source}: expected the recorded architecture {recorded}, got tensors of {inferred}; "
            "the file and its record do not belong together"
        )
    return recorded


def _check_shapes(
    tensors: Mapping[str, Floats], layout: CheckpointLayout, config: NetworkConfig, source: str
) -> None:
    expected = _shapes(config)
    for ours, key in layout.keys().items():
        block, kind, field = ours.rsplit(".", 2)
        weight = expected[block]
        want = weight if (kind, field) == ("conv", "weight") else weight[:1]
        got = tuple(tensors[key].shape)
        if want != got:
            raise WeightsError(
                f"{source}: {key} must have shape {want} to fit the other layers, got {got}; "
                "pass the checkpoint of an unmodified network"
            )


def _shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each block's kernel."""
    return {layer.name: layer.shape for layer in layers(config) if layer.kind == "convolution"}


def is_plain(config: NetworkConfig) -> bool:
    """Whether the layers are those of the paper, as in all other releases."""
    return config.downsampling == "pool" and blocks(config) == BLOCKS and set(config.depths) == {2}
