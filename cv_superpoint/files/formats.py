"""What a file is by its ending and its first bytes, and the mark of the pictures that we drew."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from cv_superpoint.files.names import AnyPath


def _endings(text: str) -> frozenset[str]:
    return frozenset(f".{each}" for each in text.split())


SUFFIXES = _endings(
    "avif bmp dib exr gif hdr jfif jp2 jpe jpeg jpg pam pbm pfm pgm pic png pnm ppm pxm ras sr tif "
    "tiff webp"
)
"""Endings of the pictures that OpenCV reads, some of them only in some builds."""

RAW_SUFFIXES = _endings(
    "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f"
)
"""Endings of cameras' raw files, of which OpenCV reads the small preview at most."""

OTHER_SUFFIXES = _endings("heic heif hif j2c j2k jpc jpx jxl psd tga")
"""Endings of pictures that OpenCV does not read, or not everywhere."""

PICTURE_SUFFIXES = SUFFIXES | RAW_SUFFIXES | OTHER_SUFFIXES
"""What counts as a picture in a folder: what of it cannot be read is named, not passed over."""

_CONVERT = "which this OpenCV cannot decode; convert it to PNG or JPEG"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"....ftyp(hei|hev|mif1|msf1)", f"a HEIC picture, {_CONVERT}"),
    (rb"....ftypavi[fs]", f"an AVIF picture, {_CONVERT}"),
    (rb"....ftypcrx", "a camera's raw file; develop it to PNG or JPEG"),
    (rb"....ftyp", "a film; track reads films"),
    (rb"RIFF....AVI ", "a film; track reads films"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", f"a JPEG 2000 picture, {_CONVERT}"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", f"a JPEG XL picture, {_CONVERT}"),
    (rb"RIFF....WEBP", f"a WebP picture, damaged or one {_CONVERT}"),
    (rb"GIF8", f"a GIF picture, damaged or one {_CONVERT}"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", f"a TIFF picture, damaged or one {_CONVERT}"),
    (rb"IIU\0|IIR[OS]|FUJIFILMCCD-RAW", "a camera's raw file; develop it to PNG or JPEG"),
    (rb"8BPS", f"a Photoshop picture, {_CONVERT}"),
    (rb"\xff\xd8\xff", "a damaged JPEG picture; copy it again"),
    (rb"\x89PNG\r\n", "a damaged PNG picture; copy it again"),
    (rb"\0\x05\x16\x07", "what macOS keeps beside a picture, not the picture itself"),
    (rb"%PDF", "a PDF document; convert its pages to PNG or JPEG"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the picture itself; git lfs pull"),
    (rb"\s*(<!doctype html|<html)", "a web page: what it was downloaded from had no such picture"),
    (rb"\0{32}", "nothing but zeros: its copy was stopped; copy it again"),
)


def why_unreadable(data: bytes) -> str:
    """What a file is that OpenCV cannot decode, from its bytes."""
    if not data:
        return "the file is empty; copy it again"
    head = data[:64]
    for pattern, what in _SIGNATURES:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return what
    return "not a picture that OpenCV can read"


def why_refused(path: AnyPath) -> str | None:
    """Why a file must not be read as a picture though OpenCV finds one in it; None if it may."""
    suffix = Path(path).suffix.lower()
    if suffix in RAW_SUFFIXES:
        return (
            f"a camera's raw file ({suffix[1:].upper()}), of which OpenCV reads the small preview "
            "at most; develop it to PNG or JPEG"
        )
    return None


# ---- the mark of pictures that we drew ----

_PNG = b"\x89PNG\r\n\x1a\n"
_AFTER_HEADER = len(_PNG) + 25
"""A PNG's first chunk, its header, has 25 bytes: others may follow from here on."""


def mark_png(data: bytes, kind: str) -> bytes:
    """A PNG file that says that we made it, in a text chunk; its pixels stay as they are.

    Args:
        data: The file.
        kind: "drawing" (of keypoints or matches) or "panorama".
    """
    text = b"Software\0cv_superpoint " + kind.encode()
    chunk = len(text).to_bytes(4, "big") + b"tEXt" + text
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]


def mark_of(path: AnyPath) -> str:
    """The kind of a PNG file that :func:`mark_png` marked; empty for every other file."""
    if Path(path).suffix.lower() != ".png":
        return ""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_AFTER_HEADER + 48)
    except OSError:
        return ""
    found = re.match(rb"....tEXtSoftware\0cv_superpoint (\w+)", head[_AFTER_HEADER:], re.DOTALL)
    return found[1].decode() if found else ""
