"""A shard as a file with its notes; all shards and what was there before as one HDF5 file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import require
from cv_superpoint.extract.plan import (
    RECORD,
    Done,
    ExtractError,
    Format,
    Shard,
    check_settings,
    notes_of,
    shard_files,
)
from cv_superpoint.files import WriteError, replacing, write_file
from cv_superpoint.files.fingerprint import Fingerprint
from cv_superpoint.files.record import RecordError, read_record
from cv_superpoint.interop.hloc import StoreError, opened, put_features

TURNED = "turned upright, and its points with it"
"""Note of an image whose points are not in pixels as stored."""
ATTRIBUTE = "cv_superpoint"
"""Attribute in JSON: settings of the HDF5 file, picture file of a group; hloc ignores it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is stored of an image.

    Attributes:
        name: Relative to the folder.
        features: Features of the image.
        file: File that they are of.
        notes: What was done to the image before.
    """

    name: str
    features: Features
    file: Fingerprint
    notes: tuple[str, ...] = ()


def write_shard(
    shard: Shard, format: Format, rows: Sequence[Row], broken: Mapping[str, str], *, half: bool
) -> None:
    """Write the features of a shard; the file appears when it is whole.

    Args:
        shard: Shard, whose file is written last: what exists is done.
        format: Format of the file.
        rows: Rows of the images that can be read.
        broken: Reason by the name of each image that cannot be read.
        half: Descriptors as float16, unless they are bytes or bits.

    Raises:
        ExtractError: If it cannot be written.
    """
    notes = {
        "done": {row.name: [len(row.features), asdict(row.file)] for row in rows},
        "broken": dict(broken),
        "notes": {row.name: row.notes for row in rows if row.notes},
    }
    kinds = {each.features.descriptor_kind for each in rows}
    kind: Any = np.float16 if half else np.float32
    kind = kind if kinds <= {"float32"} else np.uint8
    with room(shard.path, "the shards written so far are kept"):
        write_file(shard.notes, json.dumps(notes).encode())
        with replacing(shard.path) as part:
            (_write_hdf5 if format == "hdf5" else _write_parquet)(part, rows, kind)


def done_in_shards(folder: Path, format: Format) -> dict[str, Done]:
    """The images whose features are in the shards of a folder.

    Raises:
        ExtractError: If the notes of a shard cannot be read.
    """
    found: dict[str, Done] = {}
    for path in shard_files(folder, format):
        for name, (keypoints, file) in _read_notes(path)["done"].items():
            found[name] = Done(keypoints=keypoints, file=Fingerprint(**file), where=path)
    return found


def broken_in_shards(folder: Path, format: Format) -> dict[str, str]:
    """The images of shards that cannot be read, and why."""
    return {
        name: why
        for path in shard_files(folder, format)
        for name, why in _read_notes(path)["broken"].items()
    }


def notes_in_shards(folder: Path, format: Format) -> dict[str, tuple[str, ...]]:
    """What was done to the images of shards before they were looked at, where it was anything."""
    return {
        name: tuple(notes)
        for path in shard_files(folder, format)
        for name, notes in _read_notes(path)["notes"].items()
    }


def settings_before(folder: Path, file: Path | None) -> dict[str, Any] | None:
    """What a run that goes on was begun with; None where there is none, or it cannot be read.

    Args:
        folder: Folder of its shards.
        file: Finished HDF5 file of the run.
    """
    with suppress(Exception):  # of h5py too, for bytes that are anything; the reader tells them
        if file is not None and file.exists():
            with opened(file) as source:
                found = json.loads(source.attrs[ATTRIBUTE])
                return found if isinstance(found, dict) else None
        return read_record(folder / RECORD)
    return None


def done_in_file(path: Path, settings: Mapping[str, Any]) -> dict[str, Done]:
    """The images whose features are in a finished HDF5 file.

    Raises:
        ExtractError: If it was made by another program or with other settings.
    """
    found: dict[str, Done] = {}

    def read(name: str, item: Any, record: Any) -> None:
        file = Fingerprint(**record)
        found[name] = Done(keypoints=len(item["keypoints"]), file=file, where=path)

    read_records(path, settings, read)
    return found


def read_records(
    path: Path, settings: Mapping[str, Any], read: Callable[[str, Any, Any], None]
) -> None:
    """Check the settings of an HDF5 file of ours, and read what its groups were made of.

    Args:
        path: The file.
        settings: Settings of the run that goes on with it.
        read: Function that is called with name, group and record of each group that has one.

    Raises:
        ExtractError: If the file was made by another program or with other settings.
    """

    def visit(name: str, item: Any) -> None:
        if (text := item.attrs.get(ATTRIBUTE)) is not None:
            read(name, item, json.loads(text))

    try:
        with opened(path) as source:
            text = source.attrs.get(ATTRIBUTE)
            if text is None:
                raise ExtractError(
                    f"{path} is there already and does not tell what it was made of; delete it or "
                    "name another file"
                )
            check_settings(json.loads(text), settings, path)
            source.visititems(visit)
    except ExtractError:
        raise
    except Exception as error:  # of h5py, for bytes that are anything
        said = " ".join(str(error).split())
        raise ExtractError(f"{said}; delete {path} or name another file") from error


def remove_empty(folder: Path, format: Format) -> None:
    """Remove the shards of images none of which could be read: they are tried again."""
    for path in shard_files(folder, format):
        if not _read_notes(path)["done"]:
            _remove(path)


def drop(path: Path, names: frozenset[str], format: Format) -> None:
    """Write a shard again without some of its images, or remove it if none is left.

    Raises:
        ExtractError: If it cannot be written.
    """
    notes = _read_notes(path)
    for key in ("done", "notes"):
        notes[key] = {name: each for name, each in notes[key].items() if name not in names}
    if not notes["done"]:
        _remove(path)
        return
    with room(path, "nothing of it is lost"):
        with replacing(path) as part:
            if format == "hdf5":
                with opened(part, "w") as file, opened(path) as source:
                    _copy(source, file, notes["done"])
            else:
                pq = require("pyarrow.parquet", "ray")
                table = pq.read_table(path)
                kept = [name in notes["done"] for name in table.column("name").to_pylist()]
                pq.write_table(table.filter(kept), part)
        # Afterwards: notes of images that the shard lacks would be believed.
        write_file(notes_of(path), json.dumps(notes).encode())


def merge(done: Mapping[str, Done], target: Path, settings: Mapping[str, Any]) -> None:
    """Features from shards, and from the target itself, in one HDF5 file in hloc's layout.

    Args:
        done: Place of the features by name.
        target: The file, which appears, or takes the old one's place, when it is whole.
        settings: Settings that the features were made with.

    Raises:
        ExtractError: If a shard cannot be read or the file cannot be written.
    """
    sources: dict[Path, list[str]] = {}
    for name, each in done.items():
        sources.setdefault(each.where, []).append(name)
    with (
        room(target, "the shards are kept"),
        replacing(target, large=True) as part,
        opened(part, "w") as file,
    ):
        for path, names in sources.items():
            with opened(path) as source:
                _copy(source, file, names)
        file.attrs["images"] = len(done)
        file.attrs[ATTRIBUTE] = as_attribute(settings)


def as_attribute(record: Mapping[str, Any]) -> Any:
    """JSON of a fixed length: the HDF5 library loops for ever in damaged texts of any length."""
    return np.bytes_(json.dumps(record))


def _remove(path: Path) -> None:
    path.unlink()
    notes_of(path).unlink(missing_ok=True)


def _copy(source: Any, file: Any, names: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        source.copy(source[name], file, name)


@contextmanager
def room(path: Path, kept: str) -> Iterator[None]:
    """What goes wrong while a file is written, in one line with the remedy.

    Args:
        path: The file.
        kept: Words for what is not lost.

    Raises:
        ExtractError: If the system, HDF5 or another format raises an error.
    """
    try:
        yield
    except (OSError, RuntimeError, StoreError, WriteError, KeyError) as error:
        text = " ".join(str(error).split())
        raise ExtractError(
            f"cannot write {path}: {text}; make room on the disk and run the same command again, "
            f"{kept}"
        ) from error


def _read_notes(path: Path) -> dict[str, Any]:
    notes = notes_of(path)
    try:
        found = read_record(notes)
        if found is None or not _are_notes(found):
            raise RecordError(f"{notes} is damaged (not the notes of a shard)")
    except RecordError as error:
        raise ExtractError(
            f"{error}; delete it and {path.name} and run the same command again"
        ) from error
    return found


def _are_notes(record: Mapping[str, Any]) -> bool:
    """Whether a record is as :func:`write_shard` makes it."""
    try:
        for keypoints, file in record["done"].values():
            Fingerprint(**file)
            if not isinstance(keypoints, int):
                return False
        texts = [
            *record["broken"].values(),
            *(each for row in record["notes"].values() for each in row),
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return all(isinstance(each, str) for each in texts)


def _write_hdf5(path: Path, rows: Sequence[Row], kind: Any) -> None:
    with opened(path, "w") as file:
        for row in rows:
            put_features(file, row.name, row.features, kind)
            file[row.name].attrs[ATTRIBUTE] = as_attribute(asdict(row.file))


def _write_parquet(path: Path, rows: Sequence[Row], kind: Any) -> None:
    """One row for each image: name, width, height, and flat lists of the arrays' values."""
    pa = require("pyarrow", "ray")
    pq = require("pyarrow.parquet", "ray")
    descriptor = {np.float16: pa.float16, np.float32: pa.float32, np.uint8: pa.uint8}[kind]()
    found = [row.features for row in rows]
    columns: dict[str, Any] = {
        "name": pa.array([row.name for row in rows], pa.string()),
        "width": pa.array([each.image_size[1] for each in found], pa.int32()),
        "height": pa.array([each.image_size[0] for each in found], pa.int32()),
        "keypoints": _lists(pa, [each.keypoints.reshape(-1) for each in found], pa.float32()),
        "scores": _lists(pa, [each.scores for each in found], pa.float32()),
        "descriptors": _lists(
            pa, [each.descriptors.reshape(-1).astype(kind) for each in found], descriptor
        ),
    }
    pq.write_table(pa.table(columns), path)


def _lists(pa: Any, arrays: Sequence[Any], kind: Any) -> Any:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in arrays], dtype=np.int64)])
    values = np.concatenate(arrays) if arrays else np.empty(0, np.float32)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, kind))
