"""Optional libraries, named with the remedy where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingExtraError(ImportError):
    """An optional library is not installed; the message says how to install it."""


def require(module: str, extra: str) -> Any:
    """The module, or an error that names the extra that brings it.

    Args:
        module: Name to import.
        extra: Of this package, such as "sfm".

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs {module}, which is not installed ({error}); "
            f'install it with: pip install "cv-superpoint[{extra}]"'
        ) from error
