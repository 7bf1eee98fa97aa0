"""Where a detector stops working: photographs that differ in one factor, more and more.

The protocol ``limits`` pairs each photograph's centre with

- *rotation*: the same turned about its centre,
- *scale*: a view from farther away, which shows more of the photograph in the same size,
- *turned*: a view from 1.5 times as far, and turned about its centre,
- *blur*: the same blurred,
- *night*: the same with less light: shot noise and read noise of a short exposure, brightened,

and tells the matching score and the share of homographies within 3 px for each level.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.contenders import MUTUAL, make_contenders
from cv_superpoint.evaluation.datasets import ImagePair, Skipped
from cv_superpoint.evaluation.measure import evaluate_pairs
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.results import table
from cv_superpoint.evaluation.statistics import accuracy, finite_mean
from cv_superpoint.evaluation.warps import WarpedPhotographs
from cv_superpoint.files import replace_file
from cv_superpoint.geometry import smoothed

logger = logging.getLogger(__name__)

Factor = Literal["rotation", "scale", "turned", "blur", "night"]

SIZE = (240, 320)
LEVELS: dict[Factor, tuple[float, ...]] = {
    "rotation": (0, 15, 30, 45, 60, 90, 135, 180),
    "scale": (1, 1.5, 2, 2.5, 3),
    "turned": (0, 15, 30, 45, 60),
    "blur": (0, 1, 2, 3, 4),
    "night": (10000, 1000, 300, 100, 30),
}
UNITS: dict[Factor, str] = {
    "rotation": "degrees",
    "scale": "times as far",
    "turned": "degrees, and 1.5 times as far",
    "blur": "px, standard deviation",
    "night": "photons in a white pixel",
}
FARTHER = 1.5
"""Times as far, of the factor turned."""
_READ_NOISE = 1.0
"""Electrons, as of a good camera."""


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Measure how far detectors can be driven.

    Attributes:
        data: Folder of photographs.
        detectors: Same as for ``cv-superpoint evaluate``.
        matchers: Same as for ``cv-superpoint evaluate``.
        weights: Weights of superpoint; the package's default if left out.
        only: Keys of :data:`LEVELS`; all if left out.
        photographs: Largest number of photographs.
        out: Folder for limits.md.
    """

    data: Path
    detectors: tuple[str, ...] = ("superpoint,sift,orb",)
    matchers: tuple[str, ...] = (MUTUAL,)
    weights: str | None = None
    only: tuple[str, ...] = ()
    photographs: int = 64
    out: Path | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.only) - set(LEVELS):
            known = ", ".join(LEVELS)
            raise SuperPointError(f"limits are of {known}; got {', '.join(sorted(unknown))}")


def make_pair(photograph: Array, name: str, factor: Factor, level: float) -> ImagePair:
    """A photograph's centre and the same, different in one factor.

    Args:
        photograph: (H, W) uint8.
        name: Name of the photograph; seeds the noise.
        factor: A key of :data:`LEVELS`.
        level: Amount, in the unit of :data:`UNITS`.
    """
    height, width = SIZE
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    # Everything that the farthest view shows must be there.
    reach = max(LEVELS["scale"]) if factor == "scale" else 1.3
    reach *= FARTHER if factor == "turned" else 1
    cover = max(height / photograph.shape[0], width / photograph.shape[1])
    first = _view(photograph, cover * reach)
    h_0to1, second = np.eye(3), first
    if factor in ("rotation", "turned"):
        turn = np.vstack([cv2.getRotationMatrix2D((centre[0], centre[1]), level, 1), [0, 0, 1]])
        farther = FARTHER if factor == "turned" else 1.0
        h_0to1 = turn @ _similarity(1 / farther, centre, centre)
        second = _view(photograph, cover * reach / farther, turn)
    elif factor == "scale":
        second = _view(photograph, cover * reach / level)
        h_0to1 = _similarity(1 / level, centre, centre)
    elif factor == "blur" and level:
        second = cv2.GaussianBlur(first, (0, 0), level)
    elif factor == "night":
        second = _expose(first, level, zlib.crc32(name.encode("utf-8", "surrogateescape")))
    pair = f"{name} {factor} {level:g}"
    return ImagePair(
        name=pair,
        sequence=f"{name} {factor}",
        kind="other",
        images=(first, np.asarray(second, np.uint8)),
        h_0to1=np.asarray(h_0to1, np.float64),
        keys=(f"{name} {factor} reference", pair),
    )


def _similarity(scale: float, centre: Array, target: Array) -> Array:
    """Scales about a point that goes to another."""
    shift = target - scale * centre
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])


def _view(photograph: Array, scale: float, turn: Array | None = None) -> Array:
    """The photograph's centre at a scale, and turned."""
    middle = (np.array(photograph.shape[::-1]) - 1) / 2
    centre = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    matrix = _similarity(scale, middle, centre)
    matrix = matrix if turn is None else turn @ matrix
    smooth = smoothed(photograph, matrix, SIZE)
    return np.asarray(cv2.warpPerspective(smooth, matrix, (SIZE[1], SIZE[0])))


def _expose(image: Array, photons: float, seed: int) -> Array:
    """A short exposure, brightened to the range of the image."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(image / 255 * photons) + rng.normal(0, _READ_NOISE, image.shape)
    return np.asarray(np.clip(np.rint(electrons / photons * 255), 0, 255), np.uint8)


def pairs(photographs: Sequence[tuple[str, Array]], factor: Factor) -> Iterator[ImagePair]:
    """Every photograph at every level of a factor, photograph by photograph."""
    for name, photograph in photographs:
        for level in LEVELS[factor]:
            yield make_pair(photograph, name, factor, level)


def limits(config: LimitsConfig) -> tuple[str, list[Skipped]]:
    """Measure; the tables are written to ``out``.

    Returns:
        The tables as Markdown, and the photographs that cannot be read.

    Raises:
        ValueError: If a detector or the data cannot be used.
    """
    protocol = PROTOCOLS["warp"]
    contenders = make_contenders(
        config.detectors,
        config.matchers,
        quota=protocol.quota,
        weights=config.weights,
        described=True,
    )
    source = WarpedPhotographs(root=config.data)
    photographs = list(islice(source.photographs(), config.photographs))
    for each in source.left_out:
        logger.warning("left out: %s: %s", each.name, each.reason)
    parts = [f"{len(photographs)} photographs, {SIZE[0]} x {SIZE[1]}: matching score (e = 3)."]
    factors = {str(factor): factor for factor in LEVELS}
    for factor in [factors[name] for name in config.only] or LEVELS:
        rows = []
        for label, one in contenders.items():
            made = pairs(photographs, factor)
            results = list(evaluate_pairs(made, one.find, protocol, matcher=one.matcher))
            cells = []
            for number in range(len(LEVELS[factor])):
                same = results[number :: len(LEVELS[factor])]
                score = finite_mean(np.array([result.matching_score for result in same]))
                share = accuracy(np.array([result.corner_error for result in same]), 3)
                cells.append(f"{score:.2f} ({share:.2f})")
            rows.append([label, *cells])
        header = [f"{factor}, {UNITS[factor]}", *(f"{level:g}" for level in LEVELS[factor])]
        parts.append("\n".join(table(header, rows)))
    text = "\n\n".join(parts)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        replace_file(config.out / "limits.md", f"{text}\n".encode())
    return text, source.left_out
