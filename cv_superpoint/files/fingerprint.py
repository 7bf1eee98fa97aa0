"""Whether a file is still the one that was read."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass

from cv_superpoint.files.names import AnyPath

SETTLED = 3.0
"""Seconds after which a file system gives another change another time."""
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """The content of a file, and how the system tells that it was not written to since.

    Attributes:
        sha256: SHA-256 of the content, hexadecimal.
        size: Size in bytes.
        mtime_ns: Time of the last change that the system states.
        ctime_ns: The same, which no program can set; 0 if the file was written so shortly before
            that a further change might have the same time.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int

    def describes(self, path: AnyPath) -> bool:
        """Whether the file has this content still; it is read only if its times or size differ.

        Raises:
            OSError: If it cannot be read.
        """
        now = os.stat(path)
        if self.ctime_ns and (self.size, self.mtime_ns, self.ctime_ns) == (
            now.st_size,
            now.st_mtime_ns,
            now.st_ctime_ns,
        ):
            return True
        return self.size == now.st_size and self.sha256 == sha256_of(path)


def fingerprint(path: AnyPath) -> Fingerprint:
    """The fingerprint of a file; take it before the file is read for what it is needed for.

    Raises:
        OSError: If it cannot be read.
    """
    # The times first: a change while the content is read shows in them later.
    found = os.stat(path)
    is_fresh = abs(time.time() - found.st_ctime) < SETTLED
    return Fingerprint(
        sha256=sha256_of(path),
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=0 if is_fresh else found.st_ctime_ns,
    )


def sha256_of(path: AnyPath) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
