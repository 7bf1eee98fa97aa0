"""The whole run: compare the folder with what is done, extract what is missing, put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cv_superpoint.errors import require
from cv_superpoint.extract import store
from cv_superpoint.extract.cluster import run_on_ray
from cv_superpoint.extract.plan import (
    RECORD,
    Comparison,
    Done,
    ExtractConfig,
    ExtractError,
    Format,
    check_folder,
    compare,
    make_plan,
    settings_of,
    shard_files,
)
from cv_superpoint.extract.precision import settled
from cv_superpoint.extract.work import Worker
from cv_superpoint.files import write_file
from cv_superpoint.files.listing import list_pictures
from cv_superpoint.files.names import is_text, shown
from cv_superpoint.files.record import write_record
from cv_superpoint.files.writing import sweep


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a run.

    Attributes:
        output: The file, or the folder of Parquet shards.
        images: Number of images with features in the output, those of earlier runs included.
        keypoints: Number of keypoints of all these images.
        broken: Reason by the name of each image that was left out.
        resumed: Number of images that an earlier run had done and whose files have not changed.
        changed: Names of images whose file is another one than in an earlier run.
        gone: Names of images that an earlier run had done and that are not in the folder any
            more. Their features stay.
        notes: What was done to images of this run before they were looked at: which were turned,
            which values were not of 8 bits and how they became so, which files lack something.
    """

    output: Path
    images: int
    keypoints: int
    broken: tuple[tuple[str, str], ...]
    resumed: int
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where a run on Ray goes.

    Attributes:
        address: Address of the cluster; None starts a local one.
        actors: Workers; None takes one for each device.
        gpus: GPUs for each worker.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float = 0.0


