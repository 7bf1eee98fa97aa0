"""What a command prints: text for people, one JSON object for machines, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

DONE, FAILED, PARTLY, STOPPED = 0, 1, 3, 130


class Output:
    """Standard output and standard error of a command.

    Args:
        json: Print one JSON object at the end instead of text.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.json:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def result(self, record: dict[str, Any]) -> None:
        """The object for machines."""
        if self.json:
            print(json.dumps(record), flush=True)

    def fail(self, text: str) -> None:
        """An error in one line."""
        print(f"error: {text}", file=sys.stderr, flush=True)
        self.result({"error": text})

    def progress(self, items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
        """The items, with a bar on a terminal's standard error."""
        if self.json or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        # Not the default console: standard output may go into a file.
        yield from track(items, what, total=total, console=Console(stderr=True), transient=True)
