"""The settings that a result was made with, beside it: a later run goes on with the same only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cv_superpoint.errors import SuperPointError
from cv_superpoint.files.writing import write_file


class RecordError(SuperPointError):
    """A record cannot be read."""


def as_stored(settings: Any) -> Any:
    """Settings as JSON gives them back: lists in the place of tuples, names as text."""
    return json.loads(json.dumps(settings))


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a file, None if there is none.

    Raises:
        RecordError: If it is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise RecordError(f"{path} is damaged ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path} is damaged (no record)")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in one step.

    Raises:
        WriteError: If it cannot be written.
    """
    write_file(path, json.dumps(record, indent=1).encode())


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two settings, each difference in words: "nms_radius was 4, is 5".

    Args:
        before: Settings that :func:`read_record` gives.
        now: Such settings, or values that :func:`as_stored` takes.
        name: Name of both; fields of fields are named with dots.
    """
    now = as_stored(now)
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in before if key not in now)]:
            inside = f"{name}.{key}" if name else key
            yield from differences(before.get(key), now.get(key), inside)
    elif before != now:
        yield f"{name} was {_text(before)}, is {_text(now)}"


def _text(value: Any) -> str:
    return "not set" if value is None else str(value)
