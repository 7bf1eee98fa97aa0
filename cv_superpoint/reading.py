"""Picture files as arrays; what is unreadable or cut short is an error, not a grey half."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cv_superpoint.files import replace_file
from cv_superpoint.image import ByteArray

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker inside a JPEG scan that is neither a stuffed byte nor a restart."""


class PictureError(ValueError):
    """A picture cannot be read; the message names the file and tells the remedy."""


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
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror or error})") from error
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
        raise PictureError(f"{path}: not a picture that OpenCV can read")
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


def list_pictures(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, str]]:
    """Files and the pictures in folders, with their names relative to the folder named.

    Args:
        paths: Files, taken whatever their ending, and folders, searched with their subfolders.

    Returns:
        Path and name with "/" of each; a folder's are sorted.

    Raises:
        PictureError: If there is no such file or folder, or a folder without pictures.
    """
    found: list[tuple[Path, str]] = []
    for each in map(Path, paths):
        if not each.is_dir():
            if not each.exists():
                raise PictureError(f"{each}: there is no such file or folder")
            found.append((each, each.name))
            continue
        inside = sorted(
            (name.relative_to(each).as_posix(), name)
            for name in each.rglob("*")
            if name.suffix.lower() in SUFFIXES and name.is_file()
        )
        if not inside:
            raise PictureError(f"{each}: there is no picture in this folder")
        found += [(path, name) for name, path in inside]
    return found


def write_picture(path: str | os.PathLike[str], picture: ByteArray) -> None:
    """Write a picture in the format of its ending, in one step, making its folder.

    Raises:
        PictureError: If the ending is unknown or the file cannot be written.
    """
    target = Path(path)
    try:
        done, data = cv2.imencode(target.suffix or ".", picture)
    except cv2.error:
        done = False
    if not done:
        raise PictureError(f"{target}: no picture format that OpenCV writes; try {target.stem}.png")
    write_bytes(target, data.tobytes())


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file in one step, making its folder.

    Raises:
        PictureError: If it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, data)
    except OSError as error:
        raise PictureError(
            f"{target}: cannot be written ({error.strerror or error}); is there room on the disk?"
        ) from error
