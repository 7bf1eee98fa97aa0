"""The parts of picture and video files, found without decoding anything.

What is damaged or ends early ends the walk; nothing here raises.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Data: TypeAlias = bytes | mmap.mmap

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
"""Kinds of marker: start of scan, end of image."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The four starts of TIFF and BigTIFF files."""

_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker inside a JPEG scan that is neither a stuffed byte nor a restart."""

_WIDTHS = {1: 1, 3: 2, 4: 4, 16: 8}
"""Bytes of a number by its type in TIFF: BYTE, SHORT, LONG, and BigTIFF's LONG8."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A number in the first directory of a TIFF structure.

    Attributes:
        value: The first number of the entry.
        position: Where it is, in bytes from the start.
        width: Bytes that it takes.
    """

    value: int
    position: int
    width: int


def byte_order(data: bytes) -> Literal["little", "big"]:
    """Order of the bytes of a TIFF structure."""
    return "little" if data[:2] == b"II" else "big"


def tiff_directory(data: bytes) -> dict[int, Entry]:
    """The whole numbers in the first directory of a TIFF, BigTIFF or EXIF structure, by tag."""
    if data[:4] not in TIFF:
        return {}
    order = byte_order(data)
    wide = int.from_bytes(data[2:4], order) == 43
    word, header, step = (8, 8, 20) if wide else (4, 2, 12)
    start = int.from_bytes(data[word : 2 * word], order)
    count = int.from_bytes(data[start : start + header], order)
    found: dict[int, Entry] = {}
    for index in range(min(count, 4096)):
        at = start + header + index * step
        if at + step > len(data):
            break
        width = _WIDTHS.get(int.from_bytes(data[at + 2 : at + 4], order), 0)
        position = at + 4 + word
        if width * int.from_bytes(data[at + 4 : position], order) > word:
            # More numbers than the entry holds: it holds their place instead.
            position = int.from_bytes(data[position : position + word], order)
        if width and position + width <= len(data):
            value = int.from_bytes(data[position : position + width], order)
            tag = int.from_bytes(data[at : at + 2], order)
            found.setdefault(tag, Entry(value=value, position=position, width=width))
    return found


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of the content of each marker segment of a JPEG file.

    A scan's data are passed over. The last is :data:`JPEG_END`, where there is one, or 0 where
    there is something else where a marker should be.
    """
    position = 2
    while position + 1 < len(data):
        kind = data[position + 1]
        if data[position] != 0xFF:
            yield 0, position, position
            return
        if kind == 0xFF:  # a fill byte
            position += 1
            continue
        if kind == JPEG_END:
            yield kind, position + 2, position + 2
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield kind, position + 4, end
        position = end
        if kind == JPEG_SCAN:
            found = _SCAN_END.search(data, end)
            if found is None:
                return
            position = found.start()


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each chunk that is whole."""
    position = len(PNG)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, end
        position = end + 4  # after the checksum


def riff_chunks(data: Data, position: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each chunk of a RIFF file.

    The end is where the chunk says, which may be after the end of the file.

    Args:
        data: The file.
        position: 12 for the chunks of a WebP file, 0 for the one or more that an AVI file is.
    """
    while position + 8 <= len(data):
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], position + 8, end
        position = end + end % 2


def boxes(data: Data, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box of an ISO media file: MP4, MOV, AVIF.

    The end is where the box says, which may be after the end of the file.

    Args:
        data: The file.
        start: Where the first box is.
        end: End of the content of the box that they are in; None takes the whole file.
    """
    last = len(data) if end is None else min(end, len(data))
    while start + 8 <= last:
        size, header = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = last - start
        if size < header:
            return
        yield data[start + 4 : start + 8], start + header, start + size
        start += size


def find_boxes(data: Data, *path: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of the content of the boxes at a path such as ``moov``, ``trak``."""
    yield from _descend(data, path, 0, len(data))


def _descend(
    data: Data, path: tuple[bytes, ...], start: int, end: int
) -> Iterator[tuple[int, int]]:
    for name, first, last in boxes(data, start, end):
        if name != path[0]:
            continue
        last = min(last, end)
        if len(path) == 1:
            yield first, last
        else:
            # The one container whose content begins with a version and flags.
            yield from _descend(data, path[1:], first + 4 * (name == b"meta"), last)
