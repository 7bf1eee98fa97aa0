"""The order of arguments: pictures may stand before, between and after options.

tyro takes every word after an option of any length, such as ``--scales``, for its value, and takes
no positional argument after an option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional

_POSITIONAL = get_args(Positional[int])[1:]


def positionals_first(arguments: Sequence[str], commands: Mapping[str, type]) -> list[str]:
    """The same arguments with those that belong to no option right after the command.

    Args:
        arguments: Arguments of the process.
        commands: Dataclass of each command by its name.

    Returns:
        Values of options stay with them: as many words as the field takes; where that is any
        number of numbers, the words that are numbers. All words after "--" are positional.
    """
    if not arguments or arguments[0] not in commands:
        return list(arguments)
    if not _takes_positionals(commands[arguments[0]]):
        return list(arguments)
    lengths = dict(_lengths(commands[arguments[0]]))
    positionals: list[str] = []
    options: list[str] = []
    rest = list(arguments[1:])
    while rest:
        word = rest.pop(0)
        if word == "--":
            positionals += [f"./{each}" if each.startswith("-") else each for each in rest]
            break
        if not _is_option(word):
            positionals.append(word)
            continue
        options.append(word)
        length = lengths.get(word.replace("_", "-"), 0) if "=" not in word else 0
        while rest and length:
            if length < 0 and not _is_number(rest[0]):
                break
            options.append(rest.pop(0))
            length -= length > 0
    return [arguments[0], *positionals, *options]


def _takes_positionals(kind: Any) -> bool:
    hints = get_type_hints(kind, include_extras=True).values()
    return any(map(is_positional, hints))


def is_positional(hint: Any) -> bool:
    """Whether a field with this type is an argument without a name."""
    return any(mark in _POSITIONAL for mark in get_args(hint)[1:])


def _lengths(kind: Any) -> Iterator[tuple[str, int]]:
    """Option and how many words are its value; -1 for any number of numbers."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, marks = hints[field.name], list[Any]()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        if any(mark in _POSITIONAL for mark in marks):
            continue
        if dataclasses.is_dataclass(hint):
            yield from _lengths(hint)
            continue
        name = f"--{field.name.replace('_', '-')}"
        others = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
        for each in (name, *others):
            yield each, _length(hint)


def _length(hint: Any) -> int:
    if get_origin(hint) in (Union, UnionType):  # such as the values, or None for a default
        return max((_length(each) for each in get_args(hint)), key=abs)
    if hint is bool:
        return 0
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        return -1 if Ellipsis in inside else len(inside)
    return 1


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
