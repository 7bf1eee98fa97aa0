"""What a command prints: text for people, one JSON object for machines, progress on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from cv_superpoint.pictures.reading import Picture

from cv_superpoint.files.names import shown

T = TypeVar("T")

DONE, FAILED, WRONG_USAGE, PARTLY, STOPPED = 0, 1, 2, 3, 130


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
            print_line(text, sys.stdout)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        print_line(f"warning: {shown(text)}", sys.stderr)

    def result(self, record: dict[str, Any]) -> None:
        """The object for machines."""
        if self.json:
            print_line(json.dumps(record), sys.stdout)

    def fail(self, text: str) -> None:
        """An error in one line."""
        print_line(f"error: {shown(text)}", sys.stderr)
        self.result({"error": text})

    def picture(self, path: object, picture: Picture) -> dict[str, Any]:
        """Tell what was done to a picture file, in text and in the record that comes back."""
        if picture.damage:
            self.warn(f"{path}: {picture.damage}")
        if picture.values:
            self.say(f"{shown(str(path))}: {picture.values}")
        return {"image": str(path), "turned": picture.turned, "notes": list(picture.notes)}

    def left_out(self, pictures: Iterable[object], own: Sequence[object] = ()) -> None:
        """A line for each picture that is not read, and one for what is no input at all."""
        for each in pictures:
            self.warn(f"left out: {each}")
        if own:
            more = f" and {len(own) - 1} more" if len(own) > 1 else ""
            self.say(f"passed over what cv-superpoint wrote itself: {shown(str(own[0]))}{more}")

    def progress(self, items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
        """The items, with a bar on a terminal's standard error."""
        if self.json or not is_terminal():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        # Not the default console: standard output may go into a file.
        yield from track(items, what, total=total, console=Console(stderr=True), transient=True)


def is_terminal() -> bool:
    """Whether standard error is a terminal, on which a bar may move."""
    return sys.stderr is not None and sys.stderr.isatty()


def print_line(text: str, stream: TextIO | None) -> None:
    """Print lines; a reader that has closed its end, as after ``| head``, is no error."""
    if stream is None:  # closed before we started
        return
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        mute(stream)


def show_every_character() -> None:
    """Let both streams write what their encoding lacks as an escape: it must stop no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def settle() -> None:
    """Write what Python still holds of both streams; without a reader it goes to nowhere."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except BrokenPipeError:
                mute(stream)


def mute(stream: TextIO) -> None:
    """Send a stream whose reader has gone to nowhere: else Python complains when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no stream of the system, as in tests
        pass
