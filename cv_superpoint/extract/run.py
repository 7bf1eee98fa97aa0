"""The whole run: plan, extract what is missing, put together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cv_superpoint.errors import require
from cv_superpoint.extract.cluster import run_on_ray
from cv_superpoint.extract.plan import ExtractConfig, ExtractError, Format, Plan, make_plan
from cv_superpoint.extract.store import merge, read_notes
from cv_superpoint.extract.work import Worker
from cv_superpoint.files.listing import list_pictures


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did.

    Attributes:
        output: The file, or the folder of Parquet shards.
        images: With features in it, the earlier runs' included.
        keypoints: Of all these images.
        broken: Name of each image that cannot be read, and why.
        resumed: Images that an earlier run had done.
    """

    output: Path
    images: int
    keypoints: int
    broken: tuple[tuple[str, str], ...]
    resumed: int


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where a run on Ray goes.

    Attributes:
        address: Of the cluster; None starts a local one.
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
    processes: int = 2,
    ray: RayOptions | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Features of every picture in a folder.

    Args:
        images: Searched with its subfolders; names in the output are relative to it.
        output: A file ending in ``.h5``, in hloc's layout, or a folder for Parquet shards.
        config: What to extract.
        processes: That decode pictures, for each device.
        ray: Run on a Ray cluster instead of in this process.
        tick: Called with the images done and their total, as they are done.

    Raises:
        ExtractError: If it cannot start or go on; run again after the remedy.
        PictureError: If the folder holds no picture.
    """
    format: Format = "hdf5" if output.suffix in (".h5", ".hdf5") else "parquet"
    if format == "hdf5" and output.exists():
        raise ExtractError(f"{output} is there already; delete it or name another file")
    if not images.is_dir():
        raise ExtractError(f"{images}: there is no such folder")
    if format == "parquet" and output.suffix:
        raise ExtractError(f"{output}: name a file ending in .h5, or a folder for Parquet shards")
    # Asked before the work, not at its first shard.
    require(*(("h5py", "sfm") if format == "hdf5" else ("pyarrow", "ray")))
    names = [name for _, name in list_pictures([images]).pictures]
    folder = output.with_name(f"{output.name}.parts") if format == "hdf5" else output
    plan = make_plan(images, names, folder, format, config)
    missing = plan.missing()
    resumed = len(names) - sum(len(shard.names) for shard in missing)
    _remove_torn(plan)
    done = resumed
    tick(done, len(names))
    if missing and ray is not None:
        for shard in run_on_ray(
            plan, ray.address, actors=ray.actors, gpus=ray.gpus, processes=processes
        ):
            done += len(shard.names)
            tick(done, len(names))
    elif missing:
        for _ in Worker(images, format, config, processes=processes).run(missing):
            done += 1
            tick(done, len(names))
    return _conclude(plan, output, resumed)


def _remove_torn(plan: Plan) -> None:
    """What a killed run was writing."""
    for torn in plan.folder.glob("*.part-*"):
        torn.unlink(missing_ok=True)


def _conclude(plan: Plan, output: Path, resumed: int) -> Report:
    notes = [read_notes(shard) for shard in plan.shards]
    broken = tuple((name, why) for each in notes for name, why in each["broken"])
    if plan.format == "hdf5":
        merge(plan, output, lambda: None)
        shutil.rmtree(plan.folder)
    return Report(
        output=output,
        images=sum(each["images"] for each in notes),
        keypoints=sum(each["keypoints"] for each in notes),
        broken=broken,
        resumed=resumed,
    )
