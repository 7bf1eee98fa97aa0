"""How often ``MatchResult.reliable`` errs: on pairs that share nothing, and on right homographies.

The protocol ``verdict`` counts

- *unrelated* pairs of different photographs that are called reliable, whole and each cut to a
  random window by a mask (keypoints that crowd together agree by chance more often), and
- *right* pairs, whose homography puts the corners within 5 px of where they belong, that are not:
  of ``warp``, of a stronger warp, and of a folder in HPatches layout.

The photographs must show different things. Pairs share photographs, so the intervals, which take
pairs as independent, are a little too narrow.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cv_superpoint import Features, MatchResult, match_features
from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.contenders import MUTUAL
from cv_superpoint.evaluation.datasets import HPatches, ImagePair, Skipped
from cv_superpoint.evaluation.detectors import build_detector, split_names
from cv_superpoint.evaluation.measure import fit_pair
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.predictions import check_described
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.results import table
from cv_superpoint.evaluation.statistics import exact_interval
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.files import write_file
from cv_superpoint.geometry import corner_error
from cv_superpoint.matching.matchers import Matcher, build_matcher
from cv_superpoint.matching.pairs import Extractor

logger = logging.getLogger(__name__)

RIGHT = 5.0
"""Pixels by which a right homography may move the corners on average."""
WINDOW = 0.35
"""Sides of the masks, as a share of the photograph's sides."""


@dataclass(frozen=True, kw_only=True)
class VerdictConfig:
    """Count the errors of the verdict on a pair.

    Attributes:
        data: Folder of photographs that show different things.
        pairs: Folder in HPatches layout, for more right pairs.
        detectors: superpoint with its options, as of ``cv-superpoint evaluate``; one of them.
        matcher: Same as for ``cv-superpoint evaluate``, one of them.
        weights: Weights of superpoint; the package's default if left out.
        model: What the verdict is about. Right pairs are those whose homography is right.
        threshold: Threshold in pixels, as for match_pair.
        unrelated: Pairs drawn from all pairs of photographs.
        pairs_per_image: Warps of each photograph and kind.
        seed: Seed of the draws.
        out: Folder for verdict.md.
    """

    data: Path
    pairs: Path | None = None
    detectors: tuple[str, ...] = ("superpoint(maxKeypoints=1000)",)
    matcher: str = MUTUAL
    weights: str | None = None
    model: Literal["homography", "fundamental"] = "homography"
    threshold: float = 3.0
    unrelated: int = 500
    pairs_per_image: int = 2
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.unrelated < 1:
            raise SuperPointError(f"unrelated must be at least 1, got {self.unrelated}")


@dataclass(frozen=True, kw_only=True)
class Count:
    """One row.

    Attributes:
        name: Name of the set.
        pairs: Number of pairs in the set.
        judged: Pairs that the verdict can err on: all unrelated ones, or the right ones.
        errors: Verdicts that are wrong.
    """

    name: str
    pairs: int
    judged: int
    errors: int

    def cells(self) -> list[str]:
        """The row of the table, with the exact 95 % interval of the share."""
        share, interval = "–", "–"
        if self.judged:
            share = f"{self.errors / self.judged:.3f}"
            bounds = exact_interval(self.errors, self.judged)
            interval = f"{bounds.low:.3f}–{bounds.high:.3f}"
        return [self.name, str(self.pairs), str(self.judged), str(self.errors), share, interval]


def draw_pairs(count: int, pairs: int, seed: int) -> list[tuple[int, int]]:
    """Different pairs of ``count`` things, at most all of them, in order.

    Raises:
        ValueError: If there are fewer than two.
    """
    if count < 2:
        raise SuperPointError(f"unrelated pairs need two photographs or more, got {count}")
    first, second = np.triu_indices(count, 1)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(first), size=min(pairs, len(first)), replace=False))
    return list(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))


def stronger(config: WarpConfig) -> WarpConfig:
    """A warp whose homographies are often not found, and found by few matches."""
    return dataclasses.replace(config, rotation=50.0, scale=2.0, translation=0.25, perspective=0.25)


