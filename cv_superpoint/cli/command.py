"""What the command lines without stages have in common: options in, exit status out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from cv_superpoint.cli.explain import explain
from cv_superpoint.cli.output import print_line, settle, show_every_character

Config = TypeVar("Config")


def run_command(
    options: type[Config],
    work: Callable[[Config], int | None],
    prog: str,
    args: Sequence[str] | None,
) -> int:
    """Read the options and do the work; input that cannot be used is said in one line.

    Args:
        options: A configuration; its docstring is the help.
        work: What to do with it; what it raises is said as the commands of cv-superpoint say it.
            Returns the exit status, None for 0.
        prog: The command's name.
        args: Arguments; those of the process if None.

    Returns:
        Exit status: 0, 2 where the input cannot be used, 3 where some of it was left out.
    """
    show_every_character()
    try:
        return work(tyro.cli(options, args=args, prog=prog)) or 0
    except BrokenPipeError:  # of the help or of the tables, as in --help | head
        return 0
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print_line(f"error: {line}", sys.stderr)
        return 2
    finally:
        settle()
