"""Which pictures are matched with which."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path

from cv_superpoint.extract.plan import ExtractError
from cv_superpoint.interop.checks import Pair

ALL = "all"


def choose_pairs(
    pairs: str, names: Sequence[str], left_out: Collection[str] = ()
) -> tuple[Pair, ...]:
    """Each pair of pictures once, the name that sorts first in front.

    Args:
        pairs: "all"; a number, of the pictures behind each in the order of names that it is matched
            with; or a file, with two names on each line.
        names: Names of all pictures with features.
        left_out: Names of pictures that cannot be read; their pairs are left out too.

    Raises:
        ExtractError: If it is none of these, or the file names a picture that is not there.
    """
    ordered = sorted(names)
    if pairs == ALL:
        return tuple(combinations(ordered, 2))
    if pairs.isdecimal():
        window = _window(pairs)
        return tuple(
            (one, other)
            for place, one in enumerate(ordered)
            for other in ordered[place + 1 : place + 1 + window]
        )
    found: dict[Pair, None] = {}
    known = set(names)
    for number, line in read_list(pairs):
        pair = _split(line, known | set(left_out), f"{pairs}, line {number}")
        if known.issuperset(pair):
            found[pair] = None
    return tuple(found)


def check_pairs(pairs: str) -> None:
    """Check that the pairs can be chosen, as far as that shows without the pictures' names.

    Raises:
        ExtractError: If not.
    """
    if pairs.isdecimal():
        _window(pairs)
    elif pairs != ALL and not any(True for _ in read_list(pairs)):
        raise ExtractError(f"{pairs}: there is no pair in this file; write two names on each line")


def read_list(path: str) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are neither empty nor remarks (#).

    Raises:
        ExtractError: If the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ExtractError(
            f"cannot read the pairs {path!r} ({error}); give 'all', a number of neighbours, or a "
            "file with two names on each line"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _window(text: str) -> int:
    if int(text) < 1:
        raise ExtractError(f"pairs must be all, a file or at least 1 neighbour, got {text}")
    return int(text)


def _split(line: str, known: Collection[str], where: str) -> Pair:
    """The names of a line; where they hold spaces, only one place cuts it into known names."""
    parts = line.split("\t") if "\t" in line else line.split(" ")
    for cut in range(1, len(parts)):
        one, other = (" ".join(some).strip() for some in (parts[:cut], parts[cut:]))
        if one in known and other in known and one != other:
            return (one, other) if one < other else (other, one)
    raise ExtractError(
        f"{where}: {line!r} is no pair of two pictures of the folder; write two names relative to "
        "it, with a space or a tab between"
    )
