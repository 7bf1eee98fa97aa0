"""What a run does: which images are missing, in which shards, and with which options.

A shard holds some of the images. It is written whole or not at all, beside its notes, which tell
what file each image was. So what is done shows from the files themselves: an image whose name,
content and options are those of a shard, or of a finished file, is done; any other is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cv_superpoint.decoding.descriptors import DescriptorFormat, Encoder
from cv_superpoint.errors import SuperPointError
from cv_superpoint.extract.precision import INT8
from cv_superpoint.files.fingerprint import Fingerprint
from cv_superpoint.files.record import RecordError, as_stored, differences, read_record
from cv_superpoint.opencv.options import DetectorOptions

Format = Literal["hdf5", "parquet"]
ENDINGS: dict[Format, str] = {"hdf5": ".h5", "parquet": ".parquet"}
RECORD = "run.json"
VERSION = 3
"""Version of the features: it changes where the same options give other features."""
ELSEWHERE = ("device", "backend", "precision", "threads", "shard_size")
"""Options that may change between runs: where the network runs, and how the work is cut.

But for 8 bits, see :mod:`cv_superpoint.extract.precision`.
"""


class ExtractError(SuperPointError):
    """A run cannot start or continue; the message names the remedy. Finished work is kept."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(DetectorOptions):
    """Options of an extraction; a run continues only with the same values.

    Attributes:
        longest_side: Longest side in pixels to which larger images are shrunk; keypoints are in
            pixels of the whole image all the same. -1 shrinks none.
        half: Descriptors are float16, half the size; their cosines change by less than 0.001.
            --no-half keeps float32. Bytes and bits stay as they are.
        upright: Images are turned as their files say, as in all commands; --no-upright takes the
            pixels as they are stored.
        stored_points: Points are in pixels as stored although images are upright, as COLMAP and
            hloc take them.
        shard_size: Number of images in a shard; it may change.
    """

    longest_side: int = -1
    half: bool = True
    upright: bool = True
    stored_points: bool = False
    shard_size: int = 256

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ExtractError(f"shard_size must be at least 1, got {self.shard_size}")
        if self.longest_side != -1 and self.longest_side < 16:
            raise ExtractError(
                f"longest_side must be -1 or at least 16 pixels, got {self.longest_side}"
            )


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some of the images.

    Attributes:
        index: Place among the shards of the run.
        names: Names of the images, relative to their folder.
        path: File that holds its features when it is done.
    """

    index: int
    names: tuple[str, ...]
    path: Path

    @property
    def notes(self) -> Path:
        """File with what is in it, and the images that cannot be read."""
        return notes_of(self.path)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        images: The folder.
        folder: Where the shards are written.
        shards: Shards of the images that are missing.
        format: Format of the shards.
        config: What is extracted.
    """

    images: Path
    folder: Path
    shards: tuple[Shard, ...]
    format: Format
    config: ExtractConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """An image whose features are there.

    Attributes:
        keypoints: Their number.
        file: The image's file as it was then.
        where: The shard, or the finished file.
    """

    keypoints: int
    file: Fingerprint
    where: Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The images of a folder beside what is done.

    Attributes:
        missing: Names of images that are to be extracted, those of changed files among them.
        changed: Names whose file has another content than then, or cannot be read any more.
        gone: Names of features whose file is not in the folder any more.
    """

    missing: tuple[str, ...]
    changed: frozenset[str]
    gone: tuple[str, ...]


def notes_of(path: Path) -> Path:
    """The notes beside a shard's file."""
    return path.with_suffix(".json")


def compare(images: Path, names: Sequence[str], done: Mapping[str, Done]) -> Comparison:
    """Hold what is done against the files: by their content, which is read if their times differ.

    Args:
        images: The folder.
        names: Names of the images in it.
        done: Images that are done, by name.

    Raises:
        ExtractError: If nothing of what is done is in the folder: it is another folder.
    """
    if names and done and not any(name in done for name in names):
        raise ExtractError(
            f"the output holds features of other images, such as {next(iter(done))}, none of which "
            f"is in {images}; name another output"
        )
    changed = frozenset(
        name for name in names if name in done and not _is_same(images / name, done[name].file)
    )
    return Comparison(
        missing=tuple(name for name in names if name not in done or name in changed),
        changed=changed,
        gone=tuple(sorted(done.keys() - set(names))),
    )


