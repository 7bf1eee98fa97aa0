"""Picture files as arrays; what is unreadable or cut short is an error, not a grey half."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cv_superpoint.errors import PictureError
from cv_superpoint.files import write_file
from cv_superpoint.files.entries import read_file
from cv_superpoint.files.formats import is_text, mark_png, why_unreadable
from cv_superpoint.image import ByteArray

Made = Literal["drawing", "panorama"]

_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker inside a JPEG scan that is neither a stuffed byte nor a restart."""


def read_picture(
    path: str | os.PathLike[str], *, grey: bool = False, upright: bool = True
) -> ByteArray:
    """A picture file as (H, W, 3) BGR or (H, W) grey, uint8.

    Args:
        path: Of any format that OpenCV reads.
        grey: Decode straight to grey.
        upright: Turn as the file's EXIF orientation says. COLMAP and hloc do not.

    Raises:
        PictureError: If it is missing, no picture, or cut short.
    """
    data = read_file(path)
    if is_cut_short(data):
        raise PictureError(f"{path}: the file is cut short; copy it again")
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise PictureError(f"{path}: OpenCV refuses it ({error.err})") from error
    if image is None:
        raise PictureError(f"{path}: {why_unreadable(data)}")
    return image.astype(np.uint8, copy=False)


def picture_or_why(path: str | os.PathLike[str]) -> ByteArray | PictureError:
    """:func:`read_picture`, or its error as a value, for long lists that go on after one."""
    try:
        return read_picture(path)
    except PictureError as error:
        return error


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG file ends before its last mark. OpenCV fills the rest of such a JPEG.

    What follows the last mark, as the films in some phones' pictures, does not matter.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return False  # no JPEG that we understand: OpenCV decides
        kind = data[position + 1]
        if kind == 0xD9:
            return False
        if kind == 0xFF:
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == 0xDA:  # the compressed data follow its header
            found = _SCAN_END.search(data, position)
            if found is None:
                return True
            position = found.start()
    return not data[position:].startswith(b"\xff\xd9")


def write_picture(
    path: str | os.PathLike[str], picture: ByteArray, *, made: Made | None = None
) -> None:
    """Write a picture in the format of its ending, in one step, making its folder.

    Args:
        path: Target.
        picture: (H, W), or (H, W, 3) BGR, uint8.
        made: What our command made it as: a PNG file says so, and is then no photograph to later
            runs over its folder.

    Raises:
        PictureError: If the ending is unknown or the format cannot hold the picture.
        WriteError: If the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix if is_text(target.suffix) else ""
    try:
        done, encoded = cv2.imencode(suffix or ".", picture)
    except cv2.error:
        done = False
    if not done:
        if suffix and cv2.haveImageWriter(suffix):
            height, width = picture.shape[:2]
            why = f"OpenCV cannot write {width} x {height} pixels in the format of its name"
        else:
            why = "no picture format that OpenCV writes"
        raise PictureError(f"{target}: {why}; try {target.stem}.png")
    data = encoded.tobytes()
    write_file(target, mark_png(data, made) if made and target.suffix.lower() == ".png" else data)
