"""Parameters in ``cv2.FileStorage`` files (YAML, JSON or XML), as OpenCV's algorithms keep them."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.descriptors import as_format
from cv_superpoint.detector import DetectorConfig
from cv_superpoint.errors import FeatureError
from cv_superpoint.files import WriteError, replace_file
from cv_superpoint.files.names import is_text
from cv_superpoint.weights import LoadedWeights, available_weights, load_weights

NAME = "Feature2D.SuperPoint"

_COMPRESSED = re.compile(r"\.gz([0-9]?)$")
"""End of a name whose file OpenCV compresses; a digit is zlib's level."""
_LEVEL = "3"
"""OpenCV's level where the name tells none."""


@dataclass(frozen=True, kw_only=True)
class SavedParameters:
    """What a file holds.

    Attributes:
        config: Configuration of the detector.
        weights: Bundled name or absolute path.
        sha256: SHA-256 of the weights, hexadecimal.
    """

    config: DetectorConfig
    weights: str
    sha256: str


def write(file: Any, name: str | None, config: DetectorConfig, weights: LoadedWeights) -> None:
    """Write to a file by its name, or under a key of an open ``cv2.FileStorage``.

    The file takes its place when it is whole; an error leaves the old one.

    Raises:
        FeatureError: If the arguments do not fit or the file cannot be written.
    """
    if isinstance(file, cv2.FileStorage):
        if name is None:
            raise FeatureError("write(fs, name) needs the name of the node to write")
        file.startWriteStruct(name, cv2.FILE_NODE_MAP)
        _write_fields(file, config, weights)
        file.endWriteStruct()
        return
    if not isinstance(file, (str, os.PathLike)) or name is not None:
        raise FeatureError("write takes a file name, or a cv2.FileStorage and a node's name")
    name = _checked(file)
    compressed = _COMPRESSED.search(name)
    # On a disk OpenCV would empty the old file first, say nothing of a full disk, and end the name
    # at a question mark. In memory the name tells the format, a level of compression in it none.
    whole = name[: compressed.start()] if compressed else name
    told = re.sub(r"[?\n]", "_", os.path.basename(whole))
    opened = cv2.FileStorage(told, cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    _write_fields(opened, config, weights)
    data = opened.releaseAndGetString().encode()
    if compressed:
        name = f"{whole}.gz"
        data = gzip.compress(data, int(compressed[1] or _LEVEL), mtime=0)
    try:
        replace_file(name, data)
    except WriteError as error:
        raise FeatureError(f"cannot open {name!r} for writing: {error}") from error


def _write_fields(file: cv2.FileStorage, config: DetectorConfig, weights: LoadedWeights) -> None:
    bundled = weights.name in available_weights()
    # The keys are the parameters of SuperPointFeature2D.create, in the manner of cv2.SIFT's.
    file.write("name", NAME)
    for field in fields(Decoding):
        value = getattr(config.decoding, field.name)
        file.write(_key(field.name), int(value) if isinstance(value, bool) else value)
    file.write("tileSize", config.tile_size)
    file.write("descriptorFormat", config.descriptors.kind)
    file.write("descriptorDim", config.descriptors.dim or 0)  # 0: all numbers, or 256 bits
    file.write("weights", weights.name if bundled else _checked(weights.path.resolve()))
    file.write("weightsSha256", weights.sha256)
    file.startWriteStruct("scales", cv2.FILE_NODE_SEQ)
    for scale in config.scales:
        file.write("", scale)
    file.endWriteStruct()


def read(source: Any) -> SavedParameters:
    """Read from a file by its name, or from a ``cv2.FileNode``.

    Raises:
        FeatureError: If there is no such file, or it does not hold a SuperPoint's parameters.
    """
    if isinstance(source, cv2.FileNode):
        return _read_fields(source, "the node")
    if not isinstance(source, (str, os.PathLike)):
        raise FeatureError(f"read takes a file name or a cv2.FileNode, got {type(source).__name__}")
    path = os.fspath(source)
    if not Path(path).is_file():
        raise FeatureError(f"there is no file {path!r} to read")
    try:
        data = Path(_checked(path)).read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
        opened = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        try:
            return _read_fields(opened.root(), repr(path))
        finally:
            opened.release()
    except FeatureError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, cv2.error, SystemError) as error:
        # OpenCV's constructor hides its own error behind one of Python.
        said = " ".join(str(error.__cause__ or error).split())
        raise FeatureError(
            f"{path!r} is no whole file of cv2.FileStorage ({said}); write it anew with save()"
        ) from error


def _key(name: str) -> str:
    """The spelling of ``SuperPointFeature2D.create`` for the name of a field."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _checked(path: str | os.PathLike[str]) -> str:
    if not is_text(path):
        raise FeatureError(f"{os.fspath(path)!r}: OpenCV takes file names in UTF-8 only; rename it")
    return os.fspath(path)


def _read_fields(node: cv2.FileNode, source: str) -> SavedParameters:
    found = node.getNode("name").string() if node.isMap() else ""
    if found != NAME:
        raise FeatureError(
            f"{source} must hold the parameters of a {NAME}, got {found or 'none'!r}; "
            "write them with save() or write()"
        )
    missing = [key for key in ("scoreThreshold", "weights", "scales") if node.getNode(key).empty()]
    if missing:
        raise FeatureError(f"{source} lacks {', '.join(missing)}; write it anew with save()")

    scales = node.getNode("scales")
    # OpenCV reads a sequence of one number in XML as the number.
    numbers = map(scales.at, range(scales.size())) if scales.isSeq() else (scales,)
    values: dict[str, Any] = {}
    for field in fields(Decoding):
        entry = node.getNode(_key(field.name))
        if not entry.empty():  # files of earlier releases lack what came later
            kind: Any = type(field.default)
            values[field.name] = kind(entry.real())
    # Files of earlier releases lack these two: 0 and an empty text.
    kind = node.getNode("descriptorFormat").string()
    dim = int(node.getNode("descriptorDim").real())
    config = DetectorConfig(
        decoding=Decoding(**values),
        scales=tuple(each.real() for each in numbers),
        tile_size=int(node.getNode("tileSize").real()),
        descriptors=as_format(kind or None, dim or None),
    )
    return SavedParameters(
        config=config,
        weights=node.getNode("weights").string(),
        sha256=node.getNode("weightsSha256").string(),
    )


def find_weights(parameters: SavedParameters, current: LoadedWeights) -> LoadedWeights | None:
    """The weights of these parameters; None if they are loaded already.

    Raises:
        FeatureError: If the named weights are no longer those that the parameters were saved with.
        WeightsError: If they cannot be loaded.
    """
    if parameters.sha256 == current.sha256:
        return None
    found = load_weights(parameters.weights)
    if found.sha256 != parameters.sha256:
        raise FeatureError(
            f"weights {parameters.weights!r} have changed since these parameters were saved: "
            f"sha256 {parameters.sha256} expected, {found.sha256} found"
        )
    return found
