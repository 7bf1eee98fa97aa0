"""The photographs of a run, looked at before it: what cannot be read is left out and named."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cv_superpoint.errors import PictureError
from cv_superpoint.files import write_file
from cv_superpoint.files.fingerprint import Fingerprint, fingerprint
from cv_superpoint.files.listing import list_pictures
from cv_superpoint.files.names import shown
from cv_superpoint.files.record import RecordError, read_record
from cv_superpoint.pictures.reading import load_picture

log = logging.getLogger(__name__)

MANY = 2000
"""So many photographs take long enough to say that they are looked at."""


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """What a folder holds.

    Attributes:
        folder: Folder that was searched.
        contents: SHA-256 of each photograph's file by its name, relative to the folder.
        left_out: Reason by the name of each picture that is none of them.
    """

    folder: Path
    contents: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.contents)

    @property
    def paths(self) -> list[Path]:
        """Paths of the photographs, in the order of the folders."""
        return [self.folder / name for name in self.contents]

    @property
    def sha256(self) -> str:
        """SHA-256 of all names and contents."""
        lines = sorted(f"{name}\0{content}" for name, content in self.contents.items())
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def look_at(folder: Path, seen: Path, run_dir: Path) -> Photographs:
    """Read every photograph of a folder once; those that were read before only if they changed.

    Args:
        folder: Folder, searched with its subfolders.
        seen: File that keeps what was found, for the next stage and the next run.
        run_dir: Folder of the run: what it wrote is no photograph.

    Returns:
        Photographs that can be read. The log names others.

    Raises:
        ValueError: If there is no such folder, or nothing to read in it.
    """
    if not folder.is_dir():
        kind = "a file, no folder" if folder.exists() else "there is no such folder"
        raise ValueError(f"{folder}: {kind}; name the folder of the photographs")
    listing = list_pictures([folder], output=run_dir)
    known = _read_seen(seen)
    if len(listing.pictures) >= MANY:
        log.info("looking at %d photographs", len(listing.pictures))
    with ThreadPoolExecutor() as pool:
        found = dict(
            zip(
                (name for _, name in listing.pictures),
                pool.map(lambda each: _look(each[0], known.get(each[1])), listing.pictures),
                strict=True,
            )
        )
    left_out = {each.name: each.why for each in listing.left_out}
    left_out |= {name: each.why for name, each in found.items() if each.why}
    for name, why in left_out.items():
        log.warning("left out: %s: %s", shown(str(folder / name)), why)
    contents = {
        name: each.file.sha256
        for name, each in found.items()
        if not each.why and each.file is not None
    }
    if left_out:
        log.warning("%d of %d pictures are left out", len(left_out), len(left_out) + len(contents))
    if not contents:
        raise ValueError(f"{folder}: none of the {len(left_out)} pictures in it can be read")
    _write_seen(seen, found)
    return Photographs(folder=folder, contents=contents, left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    file: Fingerprint | None = None
    why: str = ""


def _look(path: Path, known: _Seen | None) -> _Seen:
    file = None
    try:
        if known is not None and known.file is not None and known.file.describes(path):
            return known
        file = fingerprint(path)
        notes = load_picture(path, grey=True).notes
    except PictureError as error:
        return _Seen(file=file, why=str(error).removeprefix(f"{path}: "))
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or "memory does not suffice"
        return _Seen(why=f"cannot be read ({why})")  # which may be otherwise the next time
    for note in notes:
        log.warning("%s: %s", shown(str(path)), note)
    return _Seen(file=file)


def _read_seen(path: Path) -> dict[str, _Seen]:
    try:
        stored: dict[str, Any] = read_record(path) or {}
        return {
            name: _Seen(file=Fingerprint(**file), why=why) for name, (file, why) in stored.items()
        }
    except (RecordError, TypeError, ValueError):
        return {}  # what is not known is looked at


def _write_seen(path: Path, found: Mapping[str, _Seen]) -> None:
    stored = {
        name: [asdict(each.file), each.why] for name, each in found.items() if each.file is not None
    }
    write_file(path, json.dumps(stored).encode())
