"""What the programs have in common: a tree of commands, one of them chosen, an exit code out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Protocol

import tyro

from cv_superpoint.cli.arguments import positionals_first
from cv_superpoint.cli.explain import explain, one_line
from cv_superpoint.cli.output import (
    DONE,
    FAILED,
    STOPPED,
    WRONG_USAGE,
    Output,
    settle,
    show_every_character,
)


class Command(Protocol):
    """Options of a command, and its work."""

    def run(self, output: Output) -> int:
        """Do it; returns the exit code."""
        ...


def tree(commands: Mapping[str, type]) -> Any:
    """The type that :func:`tyro.cli` reads a command and its options into.

    Args:
        commands: Dataclass of each command by its name; its docstring is the help.
    """
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)]
        for name, kind in commands.items()
    ]
    return reduce(or_, kinds)


def choose(
    commands: Mapping[str, type],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str,
    config: Sequence[Any] = (),
) -> Any:
    """The command that the arguments name, with its options.

    Args:
        commands: See :func:`tree`.
        arguments: Of the process.
        prog: The program's name.
        description: Of the program, for its help.
        config: Markers of ``tyro.conf``.

    Raises:
        SystemExit: With 2 for wrong usage, which has been said; with 0 after the help.
    """
    return tyro.cli(
        tree(commands),
        args=positionals_first(arguments, commands),
        prog=prog,
        description=description,
        config=config,
    )


def run_program(parse: Callable[[], Command]) -> int:
    """Choose a command and run it.

    Args:
        parse: Reads the command line. What the command raises is said in one line if a user can
            meet it, and keeps its traceback if it is a fault of the program.

    Returns:
        Exit code: 0 done, 1 an error or no result, 2 wrong usage, 3 done, but some inputs were
        left out, 130 stopped by Ctrl-C.
    """
    show_every_character()
    try:
        try:
            command = parse()
        except BrokenPipeError:  # of the help, as in --help | head
            return DONE
        except ValueError as error:  # of options that tyro does not say itself
            Output(json=False).fail(one_line(error))
            return WRONG_USAGE
        return _run(command)
    finally:
        settle()


def _run(command: Command) -> int:
    output = Output(json=getattr(command, "json", False))
    try:
        return command.run(output)
    except KeyboardInterrupt:
        output.fail("stopped")
        return STOPPED
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        output.fail(line)
        return FAILED
