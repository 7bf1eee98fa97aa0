"""Several distributions of OpenCV write the same files: what is imported is then a mixture.

pip installs opencv-python beside opencv-python-headless or the contrib ones without a word, the
last over the others, and removing one removes files of all.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

_NAME = re.compile(r"(opencv_(?:contrib_)?python(?:_headless)?)-([^-]+)\.dist-info", re.IGNORECASE)
_REMOVE = (
    "pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python "
    "opencv-contrib-python-headless"
)
_REMEDY = f"keep one: {_REMOVE}, then pip install the one that you want"
_HEADLESS = (
    "the system lacks a library, as servers without a display do: take the OpenCV that has no "
    f"windows, {_REMOVE}, then pip install opencv-python-headless"
)


def distributions() -> list[str]:
    """Name and version of the distributions of OpenCV whose files lie over each other.

    Empty unless there are several. Those in other folders of the path with a ``cv2`` of their own,
    as a system's beside an environment's, are hidden by the first and do no harm; nor do the names
    that conda writes for its one package.
    """
    found: list[str] = []
    has_files = False
    for folder in dict.fromkeys(sys.path):
        try:
            entries = os.listdir(folder or ".")
        except OSError:
            continue
        if "cv2" in entries:
            if has_files:
                continue
            has_files = True
        for entry in entries:
            match = _NAME.fullmatch(entry)
            if match and not _is_of_conda(Path(folder, entry)):
                found.append(f"{match[1].lower().replace('_', '-')} {match[2]}")
    return sorted(found) if len(found) > 1 else []


def _is_of_conda(metadata: Path) -> bool:
    try:
        return (metadata / "INSTALLER").read_text(encoding="utf-8").strip() == "conda"
    except OSError:
        return False


def check_opencv() -> None:
    """Check that OpenCV can be imported, and is a single distribution.

    Raises:
        ImportError: If it cannot be imported, or in part only.

    Warns:
        RuntimeWarning: If several distributions lie over each other.
    """
    several = distributions()
    clash = f"{' and '.join(several)} are installed over each other; {_REMEDY}" if several else ""
    try:
        import cv2

        is_whole = hasattr(cv2, "error") and hasattr(cv2, "imread")
    except (ImportError, AttributeError) as error:
        if find_spec("cv2") is None:
            raise
        remedy = _HEADLESS if "cannot open shared object file" in str(error) else _REMEDY
        raise ImportError(f"OpenCV cannot be imported ({error}); {clash or remedy}") from error
    if not is_whole:
        raise ImportError(f"OpenCV is there in part only; {clash or _REMEDY}")
    if clash:
        warnings.warn(clash, RuntimeWarning, stacklevel=2)


check_opencv()
