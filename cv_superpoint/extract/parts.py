"""Matches on the disk: parts of a run, and the finished file, both in hloc's layout.

A part is written whole or not at all. A pair is done if it is in a part or in the finished file,
and both pictures are what they were then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cv_superpoint.extract import store
from cv_superpoint.extract.plan import Done, ExtractError
from cv_superpoint.files import replacing
from cv_superpoint.files.writing import sweep
from cv_superpoint.interop import hloc
from cv_superpoint.interop.checks import Pair
from cv_superpoint.matching.nearest import Pairs


@dataclass(frozen=True, kw_only=True)
class MatchParts:
    """The matches of a run on the disk.

    Attributes:
        output: The finished file.
        settings: Settings that they are made with.
        sums: SHA-256 of each picture.
    """

    output: Path
    settings: dict[str, Any]
    sums: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """The folder of the parts."""
        return self.output.with_name(f"{self.output.name}.parts")

    def parts(self) -> list[Path]:
        """The finished parts, in order."""
        return sorted(path for path in self.folder.glob("*.h5") if path.stem.isdecimal())

    def done(self) -> dict[Pair, Path]:
        """Where the matches of each pair are, of pictures that are what they were then.

        Raises:
            ExtractError: If they were made with other settings, or by another program.
        """
        sweep(self.folder)  # what a killed run was writing
        found: dict[Pair, Path] = {}
        for path in (*([self.output] if self.output.exists() else []), *self.parts()):
            for pair, sums in _pairs_in(path, self.settings):
                if sums == [self.sums.get(name) for name in pair]:
                    found[pair] = path
        return found

    def write(self, found: Mapping[Pair, Pairs], pictures: Mapping[str, Done]) -> None:
        """Write a part.

        Args:
            found: Rows and scores by pair.
            pictures: What is known of the features of each picture, by name.

        Raises:
            ExtractError: If it cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        number = max((int(path.stem) for path in self.parts()), default=-1) + 1
        path = self.folder / f"{number:06}.h5"
        with (
            store.room(path, "the parts written so far are kept"),
            replacing(path) as part,
            hloc.opened(part, "w") as file,
        ):
            for pair, (rows, scores) in found.items():
                count = pictures[pair[0]].keypoints
                group = hloc.put_matches(file, pair, rows, scores, count)
                record = {"images": pair, "sha256": [self.sums[name] for name in pair]}
                group.attrs[store.ATTRIBUTE] = store.as_attribute(record)
            file.attrs[store.ATTRIBUTE] = store.as_attribute(self.settings)

    def conclude(self) -> None:
        """Put the parts and what was there before into one file.

        Raises:
            ExtractError: If it cannot be written.
        """
        sources: dict[Path, list[str]] = {}
        for pair, path in self.done().items():
            sources.setdefault(path, []).append(hloc.pair_name(*pair))
        there = len(_pairs_in(self.output, self.settings)) if self.output.exists() else None
        if self.parts() or there != len(sources.get(self.output, ())):
            self._merge(sources)
        for path in self.parts():
            path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _merge(self, sources: Mapping[Path, list[str]]) -> None:
        with (
            store.room(self.output, "the parts are kept"),
            replacing(self.output, large=True) as part,
            hloc.opened(part, "w") as file,
        ):
            for path, names in sources.items():
                with hloc.opened(path) as source:
                    for name in names:
                        source.copy(source[name], file, name)
            file.attrs[store.ATTRIBUTE] = store.as_attribute(self.settings)


def count_matches(path: Path, pairs: Sequence[Pair]) -> dict[Pair, int]:
    """Number of matches of each pair in a finished file."""
    with hloc.reading(path) as file:
        return {
            pair: int((file[hloc.pair_name(*pair)]["matches0"][()] >= 0).sum()) for pair in pairs
        }


def check_names(pairs: Sequence[Pair]) -> None:
    """Check that the layout tells all pairs apart.

    A pair is looked for under both orders of its names, with "-" for "/".

    Raises:
        ExtractError: If it does not.
    """
    taken: dict[str, Pair] = {}
    for pair in pairs:
        for name in (hloc.pair_name(*pair), hloc.pair_name(*reversed(pair))):
            if taken.setdefault(name, pair) != pair:
                raise ExtractError(
                    f"the pairs {taken[name]} and {pair} are both {name!r} in hloc's layout; "
                    "rename a folder or an image"
                )


def _pairs_in(path: Path, settings: Mapping[str, Any]) -> list[tuple[Pair, list[str]]]:
    """The pairs in a file of ours, and the sums of their pictures.

    Raises:
        ExtractError: If it is of another program or made with other settings.
    """
    found: list[tuple[Pair, list[str]]] = []

    def read(name: str, item: Any, record: Any) -> None:
        one, other = record["images"]
        found.append(((one, other), record["sha256"]))

    store.read_records(path, settings, read)
    return found
