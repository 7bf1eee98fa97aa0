"""Wrong usage in one line: tyro draws it as a box of many."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from difflib import get_close_matches
from typing import NoReturn

from cv_superpoint.cli.output import WRONG_USAGE, Output

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RULE = re.compile(r"[─-]{4,}")
_FRAME = "╭╮╰╯│ "


@contextmanager
def said_in_one_line(program: str) -> Iterator[None]:
    """Read a command line; what is wrong with it is said as every other error.

    Args:
        program: Program whose help the line names, such as "cv-superpoint match".

    Raises:
        SystemExit: The code is 2 for wrong usage, after its message, and 0 after a help.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        refuse(one_line(said.getvalue()), program)
    if said.getvalue():
        print(said.getvalue(), end="", file=sys.stderr)


def refuse(text: str, program: str) -> NoReturn:
    """Say what is wrong, and where to read on.

    Raises:
        SystemExit: The code is 2.
    """
    Output(json=False).fail(f"{text}; {program} --help tells more")
    raise SystemExit(WRONG_USAGE) from None


def unknown_command(name: str, commands: Iterable[str], program: str) -> NoReturn:
    """Say that there is no such command, and which is meant.

    Raises:
        SystemExit: The code is 2.
    """
    commands = list(commands)
    near = get_close_matches(name, commands, 1)
    meant = f", did you mean {near[0]}?" if near else f"; commands are {', '.join(commands)}"
    refuse(f"no command is called {name!r}{meant}", program)


def one_line(box: str) -> str:
    """What tyro's box says is wrong, with the options that are near what was meant.

    A box has a title and parts between lines: what is wrong, what may be meant, where to read on.
    Its frame is drawn in characters of Unicode where standard output has them.
    """
    rows = [row.strip(_FRAME) for row in _COLOURS.sub("", box).splitlines()]
    parts: list[list[str]] = [[]]
    for row in rows:
        if _RULE.search(row):  # alone, or behind the title
            parts.append([])
        elif row:
            parts[-1].append(row)
    said = [part for part in parts if part][0 if "╭" in box else 1 :]
    if not said:
        return " ".join(box.split())
    text = " ".join(said[0]).removeprefix("Error parsing ")
    for part in said[1:]:
        if part[0].startswith("Perhaps you meant"):
            options = [row.split()[0].rstrip(",") for row in part if row.startswith("--")]
            text += f"; perhaps you meant {' or '.join(dict.fromkeys(options))}"
    return text[:1].lower() + text[1:].rstrip(". ")
