"""The pictures that a user names, files and folders: one rule for all commands and for training.

A file in a folder is a picture by its ending. What is named or found and cannot be one (a pipe, a
broken link, a folder that may not be entered) is left out and told. Whether a picture can be
decoded shows when it is read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cv_superpoint.errors import PictureError
from cv_superpoint.files.entries import look
from cv_superpoint.files.formats import PICTURE_SUFFIXES, mark_of, why_refused
from cv_superpoint.files.guard import Identity, identity
from cv_superpoint.files.names import AnyPath

DRAWINGS = frozenset({"drawing"})
"""Pictures of keypoints and matches that our commands drew: no photographs."""


@dataclass(frozen=True)
class LeftOut:
    """A picture or folder that is not read.

    Attributes:
        path: Where it is.
        name: Name in the listing.
        why: What it is instead, and the remedy; without the path.
    """

    path: Path
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Pictures to read.

    Attributes:
        pictures: Path and name of each. A name is relative to the folder named, with "/".
        left_out: What was named or found, but cannot be read.
        others: Files in the folders whose ending is no picture's.
        own: Drawings of ours among what was named or found, and the output inside a folder: none
            is an input.
    """

    pictures: tuple[tuple[Path, str], ...]
    left_out: tuple[LeftOut, ...] = ()
    others: tuple[tuple[Path, str], ...] = ()
    own: tuple[Path, ...] = ()


def list_pictures(
    paths: Sequence[AnyPath],
    *,
    output: AnyPath | None = None,
    without: frozenset[str] = DRAWINGS,
) -> Listing:
    """Files and the pictures in folders.

    Args:
        paths: Files, taken whatever their ending, and folders, searched with their subfolders,
            also behind links. Each folder is searched once.
        output: File or folder that the command writes: inside the folders it is no input.
        without: Kinds of pictures, as :func:`cv_superpoint.files.formats.mark_png` marks them, that
            are passed over in folders; drawings are everywhere.

    Returns:
        The pictures, those of a folder sorted, and what was left out.

    Raises:
        PictureError: If there is no such file or folder, or no picture in a folder.
    """
    finder = _Finder(None if output is None else identity(output), without)
    for each in map(Path, paths):
        if os.path.isdir(each):
            before = len(finder.pictures)
            finder.take_folder(each)
            if len(finder.pictures) == before:
                raise PictureError(f"{each}: there is no picture in this folder{finder.reasons()}")
        elif os.path.lexists(each):
            finder.take_file(each, each.name)
        else:
            raise PictureError(f"{each}: {look(each)}")
    if paths and not finder.pictures:
        raise PictureError(f"there is no picture to read{finder.reasons()}")
    return Listing(
        pictures=tuple(finder.pictures),
        left_out=tuple(finder.left_out),
        others=tuple(finder.others),
        own=tuple(finder.own),
    )


class _Finder:
    def __init__(self, output: Identity | None, without: frozenset[str]) -> None:
        self.pictures: list[tuple[Path, str]] = []
        self.left_out: list[LeftOut] = []
        self.others: list[tuple[Path, str]] = []
        self.own: list[Path] = []
        self._output, self._without = output, without
        self._taken: set[tuple[str, Identity | str]] = set()

    def take_file(self, path: Path, name: str, *, found: bool = False) -> None:
        """A file that the user named, whatever its ending, or that was found in a folder."""
        what = look(path)
        why = what if isinstance(what, str) else why_refused(path)
        without = self._without if found else DRAWINGS
        if why:
            self.left_out.append(LeftOut(path, name, why))
        elif (found and what == self._output) or mark_of(path) in without:
            self.own.append(path)
        elif (name, what) not in self._taken:  # one file may be named twice
            self._taken.add((name, what))
            self.pictures.append((path, name))

    def take_folder(self, root: Path) -> None:
        """The pictures of a folder, in the order of the parts of their names."""
        for path, name in sorted(self._files(root), key=lambda each: each[1].split("/")):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                self.take_file(path, name, found=True)
            else:
                self.others.append((path, name))

    def reasons(self) -> str:
        """Why what is there is none, for an error about a folder."""
        told = [str(each) for each in self.left_out[-3:]]
        told += [f"{self.own[-1]}: written by cv-superpoint itself"] if self.own else []
        return f" ({'; '.join(told)})" if told else ""

    def _files(self, root: Path) -> Iterator[tuple[Path, str]]:
        """All entries that are no folders, with their names; links to folders come last.

        So a folder's pictures have the name of the place where they lie, where there is one.
        """
        waiting = deque([(root, "")])
        seen: set[Identity | None] = set()
        while waiting:
            folder, prefix = waiting.popleft()
            what = identity(folder)
            if what in seen:
                continue
            seen.add(what)
            if prefix and what == self._output:
                self.own.append(folder)
                continue
            try:
                with os.scandir(folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                why = f"the folder cannot be read ({error.strerror or error})"
                self.left_out.append(LeftOut(folder, prefix or folder.name, why))
                continue
            folders: list[tuple[Path, str]] = []
            for entry in listed:
                path = folder / entry.name
                if _is_folder(entry):
                    add = waiting.append if entry.is_symlink() else folders.append
                    add((path, f"{prefix}{entry.name}/"))
                else:
                    yield path, prefix + entry.name
            waiting.extendleft(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, a part of whose path may not be entered
        return False
