"""Files of matchers: safetensors with the sizes of the network and whose features it learned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.weights.files import WeightsError, parse_file, read_file, write_file

KIND = "matcher"
"""What the metadata of such a file calls it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedMatcher:
    """A matcher's network, and whose features it matches.

    Attributes:
        path: The file.
        config: Sizes of the network.
        tensors: By name, float32.
        weights: Name of the weights whose features it learned.
        threshold: Recommended score that a match must exceed.
        recipe: How it was trained, if recorded.
        commit: Commit of this repository that trained it, if recorded.
    """

    path: Path
    config: MatcherConfig
    tensors: Mapping[str, NDArray[np.float32]]
    weights: str
    threshold: float
    recipe: str | None = None
    commit: str | None = None


def tensor_shapes(config: MatcherConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a network, by its name in the file."""
    width, half = config.width, config.width // config.heads // 2
    linear = {"project": (width, config.descriptor_dim)}
    shapes: dict[str, tuple[int, ...]] = {"frequencies.weight": (half, 2)}
    for number in range(config.layers):
        own, cross, head = (f"{kind}.{number}" for kind in ("self_layers", "cross_layers", "heads"))
        for layer in (own, cross):
            linear |= {
                f"{layer}.message": (width, width),
                f"{layer}.mix.0": (2 * width, 2 * width),
                f"{layer}.mix.3": (width, 2 * width),
            }
            shapes |= {f"{layer}.mix.1.{part}": (2 * width,) for part in ("weight", "bias")}
        linear |= {
            f"{own}.inputs": (3 * width, width),
            f"{cross}.key": (width, width),
            f"{cross}.value": (width, width),
            f"{head}.project": (width, width),
            f"{head}.matchable": (1, width),
        }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def save_matcher(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    config: MatcherConfig,
    *,
    weights: str,
    threshold: float = 0.1,
    recipe: str | None = None,
    commit: str | None = None,
) -> None:
    """Write a matcher.

    Args:
        path: Ends in ``.safetensors``.
        tensors: Torch tensors of the network, by name.
        config: Its sizes.
        weights: Name of the weights whose features it learned.
        threshold: Recommended score.
        recipe: How it was trained.
        commit: Of the code that trained it.
    """
    described = {"weights": weights, "threshold": threshold, "recipe": recipe, "commit": commit}
    write_file(path, tensors, {"kind": KIND, "sizes": asdict(config), **described})


def load_matcher(path: str | os.PathLike[str]) -> LoadedMatcher:
    """Read a matcher.

    Args:
        path: A file of :func:`save_matcher`.

    Raises:
        WeightsError: If there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    entries, metadata = parse_file(read_file(path), path)
    if metadata.get("kind") != KIND:
        raise WeightsError(
            f"{path}: expected a matcher, got other weights; train one with python -m train matcher"
        )
    try:
        config = MatcherConfig(**metadata["sizes"])
        weights, threshold = str(metadata["weights"]), float(metadata["threshold"])
        expected = tensor_shapes(config)
    except (KeyError, TypeError, ValueError, FeatureError) as error:
        raise WeightsError(
            f"{path}: its description of the matcher is damaged ({error}); fetch it again"
        ) from error
    tensors = {name: _checked(path, entries, name, shape) for name, shape in expected.items()}
    return LoadedMatcher(
        path=path,
        config=config,
        tensors=tensors,
        weights=weights,
        threshold=threshold,
        recipe=metadata.get("recipe"),
        commit=metadata.get("commit"),
    )


def _checked(
    path: Path, entries: Mapping[str, object], name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    value = entries.get(name)
    if not isinstance(value, np.ndarray) or value.shape != shape:
        got = getattr(value, "shape", "nothing of that name")
        raise WeightsError(
            f"{path}: expected a tensor {name} of shape {shape}, got {got}; fetch the file again"
        )
    if not np.isfinite(value).all():
        raise WeightsError(f"{path}: {name} holds NaN or infinite numbers; fetch the file again")
    return value.astype(np.float32, copy=False)
