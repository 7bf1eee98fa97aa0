"""What the programs have in common: a tree of commands, one of them chosen, an exit code out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tyro

from cv_superpoint.cli.arguments import positionals_first
from cv_superpoint.cli.explain import explain, one_line
from cv_superpoint.cli.help import asked, overview, show
from cv_superpoint.cli.output import (
    DONE,
    FAILED,
    STOPPED,
    WRONG_USAGE,
    Output,
    print_line,
    settle,
    show_every_character,
)
from cv_superpoint.cli.usage import said_in_one_line, unknown_command


class Command(Protocol):
    """Options of a command, and its work."""

    def run(self, output: Output) -> int:
        """Do it; returns the exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class Program:
    """A tree of commands.

    Attributes:
        name: What a user types before a command.
        description: Description of the program, for its help.
        commands: Dataclass or function of each command by its name; its docstring is the help.
        examples: What command lines do, by the words after the program's name.
        config: Markers of ``tyro.conf``.
    """

    name: str
    description: str
    commands: Mapping[str, Any]
    examples: Mapping[str, str]
    config: tuple[Any, ...] = ()

    def choose(self, arguments: Sequence[str]) -> Any:
        """The command that the arguments name, with its options.

        Raises:
            SystemExit: The code is 2 for wrong usage, after its message, and 0 after the help.
        """
        self.help_if_asked(arguments)
        name = arguments[0]
        program = f"{self.name} {name}"
        with said_in_one_line(program):
            return tyro.cli(
                self.commands[name],
                args=positionals_first(arguments, self.commands)[1:],
                prog=program,
                config=self.config,
            )

    def help_if_asked(self, arguments: Sequence[str]) -> None:
        """Print the help that is asked for, or the way where no command is named.

        Raises:
            SystemExit: The code is 0 after the help, and 2 if no command or an unknown one is
                named.
        """
        word = asked(arguments)
        if not arguments or arguments[0] == word:
            print_line(self.overview(), sys.stdout)
            raise SystemExit(DONE if arguments else WRONG_USAGE)
        name = arguments[0]
        if name not in self.commands:
            unknown_command(name, self.commands, self.name)
        if word is not None:
            every = word == "--help-all"
            kind = self.commands[name]
            show(kind, prog=self.name, name=name, every=every, config=self.config)

    def overview(self) -> str:
        """The program's own help."""
        return overview(
            self.commands, prog=self.name, description=self.description, examples=self.examples
        )


def run_program(parse: Callable[[], Command]) -> int:
    """Choose a command and run it.

    Args:
        parse: Function that reads the command line. What the command raises is said in one line if
            a user can meet it, and keeps its traceback if it is a fault of the program.

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
