"""A checkpoint's entries -> a network that runs, after every check that a bad file can fail.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .checkpoint_files import WeightsError
from .checkpoint_layouts import CheckpointLayout, detect_layout, is_counter, shorten, unwrap

if TYPE_CHECKING:
    from torch import Tensor

    from .network import NetworkConfig, SuperPointNet


def build_network(
    entries: Mapping[str, object], source: str, config: NetworkConfig | None = None
) -> tuple[SuperPointNet, CheckpointLayout]:
    """Detect the layout of a checkpoint and load it.

    Normalisations that sit before the ReLU are folded into the convolutions.

    Args:
        entries: Content of the file, see :func:`unwrap`.
        source: The file, for errors.
        config: Architecture that the file must have, if it is recorded somewhere.

    Returns:
        The network in eval mode and the layout of the file.

    Raises:
        WeightsError: If the layout is unknown, or entries are missing, left over, of wrong shape
            or type, or not finite.
    """
    import torch

    from .network import SuperPointNet, fold_batchnorm

    entries = unwrap(entries)
    layout = detect_layout(entries, source)
    tensors = _check_entries(entries, layout, source)
    config = _check_config(_infer_config(tensors, layout, source), config, source)
    _check_shapes(tensors, layout, config, source)
    # Constructing a module draws initial weights; the caller's random state must not notice.
    with torch.random.fork_rng(devices=[]):
        net = SuperPointNet(config)
        # Not strict only for BatchNorm's num_batches_tracked; the names were checked above.
        net.load_state_dict({ours: tensors[key] for ours, key in layout.keys().items()}, False)
        if config.norm == "before_relu":
            net = fold_batchnorm(net)
    if not all(bool(parameter.isfinite().all()) for parameter in net.parameters()):
        raise WeightsError(f"{source}: batch normalisation with extreme statistics; export it anew")
    return net.eval(), layout


def _check_entries(
    entries: Mapping[str, object], layout: CheckpointLayout, source: str
) -> dict[str, Tensor]:
    """Names, types and values; returns float32 tensors by the layout's names."""
    import torch

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
        if not isinstance(value, torch.Tensor) or not _is_dense_float(value):
            got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise WeightsError(
                f"{source}: {key} must be a dense floating-point tensor, got {got}; save the "
                "unquantised state_dict"
            )
        tensors[key] = tensor = value.detach().float()
        if not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{source}: {key} must be finite, got NaN or infinity; the training diverged or "
                "the file is damaged: use an earlier checkpoint"
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsError(f"{source}: {key} must not be negative; the file is damaged")
    return tensors


def _is_dense_float(tensor: Tensor) -> bool:
    import torch

    # A few bytes can claim to be a huge tensor by repeating themselves (stride 0), or have none.
    stored = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return (
        stored
        and tensor.is_floating_point()
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def _infer_config(
    tensors: Mapping[str, Tensor], layout: CheckpointLayout, source: str
) -> NetworkConfig:
    from .network import NetworkConfig

    kernels = [tensors[f"{conv}.weight"] for conv in layout.convolutions]
    for conv, kernel in zip(layout.convolutions, kernels, strict=True):
        if kernel.ndim != 4 or kernel.numel() == 0:
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
    tensors: Mapping[str, Tensor], layout: CheckpointLayout, config: NetworkConfig, source: str
) -> None:
    import torch

    from .network import SuperPointNet

    with torch.device("meta"):
        expected = SuperPointNet(config).state_dict()
    for ours, key in layout.keys().items():
        want, got = tuple(expected[ours].shape), tuple(tensors[key].shape)
        if want != got:
            raise WeightsError(
                f"{source}: {key} must have shape {want} to fit the other layers, got {got}; "
                "pass the checkpoint of an unmodified network"
            )
