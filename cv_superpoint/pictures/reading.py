"""Picture files as arrays; what is unreadable or cut short is an error, not a grey half."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from cv_superpoint.errors import PictureError
from cv_superpoint.files import write_file
from cv_superpoint.files.entries import read_file
from cv_superpoint.files.formats import mark_png, why_unreadable
from cv_superpoint.files.names import is_text
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.completeness import is_cut_short, with_end
from cv_superpoint.pictures.orientation import orientation, turn, without_orientation
from cv_superpoint.pictures.pixels import decode, why_unread

Made = Literal["drawing", "panorama"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture file that was read.

    Attributes:
        pixels: (H, W, 3) BGR or (H, W) grey, uint8.
        orientation: Orientation by which they were turned, 1 to 8 as in EXIF; 1 where they are as
            stored.
        values: How values of other types than uint8 became uint8; empty where they were.
        damage: What the file lacks although every row is there; empty for a whole file.
    """

    pixels: ByteArray
    orientation: int = 1
    values: str = ""
    damage: str = ""

    @property
    def turned(self) -> bool:
        """Whether the pixels are not as stored."""
        return self.orientation > 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the file, as notes beside the results."""
        return tuple(note for note in (self.damage, self.values) if note)


def load_picture(
    path: str | os.PathLike[str], *, grey: bool = False, upright: bool = True
) -> Picture:
    """Read a picture file.

    Args:
        path: File in any format that OpenCV reads, with values of any type.
        grey: Decode to grey.
        upright: Turn as the file's orientation says, as viewers and ``cv2.imread`` do. COLMAP and
            hloc take pixels as stored.

    Raises:
        PictureError: If it is missing, no picture, or cut short.
    """
    data = read_file(path)
    damage = ""
    if is_cut_short(data):
        whole = with_end(data)
        if whole is None:
            raise PictureError(f"{path}: the file is cut short; copy it again")
        data, damage = whole, "the file lacks its end mark, but every row is there"
    turns = orientation(data) if upright else 1
    try:
        decoded = decode(without_orientation(data), grey=grey)
    except cv2.error as error:
        raise PictureError(f"{path}: OpenCV refuses it ({error.err})") from error
    if decoded is None:
        raise PictureError(f"{path}: {why_unread(data) or why_unreadable(data)}")
    pixels, values = decoded
    return Picture(pixels=turn(pixels, turns), orientation=turns, values=values, damage=damage)


def read_picture(
    path: str | os.PathLike[str], *, grey: bool = False, upright: bool = True
) -> ByteArray:
    """The pixels of :func:`load_picture`; its notes are logged as warnings."""
    picture = load_picture(path, grey=grey, upright=upright)
    for note in picture.notes:
        logging.getLogger(__name__).warning("%s: %s", path, note)
    return picture.pixels


def picture_or_why(
    path: str | os.PathLike[str], *, grey: bool = False, upright: bool = True
) -> Picture | PictureError:
    """:func:`load_picture`, or its error as a value, for long lists that go on after one."""
    try:
        return load_picture(path, grey=grey, upright=upright)
    except PictureError as error:
        return error


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
    check_ending(target)
    try:
        done, encoded = cv2.imencode(target.suffix, picture)
    except cv2.error:
        done = False
    if not done:
        height, width = picture.shape[:2]
        raise PictureError(
            f"{target}: OpenCV cannot write {width} x {height} pixels in the format of its name; "
            f"try {target.stem}.png"
        )
    data = encoded.tobytes()
    write_file(target, mark_png(data, made) if made and target.suffix.lower() == ".png" else data)


def check_ending(path: str | os.PathLike[str]) -> None:
    """Check that a picture can be written under a name, before the work for it.

    Raises:
        PictureError: If it is not.
    """
    suffix = Path(path).suffix
    if not (suffix and is_text(suffix) and cv2.haveImageWriter(suffix)):
        raise PictureError(
            f"{os.fspath(path)}: no picture format that OpenCV writes; try {Path(path).stem}.png"
        )
