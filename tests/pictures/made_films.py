"""Films made for a test, and the same with another edit list, cut, turned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import skimage.data

COFFEE = skimage.data.coffee()[..., ::-1]
MOVIE_SCALE = 1000
"""Units of a second in the movie header that OpenCV writes."""


def film(path: Path, frames: int = 12, code: str = "mp4v", rate: float = 30.0) -> bytes:
    """A film of 128 x 96 pixels over a photograph, in the format of its ending."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (128, 96))
    assert writer.isOpened()
    for index in range(frames):
        piece = COFFEE[150 + index : 246 + index, 150 + 3 * index : 278 + 3 * index]
        writer.write(np.ascontiguousarray(piece))
    writer.release()
    return path.read_bytes()


def shown(path: Path) -> list[np.ndarray]:
    """The frames that OpenCV gives."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def with_edits(data: bytes, edits: Sequence[tuple[int, int]], version: int = 0) -> bytes:
    """An MP4 file, its movie header last, with another edit list.

    Args:
        data: The file.
        edits: Length in 1/1000 s, and first moment in units of the medium; -1 is a pause.
        version: 0 with numbers of 4 bytes, 1 with 8.
    """
    width = 8 if version else 4
    rows = b"".join(
        length.to_bytes(width, "big") + start.to_bytes(width, "big", signed=True) + b"\0\1\0\0"
        for length, start in edits
    )
    new = bytes((version, 0, 0, 0)) + len(edits).to_bytes(4, "big") + rows
    at = data.index(b"elst") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    changed = bytearray(data[:at] + (len(new) + 8).to_bytes(4, "big") + b"elst" + new)
    changed += data[at + old :]
    for name in (b"moov", b"trak", b"edts"):
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(new) + 8 - old
        changed[place : place + 4] = size.to_bytes(4, "big")
    return bytes(changed)


def header_first(data: bytes) -> bytes:
    """An MP4 file with its movie header before its frames, as films for the web have it."""
    start, movie = data.index(b"mdat") - 4, data.index(b"moov") - 4
    header = bytearray(data[movie:])
    place = header.index(b"stco") + 4
    for index in range(int.from_bytes(header[place + 4 : place + 8], "big")):
        at = place + 8 + 4 * index
        offset = int.from_bytes(header[at : at + 4], "big") + len(header)
        header[at : at + 4] = offset.to_bytes(4, "big")
    return data[:start] + bytes(header) + data[start:movie]


def turned(data: bytes) -> bytes:
    """An MP4 file that states a quarter turn to the right, as phones held upright write it."""
    one, minus = (0x10000).to_bytes(4, "big"), (-0x10000).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    matrix = b"".join((zero, one, zero, minus, zero, zero, *(zero, zero, b"\x40\0\0\0")))
    place = data.index(b"tkhd") + 4 + 40
    return data[:place] + matrix + data[place + 36 :]
