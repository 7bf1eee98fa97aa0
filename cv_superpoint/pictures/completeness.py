"""Whether a JPEG or PNG file is whole: OpenCV fills what is missing with grey, without a word.

Other formats need no such check: OpenCV refuses them where they end early.
"""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np

from cv_superpoint.pictures.containers import (
    JPEG,
    JPEG_END,
    JPEG_SCAN,
    PNG,
    jpeg_segments,
    png_chunks,
)

_JPEG_END = bytes((0xFF, JPEG_END))
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PROGRESSIVE = {0xC2, 0xCA}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Kinds of the segments that tell the components."""
_BITS = (b"\0", b"\xaa", b"\x55", b"\x9c", b"\xfc")
"""Small coefficients and large ones, which show in the picture."""
_PADDING = 16
"""So many zeros at the end are no coefficients but room that was never written to."""


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG file ends before its last mark.

    What follows the last mark, as the films in some phones' pictures, does not matter.
    """
    if data.startswith(PNG):
        return b"IEND" not in data
    if not data.startswith(JPEG):
        return False
    last = -1
    for kind, _, _ in jpeg_segments(data):
        last = kind
    return last not in (JPEG_END, 0)  # 0: no JPEG that we understand; OpenCV decides


def with_end(data: bytes) -> bytes | None:
    """A file that :func:`is_cut_short` with the last mark that it lacks.

    Returns:
        None if more than the mark is missing.
    """
    return _png_with_end(data) if data.startswith(PNG) else _jpeg_with_end(data)


def _png_with_end(data: bytes) -> bytes | None:
    pixels = zlib.decompressobj()
    whole = 0
    for name, start, end in png_chunks(data):
        whole = end + 4
        if name == b"IDAT":
            rest = data[start:end]
            try:
                while rest and not pixels.eof:
                    pixels.decompress(rest, 1 << 20)
                    rest = pixels.unconsumed_tail
            except zlib.error:
                return None
    # The stream's own end, with its checksum, tells that no row is missing.
    return data[:whole] + _PNG_END if pixels.eof else None


def _jpeg_with_end(data: bytes) -> bytes | None:
    segments = list(jpeg_segments(data))
    scans = [index for index, (kind, _, _) in enumerate(segments) if kind == JPEG_SCAN]
    if not scans or not _has_all_scans(data, segments):
        return None
    if len(segments) > scans[-1] + 1:  # what was cut comes after the picture
        data = data[: segments[scans[-1] + 1][1] - 4]
    if data.endswith(bytes(_PADDING)):
        data = data.rstrip(b"\0")
    data = data.rstrip(b"\xff")  # half a mark
    start = data[: segments[scans[-1]][2] + _PADDING]
    # The later versions of OpenCV want no mark in a sequential file, but every row, and libjpeg
    # complains of nothing then; the earlier ones fill what is missing, as all do elsewhere.
    is_strict = _PROGRESSIVE.isdisjoint(kind for kind, _, _ in segments) and _decoded(start) is None
    if is_strict and _decoded(data + bytes(_PADDING)) is None:
        return None
    # Any bits are coefficients to a decoder that lacks some; one that has all passes over them.
    # Only some coefficients of the picture's last block can be missing unnoticed.
    ends = [16 * bits if is_strict else _restarts(bits) + _JPEG_END for bits in _BITS]
    first, *others = (_decoded(data + end) for end in ends)
    is_whole = first is not None and all(np.array_equal(first, each) for each in others)
    return data + _JPEG_END if is_whole else None


def _restarts(bits: bytes) -> bytes:
    """16 bytes, and as many after whatever restart a decoder may wait for."""
    marks = (bytes((0xFF, mark)) for mark in range(0xD0, 0xD8))
    return 16 * bits + b"".join(mark + 16 * bits for mark in marks)


def _has_all_scans(data: bytes, segments: list[tuple[int, int, int]]) -> bool:
    """Whether the scans that begin in the file bring every coefficient in full precision."""
    frame = next(((kind, start) for kind, start, _ in segments if kind in _FRAMES), None)
    if frame is None:
        return False
    kind, start = frame
    components = data[start + 6 : start + 6 + 3 * data[start + 5] : 3]
    wanted = {(component, place) for component in components for place in range(64)}
    for scan, at, end in segments:
        if scan != JPEG_SCAN or end > len(data):
            continue
        first, last, precision = data[end - 3], data[end - 2], data[end - 1] & 15
        if kind not in _PROGRESSIVE:
            first, last, precision = 0, 63, 0
        if precision == 0:
            named = data[at + 1 : at + 1 + 2 * data[at] : 2]
            wanted -= {(each, place) for each in named for place in range(first, last + 1)}
    return bool(components) and not wanted


def _decoded(data: bytes) -> Any:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