def count_unrelated(
    config: VerdictConfig, detector: Extractor, matcher: Matcher, images: Sequence[Array]
) -> Iterator[Count]:
    """Unrelated pairs that are called reliable, whole and in windows."""
    pairs = draw_pairs(len(images), config.unrelated, config.seed)
    windows = [_window(image.shape, index, config.seed) for index, image in enumerate(images)]
    for name, masks in (("whole", [None] * len(images)), ("in windows", windows)):
        found = [detector.extract(*each) for each in zip(images, masks, strict=True)]
        errors = sum(
            _match(config, matcher, found[one], found[other]).reliable for one, other in pairs
        )
        yield Count(name=f"unrelated, {name}", pairs=len(pairs), judged=len(pairs), errors=errors)


def count_right(
    config: VerdictConfig,
    detector: Extractor,
    matcher: Matcher,
    name: str,
    pairs: Iterable[ImagePair],
) -> Count:
    """Right pairs that are not called reliable."""
    total = judged = errors = 0
    for pair in pairs:
        total += 1
        (image0, image1), truth = fit_pair(pair, PROTOCOLS["plain"].passes[0].fit)
        found = detector.extract(image0), detector.extract(image1)
        homography = _match(dataclasses.replace(config, model="homography"), matcher, *found)
        if corner_error(homography.homography, truth, found[0].image_size) > RIGHT:
            continue
        judged += 1
        result = homography if config.model == "homography" else _match(config, matcher, *found)
        errors += not result.reliable
    return Count(name=name, pairs=total, judged=judged, errors=errors)


def verdict(config: VerdictConfig) -> tuple[str, list[Skipped]]:
    """Count; the table is written to ``out``.

    Returns:
        The table as Markdown, and the photographs that cannot be read.

    Raises:
        ValueError: If the detector or the data cannot be used.
    """
    names, matcher = split_names(config.detectors), build_matcher(config.matcher)
    if len(names) > 1:
        raise SuperPointError(f"verdict is about one detector, got {', '.join(names)}")
    detector: Any = build_detector(names[0], quota=1000, weights=config.weights)
    if not callable(getattr(detector, "extract", None)):
        raise SuperPointError(f"{names[0]} has no extract(); take superpoint with its options")
    check_described(names[0], detector, config.weights)
    plain = WarpConfig(pairs_per_image=config.pairs_per_image, seed=config.seed)
    warps = {
        "right, warp": WarpedPhotographs(root=config.data, config=plain),
        "right, strong warp": WarpedPhotographs(root=config.data, config=stronger(plain)),
    }
    photographs = warps["right, warp"]
    images = [image for _, image in photographs.photographs()]
    rows = list(count_unrelated(config, detector, matcher, images))
    rows += [count_right(config, detector, matcher, name, source) for name, source in warps.items()]
    if config.pairs is not None:
        source = HPatches(root=config.pairs)
        rows.append(count_right(config, detector, matcher, "right, real pairs", source))
    right = [row for row in rows if row.name.startswith("right")]
    together = Count(
        name="right, all",
        pairs=sum(row.pairs for row in right),
        judged=sum(row.judged for row in right),
        errors=sum(row.errors for row in right),
    )
    rows.append(together)
    header = ["set", "pairs", "judged", "wrong verdicts", "share", "95 %"]
    text = "\n".join(table(header, [row.cells() for row in rows]))
    for each in photographs.left_out:
        logger.warning("left out: %s: %s", each.name, each.reason)
    if config.out is not None:
        settings = "".join(f"{key} {value}\n" for key, value in dataclasses.asdict(config).items())
        write_file(config.out / "verdict.md", f"{text}\n```\n{settings}```\n".encode())
    return text, photographs.left_out


def _match(config: VerdictConfig, matcher: Matcher, one: Features, other: Features) -> MatchResult:
    return match_features(
        one,
        other,
        model=config.model,
        threshold=config.threshold,
        matcher=matcher,
    )


def _window(shape: tuple[int, ...], index: int, seed: int) -> Any:
    """A mask that keeps a random window."""
    rng = np.random.default_rng([seed, index])
    height, width = (round(side * WINDOW) for side in shape[:2])
    top, left = rng.integers(shape[0] - height), rng.integers(shape[1] - width)
    mask = np.zeros(shape[:2], np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask
