"""How many frames a video file states to show, and whether it ends before it says.

What OpenCV tells is the number of stored frames, of which an edit list may leave out some, or, for
many formats, a guess from the duration.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.pictures.containers import Data, boxes, find_boxes, riff_chunks

_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
"""First boxes of MP4 and MOV files."""
_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MOST = 10_000_000
"""Frames of half a week; tables that state more are damaged."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """What a video file says of its length.

    Attributes:
        frames: Number of frames that it shows; None where it does not state it.
        slack: Number of frames by which cuts of an edit list may change that number.
        ends_early: Whether the file is shorter than it says.
    """

    frames: int | None = None
    slack: int = 0
    ends_early: bool = False


def length_of(path: Path, stored: int) -> Length:
    """Read what a file says of its length.

    Args:
        path: Path of a video file of any format; nothing is known of other things.
        stored: Frames that OpenCV tells of.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _length(data, stored)
    except (OSError, ValueError):  # no file, or an empty one
        return Length()


def _length(data: Data, stored: int) -> Length:
    if data[:4] == b"RIFF":
        ends = (end for _, _, end in riff_chunks(data, 0))
        return Length(frames=stored, ends_early=max(ends, default=0) > len(data))
    if data[4:8] in _ISO_BOXES:
        early = any(end > len(data) for _, _, end in boxes(data))
        shown = None if _is_fragmented(data) else _shown(data)
        if shown is None:
            return Length(ends_early=early)
        return Length(frames=min(stored, shown[0]), slack=shown[1], ends_early=early)
    if data[:4] == _MATROSKA:
        return Length(ends_early=_segment_end(data) > len(data))
    return Length()


def _is_fragmented(data: Data) -> bool:
    return next(find_boxes(data, b"moov", b"mvex"), None) is not None


def _shown(data: Data) -> tuple[int, int] | None:
    """Frames of the first video track that its edit list shows, and the cuts in it."""
    scale = _time_scale(data, next(find_boxes(data, b"moov", b"mvhd"), None))
    for track in find_boxes(data, b"moov", b"trak"):
        inside = data[track[0] : track[1]]
        handler = next(find_boxes(inside, b"mdia", b"hdlr"), None)
        if handler is None or inside[handler[0] + 8 : handler[0] + 12] != b"vide":
            continue
        times = _times(inside)
        own_scale = _time_scale(inside, next(find_boxes(inside, b"mdia", b"mdhd"), None))
        edits = list(_edits(inside))
        if times is None or not edits or not scale or not own_scale:
            return None if times is None else (len(times), 0)
        starts = [(start, start + length * own_scale / scale) for length, start in edits]
        shown = [int(np.sum((times >= start) & (times < end))) for start, end in starts]
        is_whole = sum(shown) == len(times)
        return sum(shown), 0 if is_whole else len(edits)
    return None


def _time_scale(data: Data, place: tuple[int, int] | None) -> int:
    """Units of a second, of a movie's or a medium's header."""
    if place is None:
        return 0
    # A slice, since a damaged box may have no first byte.
    at = place[0] + (20 if data[place[0] : place[0] + 1] == b"\x01" else 12)
    return int.from_bytes(data[at : at + 4], "big")


def _edits(track: bytes) -> Iterator[tuple[int, int]]:
    """Length in units of the movie, and start in units of the medium, of what is shown."""
    place = next(find_boxes(track, b"edts", b"elst"), None)
    if place is None:
        return
    start, end = place
    width = 8 if track[start : start + 1] == b"\x01" else 4
    for at in range(start + 8, end - 2 * width - 3, 2 * width + 4):
        length = int.from_bytes(track[at : at + width], "big")
        first = int.from_bytes(track[at + width : at + 2 * width], "big", signed=True)
        if first >= 0:  # -1 is a pause before the film
            yield length, first


def _times(track: bytes) -> NDArray[np.int64] | None:
    """When each stored frame is shown, in units of the medium."""
    steps = _runs(track, b"stts")
    if steps is None or len(steps) == 0:
        return None
    times = np.concatenate([[0], np.cumsum(steps)[:-1]]).astype(np.int64)
    shifts = _runs(track, b"ctts")
    return times if shifts is None or len(shifts) != len(times) else times + shifts


def _runs(track: bytes, name: bytes) -> NDArray[np.int64] | None:
    """A value for each frame, from a table of counts and values."""
    place = next(find_boxes(track, b"mdia", b"minf", b"stbl", name), None)
    if place is None:
        return None
    table = track[place[0] + 8 : place[1]]
    rows = np.frombuffer(table[: len(table) // 8 * 8], ">i4").reshape(-1, 2).astype(np.int64)
    counts = np.maximum(rows[:, 0], 0)
    return None if counts.sum() > _MOST else np.repeat(rows[:, 1], counts)


def _segment_end(data: Data) -> int:
    """Where a Matroska file says that it ends; 0 where it does not."""
    size, width = _matroska_size(data, 4)
    start = 4 + width + size
    if data[start : start + 4] != _SEGMENT:
        return 0
    size, width = _matroska_size(data, start + 4)
    is_open = size == 2 ** (7 * width) - 1
    return 0 if is_open else start + 4 + width + size


def _matroska_size(data: Data, at: int) -> tuple[int, int]:
    """A number whose leading zeros tell its bytes, and these."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length() if first else 8
    number = int.from_bytes(data[at : at + width], "big") & (2 ** (7 * width) - 1)
    return number, width
