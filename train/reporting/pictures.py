"""Contact sheets: what the network is shown, to be looked at before it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.pictures.reading import write_picture
from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample

Picture = npt.NDArray[np.uint8]

_RED, _INK, _PAPER = (0, 0, 255), (40, 40, 40), (255, 255, 255)
_FONT, _FONT_SIZE, _LINE, _COLUMN, _MARGIN = cv2.FONT_HERSHEY_SIMPLEX, 0.4, 16, 116, 8


def to_bgr(image: Picture) -> Picture:
    """A picture for OpenCV of an image for the network: (H, W) grey or (H, W, 3) RGB."""
    code = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


def with_points(image: Picture, points: npt.NDArray[np.floating[Any]], zoom: int = 2) -> Picture:
    """An enlarged image with a circle around every point.

    Args:
        image: (H, W) grey or (H, W, 3) RGB.
        points: (N, 2) as (x, y).
        zoom: Factor of the enlargement.

    Returns:
        (zoom * H, zoom * W, 3) BGR.
    """
    canvas = enlarge(image, zoom)
    for centre in _positions(points, zoom):
        cv2.circle(canvas, centre, 3 * 16, _RED, 1, cv2.LINE_AA, 4)
    return canvas


def points_alone(
    size: tuple[int, int], points: npt.NDArray[np.floating[Any]], zoom: int = 2
) -> Picture:
    """The points as dots on white, at the scale of :func:`with_points`."""
    canvas = np.full((size[0] * zoom, size[1] * zoom, 3), 255, np.uint8)
    for centre in _positions(points, zoom):
        cv2.circle(canvas, centre, 2 * 16, _RED, cv2.FILLED, cv2.LINE_AA, 4)
    return canvas


def enlarge(image: Picture, zoom: int) -> Picture:
    """Every pixel as a square of ``zoom`` pixels, BGR."""
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    return to_bgr(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8))


def _positions(points: npt.NDArray[np.floating[Any]], zoom: int) -> Iterable[tuple[int, int]]:
    """Points of an image in its enlargement, in sixteenths of a pixel for OpenCV's drawing."""
    for x, y in (np.asarray(points) + 0.5) * zoom - 0.5:
        yield round(float(x) * 16), round(float(y) * 16)


def coordinate_list(
    sample: SyntheticSample, title: str, height: int, columns: int = 3
) -> tuple[Picture, int]:
    """The keypoints of a sample in writing.

    Args:
        sample: Sample with the keypoints.
        title: First line.
        height: Height of the picture, pixels.
        columns: Columns of coordinates; what does not fit in is counted in the last line.

    Returns:
        The picture, and how many coordinates it lists.
    """
    canvas = np.full((height, columns * _COLUMN + 2 * _MARGIN, 3), _PAPER, np.uint8)
    rows = (height - 2 * _MARGIN) // _LINE - 3
    texts = [f"({x:.2f}, {y:.2f})" for x, y in sample.keypoints]
    listed = min(len(texts), rows * columns)
    count = f"{len(texts)} keypoint{'' if len(texts) == 1 else 's'} (x, y)"
    for line, text in enumerate((title, count)):
        _write(canvas, text, 0, line)
    for index, text in enumerate(texts[:listed]):
        _write(canvas, text, index // rows, 2 + index % rows)
    if listed < len(texts):
        _write(canvas, f"... and {len(texts) - listed} more", 0, 2 + rows)
    return canvas, listed


def _write(canvas: Picture, text: str, column: int, line: int) -> None:
    origin = (_MARGIN + column * _COLUMN, _MARGIN + (line + 1) * _LINE - 3)
    cv2.putText(canvas, text, origin, _FONT, _FONT_SIZE, _INK, 1, cv2.LINE_AA)


def samples_sheet(samples: Iterable[tuple[str, SyntheticSample]], zoom: int = 2) -> Picture:
    """One row per sample: image, image with keypoints, keypoints alone, list of coordinates.

    Args:
        samples: Titles and samples, all of one size.
        zoom: Factor of the enlargement.

    Returns:
        (H, W, 3) BGR.
    """
    rows = []
    for title, sample in samples:
        size = (sample.image.shape[0], sample.image.shape[1])
        tiles = [
            enlarge(sample.image, zoom),
            with_points(sample.image, sample.keypoints, zoom),
            points_alone(size, sample.keypoints, zoom),
            coordinate_list(sample, title, size[0] * zoom)[0],
        ]
        row = np.hstack([np.pad(tile, ((0, 4), (0, 4), (0, 0))) for tile in tiles])
        rows.append(row)
    return np.vstack(rows)


def shapes_sheet(seed: int, config: SyntheticConfig, columns: int = 6) -> Picture:
    """Every kind of shape in a row, with its keypoints."""
    rows = []
    for name in config.shapes:
        only = replace(config, shapes=(name,))
        samples = [draw_sample(seed, index, only) for index in range(columns)]
        rows.append(np.hstack([with_points(s.image, s.keypoints) for s in samples]))
    return np.vstack(rows)


def save_drawings(folder: Path, seed: int, count: int, config: SyntheticConfig) -> None:
    """Write drawings as PNG files, as a stand-in for photographs; existing ones stay.

    Several processes may do so at the same time: no file is ever half written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{index:05d}.png"
        if not path.exists():
            image = draw_sample(seed, index, config).image
            write_picture(path, image if image.ndim == 2 else to_bgr(image))
