"""What the command lines without stages have in common: options in, exit status out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from cv_superpoint.cli.output import show_every_character

Config = TypeVar("Config")


def run_command(
    options: type[Config], work: Callable[[Config], object], prog: str, args: Sequence[str] | None
) -> int:
    """Read the options and do the work; input that cannot be used is said in one line.

    Args:
        options: A configuration; its docstring is the help.
        work: What to do with it; raises ValueError or OSError where the user can help.
        prog: The command's name.
        args: Arguments; those of the process if None.

    Returns:
        Exit status: 0, or 2 where the input cannot be used.
    """
    show_every_character()
    try:
        work(tyro.cli(options, args=args, prog=prog))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
