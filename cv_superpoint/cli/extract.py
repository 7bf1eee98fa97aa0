"""``cv-superpoint extract``: features of a folder, of any number of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, FAILED, PARTLY, Output, is_terminal
from cv_superpoint.errors import require
from cv_superpoint.extract.plan import ExtractConfig, ExtractError

if TYPE_CHECKING:
    from cv_superpoint.extract.matches import MatchReport
    from cv_superpoint.extract.run import RayOptions, Report

_TOLD = 10
"""Notes that are printed; every thermal picture has one of its own."""


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(ExtractConfig):
    """What is extracted, and how; a run goes on only with the same values.

    Attributes:
        max_keypoints: Keep the strongest of each image; -1 keeps all above the threshold.
    """

    max_keypoints: Annotated[int, arg(aliases=["-k"])] = 1000


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Extract features of a folder of images (extra [sfm]); a stopped run continues where it was.

    Attributes:
        images: Folder, searched with its subfolders.
        out: File ending in .h5 (the layout of hloc), or a folder for Parquet shards.
        readers: Threads that read and decode pictures, for each device.
        ray: Run on a Ray cluster: its address, auto for the one this machine belongs to, local to
            start one here. All machines must see the images and the output.
        ray_actors: Workers on the cluster; by default one for each device.
        ray_gpus: GPUs for each of them.
        matches: File ending in .h5 for matches of the pictures, in the layout of hloc.
        database: COLMAP's database for features and matches, with verified geometries.
        matcher: lightglue, mutual, ratio, a matcher's file or module:factory.
        pairs: all; how many of the next pictures, by name; or a file, two names on each line.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "extract photographs -o features.h5",
            "extract photographs -o shards --weights superpoint-lite --descriptor-format binary",
            "extract photographs -o features.h5 --matches matches.h5 --database database.db",
        ),
        results=(
            "features.h5: for each image keypoints (N, 2), scores, descriptors (D, N), image_size",
            "or Parquet shards: rows of name, width, height, keypoints, scores, descriptors",
            "matches.h5: for each pair matches0 (N,), -1 without a match, matching_scores0 (N,)",
            "features.h5.broken.txt: the pictures that are left out, where there are some",
        ),
        first=(
            "out",
            "matches",
            "database",
            "pairs",
            "json",
            "max_keypoints",
            "weights",
            "device",
            "descriptor_format",
        ),
    )

    images: Positional[Path]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("features.h5")
    readers: Annotated[int, arg(aliases=["--processes"])] = 2
    ray: str | None = None
    ray_actors: int | None = None
    ray_gpus: float = 0.0
    matches: Path | None = None
    database: Path | None = None
    matcher: str = "lightglue"
    pairs: str = "all"
    json: bool = False
    config: ExtractOptions = field(default_factory=ExtractOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.extract.run import extract_folder

        matching = self._matching()
        start = time.perf_counter()
        with _bar(output) as tick:
            report = extract_folder(
                self.images.resolve(),
                self.out.resolve(),
                self.config,
                readers=self.readers,
                ray=self._cluster(),
                tick=tick,
            )
        seconds = time.perf_counter() - start
        fresh = report.images - len(report.gone) - report.resumed
        if report.resumed:
            output.say(f"{report.resumed} images were done before")
        if report.changed:
            output.say(f"{len(report.changed)} images changed since and are done anew")
        output.say(
            f"wrote {self.out}: {report.images} images, {report.keypoints} keypoints; "
            f"{fresh} images in {seconds:.1f} s ({fresh / seconds:.2f} per second)"
        )
        output.left_out(why for _, why in report.broken)
        if report.gone:
            output.warn(
                f"{len(report.gone)} images, such as {report.gone[0]}, are no longer in "
                f"{self.images}; their features are kept"
            )
        self._tell(report, output)
        matched = None if matching is None else self._match(matching, report, output)
        output.result(
            {
                "out": str(self.out),
                "images": report.images,
                "keypoints": report.keypoints,
                "resumed": report.resumed,
                "changed": report.changed,
                "gone": report.gone,
                "notes": report.notes,
                "seconds": seconds,
                "broken": [{"image": name, "why": why} for name, why in report.broken],
                "matches": matched,
            }
        )
        return DONE if not report.broken else PARTLY if report.images else FAILED

    def _matching(self) -> dict[str, Any] | None:
        """Arguments of :func:`~cv_superpoint.extract.match_images`, seen to before the work."""
        if self.matches is None:
            if (self.database, self.matcher, self.pairs) != (None, "lightglue", "all"):
                raise ExtractError(
                    "--database, --matcher and --pairs are for matches; add --matches matches.h5"
                )
            return None
        from cv_superpoint.extract.matches import MatchConfig, check_matching

        arguments: dict[str, Any] = {
            "features": self.out.resolve(),
            "output": self.matches.resolve(),
            "extracted": self.config,
            "config": MatchConfig(matcher=self.matcher, pairs=self.pairs),
            "database": None if self.database is None else self.database.resolve(),
        }
        check_matching(**arguments)
        return arguments

    def _match(self, arguments: dict[str, Any], report: Report, output: Output) -> dict[str, Any]:
        from cv_superpoint.extract.matches import match_images

        if self.database is not None:  # COLMAP tells of every step on the standard error
            logging = require("pycolmap", "sfm").logging
            logging.minloglevel = logging.WARNING.value
        start = time.perf_counter()
        with _bar(output, "match") as tick:
            found: MatchReport = match_images(
                **arguments, left_out=[name for name, _ in report.broken], tick=tick
            )
        seconds = time.perf_counter() - start
        output.say(
            f"wrote {self.matches}: {found.pairs} pairs, {found.matches} matches; "
            f"{found.pairs - found.resumed} pairs in {seconds:.1f} s"
        )
        if found.verified is not None:
            output.say(f"wrote {self.database}: {found.verified} pairs with matches, verified")
        return {
            "out": str(self.matches),
            "database": None if self.database is None else str(self.database),
            "pairs": found.pairs,
            "matches": found.matches,
            "resumed": found.resumed,
            "verified": found.verified,
            "seconds": seconds,
        }

    def _cluster(self) -> RayOptions | None:
        from cv_superpoint.extract.run import RayOptions

        if self.ray is None:
            return None
        address = None if self.ray == "local" else self.ray
        return RayOptions(address=address, actors=self.ray_actors, gpus=self.ray_gpus)

    def _tell(self, report: Report, output: Output) -> None:
        """A line for each kind of note, with one image's name."""
        from cv_superpoint.extract.store import TURNED

        turned = [name for name, notes in report.notes.items() if TURNED in notes]
        if turned:
            output.warn(
                f"{len(turned)} images, such as {turned[0]}, were turned upright, and their points "
                "are in pixels of the upright image; COLMAP and hloc take pixels as stored: "
                "--stored-points"
            )
        others: dict[str, list[str]] = {}
        for name, notes in report.notes.items():
            for note in notes:
                others.setdefault(note, []).append(name)
        others.pop(TURNED, None)
        for note, names in sorted(others.items(), key=lambda each: -len(each[1]))[:_TOLD]:
            output.warn(f"{len(names)} images, such as {names[0]}: {note}")
        if len(others) > _TOLD:
            output.warn(f"{len(others) - _TOLD} more such notes are told with --json")


@contextmanager
def _bar(output: Output, what: str = "extract") -> Iterator[Callable[[int, int], None]]:
    """A function that shows the images or pairs done, on a terminal's standard error."""
    if output.json or not is_terminal():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
