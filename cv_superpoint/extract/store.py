"""A shard as a file, and all shards as one HDF5 file in hloc's layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint.errors import PictureError, require
from cv_superpoint.extract.plan import ExtractError, Plan, Shard
from cv_superpoint.features import Features
from cv_superpoint.files import write_file
from cv_superpoint.interop.hloc import StoreError, opened, put_features

Rows = Sequence[tuple[str, Features]]


def write_shard(
    shard: Shard, format: str, rows: Rows, broken: Sequence[tuple[str, str]], *, half: bool
) -> None:
    """Write the features of a shard; the file appears when it is whole.

    Args:
        shard: Its file is written last: what exists is done.
        format: "hdf5" or "parquet".
        rows: Name and features of each image.
        broken: Name of each image that cannot be read, and why.
        half: Descriptors as float16.

    Raises:
        ExtractError: If it cannot be written.
    """
    part = shard.path.with_name(f"{shard.path.name}.part-{os.getpid()}")
    try:
        write = _write_hdf5 if format == "hdf5" else _write_parquet
        write(part, rows, np.float16 if half else np.float32)
        notes = {
            "images": len(rows),
            "keypoints": sum(len(features) for _, features in rows),
            "broken": list(broken),
        }
        write_file(shard.notes, json.dumps(notes).encode())
        os.replace(part, shard.path)
    except (OSError, RuntimeError, StoreError, PictureError) as error:
        text = " ".join(str(error).split())
        raise ExtractError(
            f"cannot write {shard.path}: {text}; make room on the disk and run the same command "
            "again, the shards written so far are kept"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def read_notes(shard: Shard) -> dict[str, Any]:
    """Numbers of images and keypoints of a finished shard, and its broken images."""
    notes: dict[str, Any] = json.loads(shard.notes.read_text(encoding="utf-8"))
    return notes


def merge(plan: Plan, target: Path, tick: Callable[[], None]) -> None:
    """All shards in one HDF5 file, which appears when it is whole.

    Args:
        plan: Whose shards are all done.
        target: The file.
        tick: Called after each shard.

    Raises:
        ExtractError: If a shard cannot be read or the file cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with opened(part, "w") as file:
            for shard in plan.shards:
                with opened(shard.path) as source:
                    for name in shard.names:
                        if name in source:
                            source.copy(source[name], file, name)
                tick()
            broken = [each for shard in plan.shards for each in read_notes(shard)["broken"]]
            # Dense storage, in which attributes may be larger than 64 KiB, is a dataset here.
            file.attrs["images"] = sum(len(shard.names) for shard in plan.shards) - len(broken)
        if broken:
            listed = "".join(f"{name}\t{why}\n" for name, why in broken)
            write_file(target.with_name(f"{target.name}.broken.txt"), listed.encode())
        os.replace(part, target)
    except (OSError, RuntimeError, StoreError, PictureError, KeyError) as error:
        text = " ".join(str(error).split())
        raise ExtractError(
            f"cannot write {target}: {text}; make room on the disk and run the same command again, "
            f"the shards in {plan.folder} are kept"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _write_hdf5(path: Path, rows: Rows, kind: Any) -> None:
    with opened(path, "w") as file:
        for name, features in rows:
            put_features(file, name, features, kind)


def _write_parquet(path: Path, rows: Rows, kind: Any) -> None:
    """One row for each image: name, width, height, and flat lists of the arrays' values."""
    pa = require("pyarrow", "ray")
    pq = require("pyarrow.parquet", "ray")
    descriptor = pa.float16() if kind == np.float16 else pa.float32()
    columns: dict[str, Any] = {
        "name": pa.array([name for name, _ in rows], pa.string()),
        "width": pa.array([each.image_size[1] for _, each in rows], pa.int32()),
        "height": pa.array([each.image_size[0] for _, each in rows], pa.int32()),
        "keypoints": _lists(pa, [each.keypoints.reshape(-1) for _, each in rows], pa.float32()),
        "scores": _lists(pa, [each.scores for _, each in rows], pa.float32()),
        "descriptors": _lists(
            pa, [each.descriptors.reshape(-1).astype(kind) for _, each in rows], descriptor
        ),
    }
    pq.write_table(pa.table(columns), path)


def _lists(pa: Any, arrays: Sequence[Any], kind: Any) -> Any:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in arrays], dtype=np.int64)])
    values = np.concatenate(arrays) if arrays else np.empty(0, np.float32)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, kind))
