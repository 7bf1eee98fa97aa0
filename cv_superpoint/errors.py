"""The one exception class of the OpenCV face."""

from __future__ import annotations

import cv2

BAD_ARGUMENT = -5
"""OpenCV's ``Error::StsBadArg``."""
ASSERTION_FAILED = -215
"""OpenCV's ``Error::StsAssert``."""


class FeatureError(cv2.error, ValueError):
    """What ``cv2`` would raise: caught by ``except cv2.error`` and by ``except ValueError``.

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
