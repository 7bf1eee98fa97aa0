"""What a command says when it fails: one line for what a user can meet, none for our own faults."""

from __future__ import annotations

import errno
import re

import cv2

from cv_superpoint.files.remedies import REMEDIES

_PARTIAL = re.compile(r"(\.\d+)*\.part(\.\w+)?$")
"""The ending of a file that takes its real name only when it is whole."""
_OPENCV = re.compile(r"error: \((-?\d+):[^)]*\) (.*) in function '(.*)'", re.DOTALL)
_NO_MEMORY = "-4"
"""OpenCV's ``Error::StsNoMem``."""


def explain(error: BaseException) -> str | None:
    """The error in one line that tells the remedy; None for a fault of the program.

    Faults of the program are TypeError, AssertionError, KeyError and their like, also where they
    are subclasses of what is explained: their traceback is what a report needs.
    """
    if isinstance(error, (NotImplementedError, RecursionError)):
        return None
    if isinstance(error, (ValueError, ImportError)):  # also FeatureError, which is a cv2.error too
        return one_line(error)
    if isinstance(error, cv2.error):
        return _opencv(error)
    if isinstance(error, MemoryError):
        return f"memory does not suffice ({one_line(error)}); {REMEDIES[errno.ENOMEM]}"
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, RuntimeError):
        return one_line(error)
    return None


def one_line(error: BaseException) -> str:
    """The error's message without line breaks; its class where it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _system(error: OSError) -> str:
    if error.errno is None:
        return one_line(error)
    said = error.strerror or one_line(error)
    # Of a rename, the second name is the one that the user gave.
    name = error.filename2 or error.filename
    where = "" if name is None else f"{_PARTIAL.sub('', str(name))}: "
    remedy = REMEDIES.get(error.errno)
    return f"{where}{said}" + (f"; {remedy}" if remedy else "")


def _opencv(error: cv2.error) -> str:
    # From the text: the attributes of cv2.error may be those of an earlier one.
    found = _OPENCV.search(str(error))
    if found is None:
        return f"OpenCV stops with {one_line(error)!r}; other pictures or options may do"
    code, said, function = found.groups()
    said = " ".join(said.split())
    remedy = REMEDIES[errno.ENOMEM] if code == _NO_MEMORY else "other pictures or options may do"
    return f"OpenCV stops in {function} ({said}); {remedy}"
