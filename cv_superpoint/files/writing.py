"""Writing files so that a reader never sees half of one and an error leaves the old one."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cv_superpoint.errors import SuperPointError
from cv_superpoint.files.remedies import REMEDIES

PARTIAL = ".part"
"""Part of the name of every unfinished file."""

_NAME_ERRORS = (
    errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP
)  # fmt: skip


_PARTIAL_NAME = re.compile(
    rf"\.(?P<host>[0-9a-f]{{8}})-(?P<process>\d+)-[0-9a-f]{{8}}{re.escape(PARTIAL)}(\.\w+)?"
)
_A_DAY = 24 * 3600
_LARGE = 2**20
"""Bytes, such as a network's; to look through the folder takes less time than to write them."""


class WriteError(OSError, SuperPointError):
    """A file cannot be written; the message names it and tells the remedy.

    Attributes:
        errno: Error number of the system, None where the system did not refuse it.
    """

    def __init__(self, path: str | os.PathLike[str], why: str, number: int | None = None) -> None:
        super().__init__(f"{os.fspath(path)}: {why}")
        self.errno = number

    @property
    def is_about_the_name(self) -> bool:
        """Whether a file of another name could be written to the same folder."""
        return self.errno in _NAME_ERRORS


@contextmanager
def replacing(
    path: str | os.PathLike[str], suffix: str = "", *, large: bool = False
) -> Iterator[Path]:
    """A file to fill, which takes the place of ``path`` in one step at the end of the block.

    If the block ends with an error, the file goes and what was there before stays. Threads and
    processes may write the same path at once. A link is followed: the file that it leads to is
    replaced. The new file has the permissions of the old one.

    Args:
        path: Target; its folder exists.
        suffix: Name's end that the file to fill must have, where its writer needs one.
        large: Remove first what killed processes left in the folder.

    Yields:
        The file to fill, in the same folder, with a short name: the target's own name may be as
        long as the disk allows.

    Raises:
        WriteError: If the target cannot be replaced, before the block where that is known, or if
            the system refuses to write the file to fill.
    """
    try:
        target = Path(os.path.realpath(path, strict=False))
        before = _regular_or_none(path, target)
    except OSError as error:
        raise _as_write_error(path, error) from error
    if large:
        sweep(target.parent)
    part = target.with_name(f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}{suffix}")
    try:
        yield part
        if before is not None:
            shutil.copymode(target, part)
        _flush(part)
        os.replace(part, target)
    except WriteError:
        raise
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) != str(part):
            raise  # of another file
        raise _as_write_error(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the unfinished files that killed processes left in a folder.

    A process of this machine is asked for by its number; what another machine left is removed when
    it was not written to for a day.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := _PARTIAL_NAME.fullmatch(entry.name)) is None:
                continue
            with suppress(OSError):
                is_old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _A_DAY
                if is_old or (found["host"] == _host() and not _is_alive(int(found["process"]))):
                    os.unlink(entry)


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one step; threads and processes may write the same one at once.

    Before a large one goes what killed processes left in the folder.

    Args:
        path: Target; its folder exists.
        data: The whole content.

    Raises:
        WriteError: If it cannot be written; what was there before stays.
    """
    with replacing(path, large=len(data) >= _LARGE) as part:
        part.write_bytes(data)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """:func:`replace_file`, which makes the folder where it is missing."""
    make_folder(Path(path).parent)
    replace_file(path, data)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those that it lies in.

    Raises:
        WriteError: If it cannot be made, or is a file.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        why = f"{os.strerror(errno.ENOTDIR)}; {REMEDIES[errno.ENOTDIR]}"
        raise WriteError(path, why, errno.ENOTDIR) from error
    except OSError as error:
        raise _as_write_error(path, error) from error


def _regular_or_none(named: str | os.PathLike[str], target: Path) -> os.stat_result | None:
    """What is at the target; None if nothing is."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(found.st_mode):
        raise WriteError(named, "a pipe, a socket or a device; name a file")
    return found


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def _flush(path: Path) -> None:
    """Write the content to the disk before the name: a power cut leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _as_write_error(path: str | os.PathLike[str], error: OSError) -> WriteError:
    if isinstance(error, WriteError):
        return error
    said = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0)
    why = f"{said}; {remedy}" if remedy else f"cannot be written ({said})"
    return WriteError(path, why, error.errno)