def extract_folder(
    images: Path,
    output: Path,
    config: ExtractConfig,
    *,
    readers: int = 2,
    processes: int | None = None,
    ray: RayOptions | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Extract the features of every picture in a folder.

    A run that was stopped continues; a finished one takes in pictures that were added or replaced
    since. The content of the files and the options decide which pictures are done.

    Args:
        images: Folder, searched with its subfolders; names in the output are relative to it.
        output: A file ending in ``.h5``, in hloc's layout, or a folder for Parquet shards.
        config: Options of the extraction.
        readers: Number of threads that read and decode pictures, for each device; 0 decodes in
            turn.
        processes: Deprecated name of ``readers``.
        ray: Ray cluster on which to run, instead of this process.
        tick: Function that is called with the number of images done and their total.

    Raises:
        ExtractError: If the run cannot start or continue; run again after the remedy.
        PictureError: If the folder holds no picture.
        WriteError: If the output cannot be written.
    """
    if processes is not None:
        warnings.warn("processes is called readers now", DeprecationWarning, stacklevel=2)
        readers = processes
    run = _Run.prepare(images, output, config, elsewhere=ray is not None)
    total = len(run.names)
    done = total - len(run.comparison.missing)
    tick(done, total)
    plan = make_plan(images, run.comparison.missing, run.folder, run.format, run.config)
    if plan.shards and ray is not None:
        finished = run_on_ray(plan, ray.address, actors=ray.actors, gpus=ray.gpus, readers=readers)
        for shard in finished:
            done += len(shard.names)
            tick(done, total)
    elif plan.shards:
        for _ in Worker(images, run.format, run.config, readers=readers).run(plan.shards):
            done += 1
            tick(done, total)
    return run.conclude()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What was found before the work.

    Attributes:
        output: The file, or the folder of Parquet shards.
        folder: Folder of the shards.
        format: Format of the shards.
        config: What is extracted; 8 bits are named.
        settings: Settings that the features are made with.
        names: Names of all images in the folder that can be stored.
        left_out: Reason by the name of each image that cannot be read or stored.
        before: What is in a finished file.
        comparison: Comparison of the names with all that is done.
    """

    output: Path
    folder: Path
    format: Format
    config: ExtractConfig
    settings: dict[str, Any]
    names: tuple[str, ...]
    left_out: dict[str, str]
    before: dict[str, Done]
    comparison: Comparison

    @classmethod
    def prepare(cls, images: Path, output: Path, config: ExtractConfig, *, elsewhere: bool) -> _Run:
        """Check everything that can be known, and compare the folder with what is done."""
        format: Format = "hdf5" if output.suffix in (".h5", ".hdf5") else "parquet"
        if not images.is_dir():
            raise ExtractError(f"{images}: there is no such folder")
        if format == "parquet" and output.suffix:
            raise ExtractError(
                f"{output}: name a file ending in .h5, or a folder for Parquet shards"
            )
        # Asked before the work, not at its first shard.
        require(*(("h5py", "sfm") if format == "hdf5" else ("pyarrow", "ray")))
        names, left_out = _list(images, output)
        folder = output.with_name(f"{output.name}.parts") if format == "hdf5" else output
        begun = store.settings_before(folder, output if format == "hdf5" else None)
        config = settled(config, begun, elsewhere=elsewhere)
        settings = settings_of(config, format)
        before = {}
        if format == "hdf5" and output.exists():
            before = store.done_in_file(output, settings)
        check_folder(folder, format, settings)
        sweep(folder)  # what a killed run was writing
        store.remove_empty(folder, format)
        in_shards = store.done_in_shards(folder, format)
        comparison = compare(images, names, before | in_shards)
        for path in {in_shards[name].where for name in comparison.changed & in_shards.keys()}:
            store.drop(path, comparison.changed, format)
        if comparison.missing:
            write_record(folder / RECORD, settings)
        return cls(
            output=output,
            folder=folder,
            format=format,
            config=config,
            settings=settings,
            names=names,
            left_out=left_out,
            before=before,
            comparison=comparison,
        )

    def conclude(self) -> Report:
        """Put the shards together and tell what there is."""
        in_shards = store.done_in_shards(self.folder, self.format)
        broken = store.broken_in_shards(self.folder, self.format)
        kept = {
            name: each for name, each in self.before.items() if name not in self.comparison.changed
        }
        done = kept | in_shards
        broken = {name: broken[name] for name in self.names if name in broken and name not in done}
        broken |= self.left_out
        notes = store.notes_in_shards(self.folder, self.format)
        if self.format == "hdf5":
            if done != self.before or not self.output.exists():
                store.merge(done, self.output, self.settings)
            _list_broken(self.output.with_name(f"{self.output.name}.broken.txt"), broken)
            _remove(self.folder, self.format)
        return Report(
            output=self.output,
            images=len(done),
            keypoints=sum(each.keypoints for each in done.values()),
            broken=tuple(broken.items()),
            resumed=len(self.names) - len(self.comparison.missing),
            changed=tuple(sorted(self.comparison.changed)),
            gone=self.comparison.gone,
            notes={name: notes[name] for name in self.comparison.missing if name in notes},
        )


def _list(images: Path, output: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the pictures, and those that are left out, with the reason."""
    listing = list_pictures([images], output=output)
    left_out = {each.name: str(each) for each in listing.left_out}
    names = []
    for path, name in listing.pictures:
        if is_text(name):
            names.append(name)
        else:
            left_out[name] = f"{path}: its name is not UTF-8, as names in the output are; rename it"
    return tuple(names), left_out


def _list_broken(path: Path, broken: dict[str, str]) -> None:
    """A line for each image that was left out; no file without any."""
    if broken:
        lines = (f"{shown(name)}\t{shown(why)}\n" for name, why in broken.items())
        write_file(path, "".join(lines).encode())
    else:
        path.unlink(missing_ok=True)


def _remove(folder: Path, format: Format) -> None:
    """Remove our files from a folder, and the folder if nothing else is in it."""
    for path in shard_files(folder, format):
        path.unlink(missing_ok=True)
    for path in folder.glob("*.json"):
        if path.name == RECORD or path.stem.isdecimal():
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