def _is_same(path: Path, file: Fingerprint) -> bool:
    try:
        return file.describes(path)
    except OSError:
        return False


def make_plan(
    images: Path, names: Sequence[str], folder: Path, format: Format, config: ExtractConfig
) -> Plan:
    """The plan for images that are missing; shards that are there keep their files.

    Args:
        images: The folder of the images.
        names: Names of the missing images, relative to it.
        folder: Folder for the shards.
        format: Format of the shards.
        config: What to extract.
    """
    taken = [int(path.stem) for path in shard_files(folder, format)]
    first = max(taken, default=-1) + 1
    shards = tuple(
        Shard(
            index=index,
            names=tuple(names[start : start + config.shard_size]),
            path=folder / f"{first + index:06}{ENDINGS[format]}",
        )
        for index, start in enumerate(range(0, len(names), config.shard_size))
    )
    return Plan(images=images, folder=folder, shards=shards, format=format, config=config)


def shard_files(folder: Path, format: Format) -> list[Path]:
    """The finished shards in a folder, in order.

    Raises:
        ExtractError: If the folder holds such files of another program, which would be overwritten.
    """
    found = sorted(folder.glob(f"*{ENDINGS[format]}"))
    for path in found:
        if not (path.stem.isdecimal() and notes_of(path).exists()):
            raise ExtractError(f"{path} is no shard of a run; name another output")
    return found


# ---- settings ----


def settings_of(config: ExtractConfig, format: Format) -> dict[str, Any]:
    """All that the features depend on besides the images, as it is stored.

    Raises:
        FeatureError: If the weights have no descriptors.
    """
    from cv_superpoint.weights import load_weights

    weights = load_weights(config.weights)
    weights.check_descriptors()
    options = {key: value for key, value in asdict(config).items() if key not in ELSEWHERE}
    # Not how the network's name is written, but which one it is; and what it recommends.
    options["weights"] = weights.sha256
    if config.scales is None:
        options["scales"] = weights.scales
    descriptors = DescriptorFormat(kind=config.descriptor_format, dim=config.descriptor_dim)
    encoder = Encoder.of(descriptors, weights.config.descriptor_dim, weights.compaction)
    # None says as much as no entry, which is what runs of earlier releases have.
    options["descriptor_format"] = None if encoder.plain else encoder.format.kind
    options["descriptor_dim"] = None if encoder.plain else encoder.numbers
    options["compaction"] = encoder.compaction or None
    if config.precision == INT8:
        options["precision"] = INT8
    stored: dict[str, Any] = as_stored({"version": VERSION, "format": format, "options": options})
    return stored


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Check that a run goes on with the settings that it was started with.

    Raises:
        ExtractError: If it would not; names what differs.
    """
    changed = [each.removeprefix("options.") for each in differences(before, now)]
    if changed:
        raise ExtractError(
            f"{where} was made with other options ({'; '.join(changed)}): go on with the same, "
            "delete it, or name another output"
        )


def check_folder(folder: Path, format: Format, settings: Mapping[str, Any]) -> None:
    """Check that a folder may get shards: it is new, or of a run with the same settings.

    Raises:
        ExtractError: If it holds a run with other settings, or something else.
    """
    path = folder / RECORD
    try:
        before = read_record(path)
    except RecordError as error:
        raise ExtractError(f"{error}; delete the folder {folder}") from error
    if before is None:
        for each in folder.glob("*"):
            if each.stem.isdecimal() and each.suffix in (".json", ENDINGS[format]):
                raise ExtractError(f"{each} is no shard of a run; name another output")
    elif "options" not in before:
        raise ExtractError(f"{path} belongs to another program; name another output")
    elif before.get("version") != VERSION:
        raise ExtractError(
            f"{folder} holds a run of another release; delete it, or name another output"
        )
    else:
        check_settings(before, settings, folder)
