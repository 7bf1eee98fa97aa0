"""Bytes of a weights file -> named tensors, without ever running code from the file.

Two containers are read: safetensors, which holds nothing but tensors, and the pickles of
``torch.save``, through PyTorch's restricted unpickler. Only the second needs torch.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import FeatureError
from cv_superpoint.files import replace_file

SAFETENSORS_SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_DTYPES = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
METADATA_KEY = "cv_superpoint"
"""The one safetensors metadata entry that is ours: a JSON object."""


class WeightsError(FeatureError):
    """A weights file or name that cannot be used; says which, what was expected, and what to do."""


def read_file(path: Path) -> bytes:
    """Content of a weights file.

    The whole file is read once, so that what was verified is what is parsed, even if the file is
    replaced meanwhile (which a memory map would not give).

    Raises:
        WeightsError: If there is no such file, or it is a directory, empty, unreadable or of an
            unknown kind.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in _suffixes())
        hint = f"; did you mean {path / inside[0]}?" if inside else ""
        raise WeightsError(f"{path}: expected a weights file, got a directory{hint}")
    if not path.exists():
        raise WeightsError(f"{path}: no such weights file; check the path")
    if path.suffix not in _suffixes():
        raise WeightsError(
            f"{path}: expected a file ending in {', '.join(_suffixes())}, got "
            f"{path.suffix or 'no ending'!r}; save the network's state_dict in one of these formats"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error}); check its permissions") from error
    if not data:
        raise WeightsError(
            f"{path}: expected a weights file, got an empty file; fetch or export it again"
        )
    return data


def parse_file(data: bytes, path: Path) -> tuple[Mapping[str, object], dict[str, Any]]:
    """Parse the content of a weights file by its ending.

    Args:
        data: The content.
        path: Where it came from: decides the format and names the file in errors.

    Returns:
        The file's entries (tensors by name, or whatever mapping a checkpoint holds), and our own
        metadata (empty when there is none).

    Raises:
        WeightsError: If the content is damaged, of another format, or not allowed.
    """
    if path.suffix == SAFETENSORS_SUFFIX:
        return _parse_safetensors(data, path)
    return _parse_pickle(data, path), {}


def write_file(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[np.floating[Any]]],
    metadata: Mapping[str, Any],
) -> bytes:
    """Write a safetensors file with our metadata; a reader never sees half a file.

    The same tensors and metadata give the same bytes.

    Args:
        path: Target, ending in ``.safetensors``.
        tensors: Arrays by name.
        metadata: JSON-serialisable fields.

    Returns:
        The bytes written.

    Raises:
        ValueError: If ``path`` does not end in ``.safetensors``.
    """
    from safetensors.numpy import save

    target = Path(path)
    if target.suffix != SAFETENSORS_SUFFIX:
        raise FeatureError(f"path must end in {SAFETENSORS_SUFFIX}, got {str(target)!r}")
    # One metadata entry: the format does not keep the order of several, and the bytes would vary.
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    data = save(arrays, {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})
    replace_file(target, data)
    return data


def _suffixes() -> tuple[str, ...]:
    return (SAFETENSORS_SUFFIX, *PICKLE_SUFFIXES)


def _parse_safetensors(data: bytes, path: Path) -> tuple[Mapping[str, object], dict[str, Any]]:
    import safetensors

    deserialize: Any = safetensors.deserialize  # of Rust, without type hints
    # Hostile bytes reach several layers of the parser, each with exceptions of its own.
    try:
        tensors = {name: _to_array(**fields) for name, fields in deserialize(data)}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        ours = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
        if not isinstance(ours, dict):
            raise TypeError(f"metadata {METADATA_KEY!r} is not a JSON object")
    except Exception as error:
        raise WeightsError(
            f"{path}: expected a whole safetensors file, got {len(data)} bytes that are truncated, "
            f"damaged or of another format ({error}); fetch or export it again"
        ) from error
    return tensors, ours


def _to_array(dtype: str, shape: list[int], data: bytes) -> NDArray[Any] | str:
    """An entry of a safetensors file; the name of its type where numpy has no such type."""
    if dtype == "BF16":  # the upper half of a float32
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        return dtype
    little = np.dtype(_DTYPES[dtype]).newbyteorder("<")
    return np.frombuffer(data, little).astype(_DTYPES[dtype]).reshape(shape)


def _parse_pickle(data: bytes, path: Path) -> Mapping[str, object]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: a checkpoint of torch.save needs PyTorch to be read; "
            'pip install "cv-superpoint[torch]", or convert the file to safetensors'
        ) from error

    # From 2.6 on, which pyproject.toml asks for; before, even this mode could run code
    # (CVE-2025-32434).
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise WeightsError(
            f"{path}: expected a PyTorch file with nothing but tensors, got one that is truncated, "
            f"damaged or holds Python objects, which could run code and are never loaded "
            f"({reason}); save the network's state_dict with torch.save or as safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: expected a mapping from names to tensors, got {type(content).__name__}; "
            "save the network's state_dict"
        )
    return cast(Mapping[str, object], content)
