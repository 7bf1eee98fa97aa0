"""Synthetic samples on disk: one PNG and one JSON file each, for use by other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cv_superpoint.files import replace_file
from cv_superpoint.pictures.reading import write_picture
from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample
from train.reporting.pictures import to_bgr

DESCRIPTION = "dataset.json"


def save_dataset(folder: Path, seed: int, count: int, config: SyntheticConfig) -> int:
    """Write samples 0 to ``count - 1`` of a seed; those that are complete already stay.

    ``00012.png`` is the image, ``00012.json`` its shape, seed, index, size and keypoints, (x, y) as
    exact numbers with (0, 0) the centre of the top-left pixel. ``dataset.json`` holds the settings.
    Each file is moved to its place when it is whole, the JSON after its image, so a process that is
    killed leaves no half sample, and the same call goes on where it stopped.

    Args:
        folder: Folder of the samples, made if missing.
        seed: Seed of the samples.
        count: Number of the samples.
        config: What is drawn.

    Returns:
        How many samples were written now.

    Raises:
        ValueError: If the folder holds samples of another seed or of other settings.
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _describe(folder / DESCRIPTION, {"seed": seed, "drawing": asdict(config)})
    written = 0
    for index in range(count):
        path = folder / f"{index:05d}.json"
        if path.exists():
            continue
        sample = draw_sample(seed, index, config)
        picture = sample.image if sample.image.ndim == 2 else to_bgr(sample.image)
        write_picture(path.with_suffix(".png"), picture)
        replace_file(path, json.dumps(record(sample, path.stem, seed, index)).encode())
        written += 1
    return written


def record(sample: SyntheticSample, name: str, seed: int, index: int) -> dict[str, Any]:
    """What the JSON file of a sample says."""
    return {
        "image": f"{name}.png",
        "shape": sample.shape,
        "seed": seed,
        "index": index,
        "height": sample.image.shape[0],
        "width": sample.image.shape[1],
        "keypoints": sample.keypoints.tolist(),
    }


def _describe(path: Path, settings: dict[str, Any]) -> None:
    """Store the settings, or hold them against those that are stored."""
    # JSON has no tuples: compare what a reader would get.
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        numbered = (each for each in path.parent.iterdir() if each.stem.isdecimal())
        if (found := next(numbered, None)) is not None:
            raise ValueError(f"{found} is no sample of a dataset; save into a new folder")
        replace_file(path, json.dumps(settings, indent=1).encode())
    elif json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{path.parent} holds samples of another seed or of other settings (see {path.name}); "
            "save into a new folder"
        )
