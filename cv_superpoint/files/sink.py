"""A file for libraries that do not survive an error of writing."""

from __future__ import annotations

import os
from typing import Any

from cv_superpoint.files.names import AnyPath


class Sink:
    """A new file whose errors of writing are raised, or kept once :attr:`keeps_errors` is set.

    The HDF5 library ends the process with a crash where it cannot write what is left when a file
    is closed, as on a full disk. Here it closes a file that takes everything, and the error is
    known afterwards.

    Args:
        path: Path of the file, which is made or emptied.

    Attributes:
        error: The first of writing; None if there was none.
        keeps_errors: Whether writing goes on after one, into memory.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, path: AnyPath) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = self._size = 0
        self._kept: list[tuple[int, bytes]] = []
        self.error: OSError | None = None
        self.keeps_errors = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def write(self, data: Any) -> int:
        """Write all bytes; returns their number."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += os.pwrite(self._file, view[done:], self._at + done)
        except OSError as error:
            self.error = self.error or error
            if not self.keeps_errors:
                raise
            self._kept.append((self._at, bytes(view)))
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def readinto(self, target: Any) -> int:
        """Fill a buffer from the place on; returns the number of bytes."""
        view = memoryview(target).cast("B")
        data = os.pread(self._file, len(view), self._at)
        view[:] = data.ljust(len(view), b"\0")
        for start, kept in self._kept:
            first, last = max(start, self._at), min(start + len(kept), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = kept[first - start : last - start]
        self._at += len(view)
        return len(view)

    def read(self, size: int) -> bytes:
        """The next bytes."""
        target = bytearray(max(0, min(size, self._size - self._at)))
        self.readinto(target)
        return bytes(target)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file; returns its size."""
        self._size = self._at if size is None else size
        try:
            os.ftruncate(self._file, self._size)
        except OSError as error:
            self.error = self.error or error
            if not self.keeps_errors:
                raise
        return self._size

    def flush(self) -> None:
        """Nothing: every write goes to the system."""

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If something could not be written.
        """
        os.close(self._file)
        if self.error is not None:
            raise self.error
