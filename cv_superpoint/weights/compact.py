"""Files of a network's :class:`Compaction`, which lie beside its weights.

``NAME.compact.safetensors`` goes with ``NAME.safetensors`` (or another ending). It names the digest
of the network's tensors that it was fitted to, so that a new training is not given an old one's.

Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding.descriptors import NOT_FITTED, Compaction, NotFitted
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights.files import WeightsError, parse_file, read_file, write_file

SUFFIX = ".compact.safetensors"
FITTED_TO = "fitted_to"
"""Key of the digest in the file's metadata."""
_STORED = np.float16


def compact_path(weights: Path) -> Path:
    """The file that goes with a weights file."""
    return weights.with_name(weights.stem + SUFFIX)


def save_compaction(
    path: str | os.PathLike[str],
    weights: NetworkWeights,
    *,
    mean: NDArray[Any],
    components: NDArray[Any],
    planes: NDArray[Any],
    offsets: NDArray[Any],
    recipe: str,
) -> str:
    """Write what :class:`Compaction` describes, as float16.

    Args:
        path: Path of the file, see :func:`compact_path`.
        weights: The network that it is of.
        mean: Array of that name in :class:`Compaction`.
        components: Array of that name in :class:`Compaction`.
        planes: Array of that name in :class:`Compaction`.
        offsets: Array of that name in :class:`Compaction`.
        recipe: How it was made.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        WeightsError: If the shapes do not fit the network.
    """
    arrays = {"mean": mean, "components": components, "planes": planes, "offsets": offsets}
    stored = {name: np.ascontiguousarray(array, _STORED) for name, array in arrays.items()}
    _check(stored, weights.config.descriptor_dim, str(path))
    data = write_file(path, stored, {FITTED_TO: weights.tensor_digest, "recipe": recipe})
    return hashlib.sha256(data).hexdigest()


def parse_compaction(data: bytes, path: Path, dim: int, fitted_to: str | None) -> Compaction:
    """What is in the bytes of a file.

    Args:
        data: Content of the file.
        path: Name of the file, for errors.
        dim: Length of the network's descriptors.
        fitted_to: ``tensor_digest`` of the network; None where something else says that they
            belong together.

    Raises:
        WeightsError: If it is damaged, was fitted to other weights, or its shapes do not fit.
    """
    entries, metadata = parse_file(data, path)
    if fitted_to is not None and metadata.get(FITTED_TO) != fitted_to:
        raise WeightsError(
            f"{path} was fitted to other weights than those beside it; fit it anew with: "
            "python -m train compact --weights FILE --images PHOTOGRAPHS"
        )
    arrays = _check(entries, dim, str(path))
    return Compaction(**arrays, digest=hashlib.sha256(data).hexdigest())


def beside(path: Path, weights: NetworkWeights) -> Compaction | NotFitted:
    """Compaction of a user's own weights file; one that cannot be used is :class:`NotFitted`."""
    file = compact_path(path)
    if not file.is_file():
        return NOT_FITTED
    try:
        dim = weights.config.descriptor_dim
        return parse_compaction(read_file(file), file, dim, weights.tensor_digest)
    except WeightsError as error:  # floats in full length need none of it
        return NotFitted(why=str(error))


def _check(entries: Mapping[str, object], dim: int, source: str) -> dict[str, Any]:
    """The arrays as float32, of the shapes that belong to descriptors of ``dim`` numbers."""
    found: dict[str, Any] = {}
    planes = entries.get("planes")
    count = len(planes) if isinstance(planes, np.ndarray) and planes.ndim else 0
    shapes = {
        "mean": (dim,),
        "components": (dim, dim),
        "planes": (count, dim),
        "offsets": (count,),
    }
    for name, shape in shapes.items():
        array = entries.get(name)
        fits = (
            isinstance(array, np.ndarray)
            and array.shape == shape
            and array.dtype.kind == "f"
            and bool(np.isfinite(array).all())
        )
        if not fits or count % 8 or not count:
            raise WeightsError(
                f"{source}: {name} must be finite floating-point numbers of shape {shape}, with a "
                "multiple of 8 planes; fit it anew with: python -m train compact"
            )
        found[name] = np.ascontiguousarray(array, np.float32)
    return found
