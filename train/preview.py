"""Contact sheets: what the network is shown, to be looked at before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from train.data.synthetic import SyntheticConfig, draw_sample

Picture = npt.NDArray[np.uint8]


def with_points(image: Picture, points: npt.NDArray[np.floating[Any]], zoom: int = 2) -> Picture:
    """An enlarged image (BGR) with a circle around every point."""
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    canvas = cv2.cvtColor(
        cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2BGR
    )
    for x, y in (np.asarray(points) + 0.5) * zoom - 0.5:
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(canvas, centre, 3 * 16, (0, 0, 255), 1, cv2.LINE_AA, 4)
    return np.asarray(canvas, dtype=np.uint8)


def shapes_sheet(seed: int, config: SyntheticConfig, columns: int = 6) -> Picture:
    """Every kind of shape in a row, with its keypoints."""
    rows = []
    for name in config.shapes:
        only = SyntheticConfig(
            size=config.size, shapes=(name,), photometric=config.photometric, clean=config.clean
        )
        samples = [draw_sample(seed, index, only) for index in range(columns)]
        rows.append(np.hstack([with_points(s.image, s.keypoints) for s in samples]))
    return np.vstack(rows)


def save_drawings(folder: Path, seed: int, count: int, config: SyntheticConfig) -> None:
    """Write drawings as PNG files, as a stand-in for photographs; existing ones stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:05d}.png"
        if not path.exists():
            cv2.imwrite(str(path), draw_sample(seed, index, config).image)
