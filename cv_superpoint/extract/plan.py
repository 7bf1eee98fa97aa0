"""What a run does: its images in shards, written beside the output so that a stopped run goes on.

A shard is a run of consecutive image names. It is written whole or not at all, so a killed run
loses the shard it was at, nothing is written twice, and nothing half.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cv_superpoint.files import write_file
from cv_superpoint.options import DetectorOptions

Format = Literal["hdf5", "parquet"]
ENDINGS: dict[Format, str] = {"hdf5": ".h5", "parquet": ".parquet"}


class ExtractError(ValueError):
    """A run cannot start or go on; the message tells the remedy. What is done so far is kept."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(DetectorOptions):
    """What is extracted, and how; a stopped run goes on only with the same values.

    Attributes:
        longest_side: Larger images are shrunk to this, in pixels; keypoints are those of the
            whole image all the same. -1 shrinks none.
        half: Descriptors as float16, half the size; their cosines change by less than 0.001.
        shard_size: Images in a shard.
    """

    longest_side: int = -1
    half: bool = True
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
        index: Its place among the shards.
        names: Of the images, relative to their folder.
        path: File that holds its features when it is done.
    """

    index: int
    names: tuple[str, ...]
    path: Path

    @property
    def notes(self) -> Path:
        """File with the numbers of images and keypoints, and the images that cannot be read."""
        return self.path.with_suffix(".json")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        images: The folder.
        folder: Where the shards are written.
        shards: All of them.
        format: Of the shards.
        config: What is extracted.
    """

    images: Path
    folder: Path
    shards: tuple[Shard, ...]
    format: Format
    config: ExtractConfig

    def missing(self) -> list[Shard]:
        """The shards that are not done."""
        return [shard for shard in self.shards if not shard.path.exists()]


def make_plan(
    images: Path, names: Sequence[str], folder: Path, format: Format, config: ExtractConfig
) -> Plan:
    """The plan of a new run, or of a stopped one to go on with.

    Args:
        images: The folder of the images.
        names: Of all images, relative to it, sorted.
        folder: For the shards.
        format: Of the shards.
        config: What to extract.

    Raises:
        ExtractError: If the folder holds a run of other images or options.
    """
    step = config.shard_size
    digits = max(6, len(str(len(names) // step)))
    shards = tuple(
        Shard(
            index=index,
            names=tuple(names[start : start + step]),
            path=folder / f"{index:0{digits}}{ENDINGS[format]}",
        )
        for index, start in enumerate(range(0, len(names), step))
    )
    started = any(shard.path.exists() for shard in shards)
    _check_record(folder / "run.json", names, format, config, started=started)
    return Plan(images=images, folder=folder, shards=shards, format=format, config=config)


def _check_record(
    path: Path, names: Sequence[str], format: Format, config: ExtractConfig, *, started: bool
) -> None:
    options: dict[str, Any] = asdict(config) | {"format": format}
    # Where the network runs does not matter, nor how its name is written, but which one it is does.
    for name in ("device", "backend", "precision", "threads"):
        options.pop(name)
    options["weights"] = _weights_sha256(config.weights)
    record = {
        "images": len(names),
        "sha256_of_names": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "options": json.loads(json.dumps(options)),
    }
    if not path.exists() or not started:
        write_file(path, json.dumps(record, indent=1).encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExtractError(f"{path} is damaged; delete the folder {path.parent}") from error
    if before == record:
        return
    changed = [
        f"{name} was {before.get('options', {}).get(name)}, is {value}"
        for name, value in options.items()
        if before.get("options", {}).get(name) != json.loads(json.dumps(value))
    ]
    if before.get("sha256_of_names") != record["sha256_of_names"]:
        changed.append(f"there were {before.get('images')} images, now {len(names)} or others")
    raise ExtractError(
        f"{path.parent} holds a stopped run of other images or options ({'; '.join(changed)}): "
        "go on with the same, or delete that folder to start anew"
    )


def _weights_sha256(weights: str | None) -> str:
    from cv_superpoint.weights import load_weights

    return load_weights(weights).sha256
