"""Compiled models on disk, so that the second process starts faster."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from pathlib import Path

from cv_superpoint.files import replace_file

ENVIRONMENT = "CV_SUPERPOINT_CACHE"
"""Names another folder; empty means no cache."""
MOST_FILES = 32
"""The least recently written go when there are more."""

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """The user's cache folder of this package; None where caching is off."""
    named = os.environ.get(ENVIRONMENT)
    if named is not None:
        return Path(named).expanduser() if named else None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return base.expanduser() / "cv_superpoint"
    except RuntimeError:  # there is no home
        return None


class CachedFile:
    """One compiled model: what was stored under all of the key's parts, if anything was.

    A cache that cannot be read or written is no error: the model is compiled again.

    Args:
        kind: End of the file's name.
        key: All that the content depends on: weights, versions, processor, precision.
    """

    def __init__(self, kind: str, *key: str) -> None:
        folder = cache_folder()
        name = hashlib.sha256("\n".join((kind, *key)).encode()).hexdigest()[:32]
        self._path = None if folder is None else folder / f"{name}.{kind}"

    def read(self) -> bytes | None:
        """The content, None if there is none."""
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        # The first bytes are the checksum of the rest: half a disk's worth of zeros is no model.
        checksum, content = data[:32], data[32:]
        return content if hashlib.sha256(content).digest() == checksum else None

    def write(self, content: bytes) -> None:
        """Store the content in one step, and drop the oldest files of the folder."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, hashlib.sha256(content).digest() + content)
            files = [file for file in self._path.parent.iterdir() if file.suffix != ".part"]
            for file in sorted(files, key=_age)[MOST_FILES:]:
                with contextlib.suppress(OSError):
                    file.unlink()
        except OSError as error:
            _LOG.info("the model cache %s cannot be written: %s", self._path, error)


def _age(file: Path) -> float:
    try:
        return -file.stat().st_mtime
    except OSError:  # another process dropped it
        return 0.0
