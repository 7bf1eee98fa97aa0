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
from cv_superpoint.weights.compact import FITTED_TO
from cv_superpoint.weights.files import WeightsError, parse_file, read_file, write_file

KIND = "matcher"
"""What the metadata of such a file calls it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedMatcher:
    """A matcher's network, and whose features it matches.

    Attributes:
        path: The file.
        config: Sizes of the network.
        tensors: Tensors by name, float32.
        weights: Name of the weights whose features it learned.
        threshold: Recommended score that a match must exceed.
        fitted_to: ``tensor_digest`` of those weights; empty if not recorded.
        recipe: How it was trained, if recorded.
        commit: Commit of this repository that trained it, if recorded.
        licence: Licence of a bundled matcher.
    """

    path: Path
    config: MatcherConfig
    tensors: Mapping[str, NDArray[np.float32]]
    weights: str
    threshold: float
    fitted_to: str = ""
    recipe: str | None = None
    commit: str | None = None
    licence: str | None = None


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
    fitted_to: str = "",
    recipe: str | None = None,
    commit: str | None = None,
) -> None:
    """Write a matcher.

    Args:
        path: Target, ending in ``.safetensors``.
        tensors: Torch tensors of the network, by name.
        config: Sizes of the network.
        weights: Name of the weights whose features it learned.
        threshold: Recommended score.
        fitted_to: ``tensor_digest`` of those weights, so that no others are taken for them.
        recipe: How it was trained.
        commit: Commit of the code that trained it.
    """
    described = {"weights": weights, FITTED_TO: fitted_to, "threshold": threshold}
    trained = {"recipe": recipe, "commit": commit}
    write_file(path, tensors, {"kind": KIND, "sizes": asdict(config), **described, **trained})


def load_matcher(path: str | os.PathLike[str]) -> LoadedMatcher:
    """Read a matcher.

    Args:
        path: A file of :func:`save_matcher`.

    Raises:
        WeightsError: If there is no such file, or it is damaged or something else.
    """
    path = Path(path).expanduser()
    return parse_matcher(read_file(path), path)


def parse_matcher(data: bytes, path: Path) -> LoadedMatcher:
    """Same as :func:`load_matcher`, but from a file's content."""
    entries, metadata = parse_file(data, path)
    if metadata.get("kind") != KIND:
        raise WeightsError(
            f"{path}: expected a matcher, got other weights; train one with python -m train matcher"
        )
    try:
        config = MatcherConfig(**metadata["sizes"])
        weights, threshold = str(metadata["weights"]), check_threshold(metadata["threshold"])
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
        fitted_to=str(metadata.get(FITTED_TO) or ""),
        recipe=metadata.get("recipe"),
        commit=metadata.get("commit"),
    )


def check_threshold(value: Any) -> float:
    """A score that matches must exceed.

    Raises:
        FeatureError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise FeatureError(f"threshold must lie in [0, 1), got {value!r}")
    return float(value)


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
