"""Layouts of SuperPoint checkpoints: ours and those of other releases, told apart by their keys.

Names, order and epsilons of the layers are facts of the released files; no code was taken over.
The licence of a checkpoint stays what its authors gave it: Magic Leap's weights, and whatever was
derived from them, are for non-commercial research only, whichever program loads them.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cv_superpoint.network.architecture import NetworkConfig, blocks
from cv_superpoint.weights.files import WeightsError

if TYPE_CHECKING:
    from cv_superpoint.network.architecture import Norm

BLOCKS = blocks(NetworkConfig())
"""The convolution blocks of the paper's network, in the order that the layouts name theirs."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Entries under which training programs keep the network inside a larger checkpoint."""

_MAX_NESTING = 4
_CONV_FIELDS = ("weight", "bias")
_NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class CheckpointLayout:
    """How one release names the layers of the network.

    Attributes:
        name: Name of the layout, for messages.
        convolutions: Key prefix of each of the blocks' convolutions.
        norms: The same for the batch normalisations; empty if there are none.
        blocks: Our names of the convolutions.
        norm: Where the batch normalisation sits, see :class:`NetworkConfig`.
        output_norm: Whether the heads' last convolutions have one too.
        norm_eps: Epsilon of the batch normalisations.
        score_threshold: Keypoint probability that the release's own program uses by default.
    """

    name: str
    convolutions: tuple[str, ...]
    norms: tuple[str, ...] = ()
    blocks: tuple[str, ...] = BLOCKS
    norm: Norm = "none"
    output_norm: bool = False
    norm_eps: float = 1e-5
    score_threshold: float | None = None

    def keys(self) -> dict[str, str]:
        """Our parameter name -> the layout's."""
        names: dict[str, str] = {}
        for block, conv in zip(self.blocks, self.convolutions, strict=True):
            names |= {f"{block}.conv.{field}": f"{conv}.{field}" for field in _CONV_FIELDS}
        for block, norm in zip(self.blocks, self.norms, strict=False):
            if self.output_norm or not block.endswith("_output"):
                names |= {f"{block}.norm.{field}": f"{norm}.{field}" for field in _NORM_FIELDS}
        return names


_MAGIC_LEAP = (
    *("conv1a", "conv1b", "conv2a", "conv2b", "conv3a", "conv3b", "conv4a", "conv4b"),
    *("convPa", "convPb", "convDa", "convDb"),
)
_HUGGING_FACE = (
    *(f"encoder.conv_blocks.{stage}.conv_{ab}" for stage in range(4) for ab in "ab"),
    *(f"keypoint_decoder.conv_score_{ab}" for ab in "ab"),
    *(f"descriptor_decoder.conv_descriptor_{ab}" for ab in "ab"),
)
_RPAUTRAT = (
    *(f"backbone.{stage}.{layer}" for stage in range(4) for layer in range(2)),
    *("detector.0", "detector.1", "descriptor.0", "descriptor.1"),
)
_UNET_STAGES = ("inc.conv", *(f"down{stage}.mpconv.1" for stage in (1, 2, 3)))
_UNET_HEADS = ("Pa", "Pb", "Da", "Db")
_OWN_CONVOLUTIONS = tuple(f"{block}.conv" for block in BLOCKS)
_OWN_NORMS = tuple(f"{block}.norm" for block in BLOCKS)

OWN = CheckpointLayout(name="cv_superpoint", convolutions=_OWN_CONVOLUTIONS)
LAYOUTS = (
    OWN,
    # The keys do not tell where the normalisation sits; our training puts it before the ReLU, and
    # files written by save_weights say so in their metadata.
    replace(OWN, norms=_OWN_NORMS, norm="before_relu"),
    replace(OWN, norms=_OWN_NORMS, norm="before_relu", output_norm=True),
    CheckpointLayout(name="Magic Leap", convolutions=_MAGIC_LEAP, score_threshold=0.015),
    CheckpointLayout(name="Hugging Face", convolutions=_HUGGING_FACE, score_threshold=0.005),
    CheckpointLayout(
        name="rpautrat/SuperPoint",
        convolutions=tuple(f"{block}.conv" for block in _RPAUTRAT),
        norms=tuple(f"{block}.bn" for block in _RPAUTRAT),
        norm="after_relu",
        output_norm=True,
        norm_eps=1e-3,
        score_threshold=0.005,
    ),
    CheckpointLayout(
        name="eric-yyjau/pytorch-superpoint (SuperPointNet_gauss2)",
        convolutions=(
            *(f"{stage}.conv.{index}" for stage in _UNET_STAGES for index in (0, 3)),
            *(f"conv{head}" for head in _UNET_HEADS),
        ),
        norms=(
            *(f"{stage}.conv.{index}" for stage in _UNET_STAGES for index in (1, 4)),
            *(f"bn{head}" for head in _UNET_HEADS),
        ),
        norm="before_relu",
        output_norm=True,
        score_threshold=0.015,
    ),
)


def own_layout(config: NetworkConfig) -> CheckpointLayout:
    """The layout of our own files of an architecture, normalised where it says."""
    names = blocks(config)
    norms = () if config.norm == "none" else tuple(f"{name}.norm" for name in names)
    return CheckpointLayout(
        name=OWN.name,
        blocks=names,
        convolutions=tuple(f"{name}.conv" for name in names),
        norms=norms,
        norm=config.norm,
        output_norm=config.output_norm,
        norm_eps=config.norm_eps,
    )


def detect_layout(keys: Iterable[str], source: str) -> CheckpointLayout:
    """The layout whose keys are most like the given ones.

    Args:
        keys: Names of a checkpoint's entries.
        source: The file, for errors.

    Raises:
        WeightsError: If no layout shares at least half of the names.
    """
    found = {key for key in keys if not is_counter(key)}

    def similarity(layout: CheckpointLayout) -> float:
        expected = set(layout.keys().values())
        return len(found & expected) / len(found | expected)

    best = max(LAYOUTS, key=similarity)
    if similarity(best) < 0.5:
        known = ", ".join(dict.fromkeys(layout.name for layout in LAYOUTS))
        raise WeightsError(
            f"{source}: expected a SuperPoint checkpoint in one of the layouts {known}, got "
            f"entries {shorten(found)}; pass the file that holds the network's state_dict"
        )
    return best


def unwrap(entries: Mapping[str, object]) -> Mapping[str, object]:
    """The network's own entries, under the network's own names.

    Args:
        entries: Content of a file: the network itself or one of :data:`WRAPPERS` holding it, its
            names possibly below a prefix that all share (``module.``, ``superpoint.``).
    """
    # A bounded number of levels, because a hostile file can hold itself.
    for _ in range(_MAX_NESTING):
        nested = (entries.get(wrapper) for wrapper in WRAPPERS)
        entries = next((inner for inner in nested if isinstance(inner, Mapping)), entries)
    entries = {str(key): value for key, value in entries.items()}
    # No layout has a first component common to all its names, so a common one is a wrapper's.
    for _ in range(_MAX_NESTING):
        first = {key.partition(".")[::2] for key in entries}
        if len({head for head, _ in first}) != 1 or not all(rest for _, rest in first):
            break
        entries = {key.partition(".")[2]: value for key, value in entries.items()}
    return entries


def is_counter(key: str) -> bool:
    """Whether this is BatchNorm's count of training batches, which inference does not use."""
    return key.endswith("num_batches_tracked")


def shorten(names: Iterable[str], limit: int = 4) -> str:
    """The first few of many names, for an error message."""
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
