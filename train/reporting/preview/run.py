"""The command ``python -m train preview``: a contact sheet, and a dataset on disk if asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from cv_superpoint.pictures.reading import write_picture
from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample
from train.reporting.pictures import samples_sheet, shapes_sheet
from train.reporting.preview.dataset import save_dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Draw synthetic samples to look at: preview.png (image, keypoints, coordinates), shapes.png.

    Attributes:
        run_dir: Where the two pictures go.
        rows: Samples in preview.png.
        save: Folder for a dataset of PNG and JSON files; none is written if left out.
        count: Samples of that dataset.
        seed: Seed of the samples.
        data: What is drawn.
    """

    run_dir: Path = Path("runs/default")
    rows: int = 6
    save: Path | None = None
    count: int = 100
    seed: int = 0
    data: Annotated[SyntheticConfig, arg(name="")] = field(
        default_factory=lambda: SyntheticConfig(size=(128, 128))
    )

    def __post_init__(self) -> None:
        if self.rows < 1 or self.count < 1:
            raise ValueError(f"rows and count must be positive, got {self.rows} and {self.count}")


def preview(config: PreviewConfig) -> list[Path]:
    """Write the pictures and, where asked for, the dataset.

    Args:
        config: What to draw and where to put it.

    Returns:
        The files and folders that were written.

    Raises:
        ValueError: If a picture cannot be written or the folder holds another dataset.
    """
    samples = [
        (f"seed {config.seed}, index {index}: {sample.shape}", sample)
        for index in range(config.rows)
        for sample in [draw_sample(config.seed, index, config.data)]
    ]
    sheets = {
        "preview.png": samples_sheet(samples),
        "shapes.png": shapes_sheet(config.seed, config.data),
    }
    config.run_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for name, sheet in sheets.items():
        path = config.run_dir / name
        write_picture(path, sheet, made="drawing")
        written.append(path)
        log.info("wrote %s", path)
    if config.save is not None:
        new = save_dataset(config.save, config.seed, config.count, config.data)
        log.info("wrote %d samples to %s, %d were there", new, config.save, config.count - new)
        written.append(config.save)
    return written
