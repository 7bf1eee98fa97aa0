"""One entry of a folder: whether it is a file to read, and its bytes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cv_superpoint.errors import PictureError
from cv_superpoint.files.formats import why_refused
from cv_superpoint.files.guard import Identity
from cv_superpoint.files.names import AnyPath

A_PIPE = "a pipe, not a file"
_KINDS = (
    (stat.S_ISDIR, "a folder, not a file"),
    (stat.S_ISFIFO, A_PIPE),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)


def look(path: AnyPath) -> Identity | str:
    """Which file a path leads to, or why there is none to read: the reason without the path."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return _why_missing(path, error)
    if stat.S_ISREG(found.st_mode):
        return found.st_dev, found.st_ino
    return next((name for test, name in _KINDS if test(found.st_mode)), "no file")


def read_file(path: AnyPath) -> bytes:
    """The bytes of a file that is to be decoded as a picture.

    Raises:
        PictureError: If it is missing, no file (reading a pipe without a writer would never end),
            cannot be read, or holds a preview that would be taken for the picture.
    """
    what = look(path)
    why = what if isinstance(what, str) else why_refused(path)
    if why:
        raise PictureError(f"{os.fspath(path)}: {why}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        why = f"cannot be read ({error.strerror or error})"
        raise PictureError(f"{os.fspath(path)}: {why}") from error


def _why_missing(path: AnyPath, error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ELOOP:
        return "a link that leads to itself"
    if os.path.islink(path):
        return f"a link to {os.readlink(path)}, which is not there"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "there is no such file or folder"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"
