"""What ``--help`` prints: the few options that matter first, examples, and what is written.

``--help-all`` lists every option. Parsing is tyro's, and so is the drawing of the options.
"""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_origin, get_type_hints

import tyro

from cv_superpoint.cli.arguments import is_positional

WIDTH = 100
"""Columns at most."""
LONG_NAME = 48
"""Characters of a name from which on it has a line of its own."""


@dataclass(frozen=True, kw_only=True)
class Help:
    """What the help of a command tells beside its options.

    Attributes:
        examples: Command lines without the program's name.
        results: What comes out, and what the files contain, a line for each.
        first: Fields that ``--help`` lists, also of options within options; None lists all.
    """

    examples: tuple[str, ...]
    results: tuple[str, ...]
    first: tuple[str, ...] | None = None


def asked(arguments: Sequence[str]) -> str | None:
    """The word that asks for help, if there is one."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return next((word for word in words if word in ("-h", "--help", "--help-all")), None)


def overview(
    commands: Mapping[str, Any], *, prog: str, description: str, examples: Mapping[str, str]
) -> str:
    """The program's own help: where to start, and all commands.

    Args:
        commands: What does the work of each; the first line of its docstring is shown.
        prog: The program's name.
        description: Description of the program.
        examples: What command lines do, by the words after the program's name.
    """
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    lines = [f"usage: {prog} COMMAND ...", "", *textwrap.wrap(description, width), ""]
    lines += _table({f"$ {prog} {words}".rstrip(): what for words, what in examples.items()}, width)
    lines += ["", "Commands:"]
    lines += _table({name: _summary(kind) for name, kind in commands.items()}, width)
    lines += ["", f"{prog} COMMAND --help shows the options of a command and what it writes."]
    return "\n".join(lines)


def show(kind: Any, *, prog: str, name: str, every: bool, config: Sequence[Any] = ()) -> None:
    """Print the help of a command.

    Args:
        kind: Dataclass or function that tyro reads the options into.
        prog: The program's name.
        name: Name of the command.
        every: List every option.
        config: Markers of ``tyro.conf``.

    Raises:
        SystemExit: The code is 0, after the help is printed.
    """
    told: Help | None = getattr(kind, "HELP", None)
    parts = [_description(kind)]
    if told is not None:
        parts.append("\n".join(["For example:", *(f"$ {prog} {each}" for each in told.examples)]))
        parts.append("\n".join(["What comes out:", *(f"- {each}" for each in told.results)]))
        if told.first is not None and not every:
            parts.append(f"{prog} {name} --help-all lists every option.")
    if dataclasses.is_dataclass(kind):
        if told is not None:
            kind = _shown(kind, None if every else told.first)
        config = (*config, tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    description = "\n\n".join(parts)
    tyro.cli(kind, args=["--help"], prog=f"{prog} {name}", description=description, config=config)


def _shown(kind: Any, first: tuple[str, ...] | None) -> Any:
    """The same dataclass, for its help only: fields that are not among the first are left out."""
    hints = get_type_hints(kind, include_extras=True)
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {"__annotations__": annotations, "__doc__": kind.__doc__}
    for each in dataclasses.fields(kind):
        hint, default = hints[each.name], each.default
        factory: Any = each.default_factory
        if (
            first is not None
            and dataclasses.is_dataclass(hint)
            and not set(first) & field_names(hint)
        ):
            hint = Annotated[hint, tyro.conf.Suppress]
        elif dataclasses.is_dataclass(hint):
            hint, default, factory = _shown_options(hint, default, factory, first)
        elif first is not None and each.name not in first and not is_positional(hint):
            hint = Annotated[hint, tyro.conf.Suppress]
        elif (default is None or isinstance(default, bool)) and get_origin(hint) is not Annotated:
            # The text tells what happens without it; "default: False" is no help.
            hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="")]
        annotations[each.name] = hint
        namespace[each.name] = dataclasses.field(default=default, default_factory=factory)
    made = type(kind.__name__, (kind,), {**namespace, "__post_init__": lambda self: None})
    return dataclass(frozen=True, kw_only=True)(made)


def _shown_options(
    kind: Any, default: Any, factory: Any, first: tuple[str, ...] | None
) -> tuple[Any, Any, Any]:
    """Options within options, their default, and what makes it."""
    made = _shown(kind, first)
    if default is not dataclasses.MISSING:
        default = _converted(default, made)
    if factory is dataclasses.MISSING:
        return made, default, factory
    return made, default, lambda: _converted(factory(), made)


def _converted(value: Any, kind: Any) -> Any:
    """The same options as another dataclass with these fields, also within options."""
    hints = get_type_hints(kind)
    values = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    for name, each in values.items():
        if dataclasses.is_dataclass(each) and dataclasses.is_dataclass(hints[name]):
            values[name] = _converted(each, hints[name])
    return kind(**values)


def field_names(kind: Any) -> set[str]:
    """Names of all fields, also of those within."""
    hints = get_type_hints(kind)
    within = (field_names(hint) for hint in hints.values() if dataclasses.is_dataclass(hint))
    return {each.name for each in dataclasses.fields(kind)}.union(*within)


def _description(kind: Any) -> str:
    """The docstring up to its sections, paragraphs as lines."""
    text = textwrap.dedent("    " + (kind.__doc__ or "")).split("\nAttributes:")[0]
    text = text.split("\nArgs:")[0]
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _summary(kind: Any) -> str:
    return _description(kind).split("\n")[0]


def _table(rows: Mapping[str, str], width: int) -> list[str]:
    """Names and texts in two columns; a long name has its text below."""
    column = max([len(name) for name in rows if len(name) <= LONG_NAME], default=0) + 4
    lines = []
    for name, text in rows.items():
        parts = textwrap.wrap(text, max(width - column, 20)) or [""]
        if len(name) > LONG_NAME:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name:{column - 2}}{parts.pop(0)}".rstrip())
        lines += [" " * column + part for part in parts]
    return lines
