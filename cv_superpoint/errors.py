"""Exception classes, and the error of a missing package."""

from __future__ import annotations

import importlib
from typing import Any

import cv2

BAD_ARGUMENT = -5
"""OpenCV's ``Error::StsBadArg``."""
ASSERTION_FAILED = -215
"""OpenCV's ``Error::StsAssert``."""
NOT_IMPLEMENTED = -213
"""OpenCV's ``Error::StsNotImplemented``, of detectors without descriptors."""


class SuperPointError(ValueError):
    """Base class of this package's errors; the message says what to do.

    A missing package is an ``ImportError`` instead.

    ::

        SuperPointError            is a ValueError
            FeatureError           is a cv2.error: an argument, an option, a device
                WeightsError       weights that cannot be loaded
            PictureError           a picture that cannot be read
            VideoError             a video that cannot be read
            StitchError            pictures that do not make a panorama
            ExtractError           a run over a folder that cannot start or continue
            StoreError             a database of another program that does not fit
            RecordError            the record of a run that is damaged
            OverwriteError         a target that is read, or was not made by the command
            WriteError             is an OSError: a file that cannot be written
    """


class FeatureError(cv2.error, SuperPointError):
    """An argument, an option or a device is not valid.

    ``except cv2.error`` and ``except ValueError`` both catch it.

    Attributes:
        code: OpenCV's error code.
        err: The message, as in ``cv2.error``.
    """

    def __init__(self, message: str, code: int = BAD_ARGUMENT) -> None:
        super().__init__(message)
        self.code = code
        self.err = self.msg = message
        self.func = self.file = ""
        self.line = -1


class PictureError(SuperPointError):
    """A picture cannot be read; the message names the file and the remedy."""


def require(package: str, extra: str) -> Any:
    """Import a package that only some installations have.

    Args:
        package: Name by which it is imported.
        extra: Extra of cv-superpoint that installs it; empty if cv-superpoint itself does.

    Raises:
        ImportError: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # it is there, but something that it needs is not
        what = f'"cv-superpoint[{extra}]"' if extra else package
        raise ImportError(
            f"this needs the package {package!r}, which is not installed; pip install {what}"
        ) from error
