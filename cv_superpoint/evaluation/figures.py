"""Pictures of an evaluation: bars of the main measures, and matches drawn over a pair."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.contenders import Contender, matched
from cv_superpoint.evaluation.datasets import ImagePair, PairSource
from cv_superpoint.evaluation.measure import (
    PairResult,
    distances_between,
    find_turned,
    fit_pair,
    select,
)
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.predictions import Finder
from cv_superpoint.evaluation.protocols import Protocol
from cv_superpoint.evaluation.results import HEADERS, Report, Summary
from cv_superpoint.evaluation.statistics import Estimate
from cv_superpoint.files.names import shown
from cv_superpoint.matching.matchers import Matcher
from cv_superpoint.pictures.reading import write_picture

Colour = tuple[int, int, int]

_COLOURS: tuple[Colour, ...] = (
    (176, 114, 31),
    (14, 127, 255),
    (44, 160, 44),
    (40, 39, 214),
    (189, 103, 148),
    (75, 86, 140),
)
_CORRECT, _WRONG, _INK, _GRID = (60, 180, 60), (60, 60, 220), (40, 40, 40), (225, 225, 225)
_TOP, _LEFT, _HEIGHT, _BAR, _GAP, _LINE = 50, 50, 260, 24, 30, 22


def draw_bars(
    title: str, summaries: Mapping[str, Summary], columns: Sequence[str], subset: str
) -> Array:
    """Grouped bars with their 95 % intervals, for the measures between 0 and 1.

    Args:
        title: Title above, which names the protocol.
        summaries: Per detector.
        columns: Measures; those that are not rates are left out.
        subset: Subset of the summaries.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    rates = [key for key in columns if key not in ("keypoints", "localisation_error")]
    group = _BAR * len(summaries) + _GAP
    width = max(_LEFT + max(group, 110) * len(rates) + _GAP, 11 * len(title) + _LEFT)
    canvas = np.full((_TOP + _HEIGHT + 50 + _LINE * len(summaries), width, 3), 255, np.uint8)
    _write(canvas, title, (_LEFT, 28), 0.6)
    for tenth in range(0, 11, 2):
        cv2.line(canvas, (_LEFT, _y(tenth / 10)), (width - 10, _y(tenth / 10)), _GRID, 1)
        _write(canvas, f"{tenth / 10:.1f}", (14, _y(tenth / 10) + 4))
    for column, key in enumerate(rates):
        start = _LEFT + _GAP // 2 + column * max(group, 110)
        _write(canvas, HEADERS[key], (start, _TOP + _HEIGHT + 18))
        for row, summary in enumerate(summaries.values()):
            _bar(canvas, start + row * _BAR, summary[subset][key], _COLOURS[row % len(_COLOURS)])
    for row, label in enumerate(summaries):
        y = _TOP + _HEIGHT + 44 + _LINE * row
        colour = _COLOURS[row % len(_COLOURS)]
        cv2.rectangle(canvas, (_LEFT, y - 10), (_LEFT + 12, y + 2), colour, -1)
        _write(canvas, label, (_LEFT + 20, y + 2))
    return canvas


def _y(share: float) -> int:
    return _TOP + round(_HEIGHT * (1 - share))


def _bar(canvas: Array, x: int, value: Estimate, colour: Colour) -> None:
    if math.isnan(value.value):
        return
    cv2.rectangle(canvas, (x, _y(value.value)), (x + _BAR - 4, _y(0)), colour, -1)
    if not math.isnan(value.low):
        middle = x + _BAR // 2 - 2
        cv2.line(canvas, (middle, _y(value.low)), (middle, _y(value.high)), _INK, 1)


def write_bars(folder: Path, report: Report) -> None:
    """Write the bars of every subset."""
    for subset in next(iter(report.summaries.values())):
        title = f"{report.protocol}, {subset}"
        picture = draw_bars(title, report.summaries, report.columns, subset)
        write_picture(folder / f"bars_{subset}.png", picture, made="drawing")


def write_pairs(
    folder: Path,
    source: PairSource,
    contenders: Mapping[str, Contender],
    results: Mapping[str, Sequence[PairResult]],
    protocol: Protocol,
) -> None:
    """Write the best and the worst pair of every contender."""
    wanted = {
        (label, which): result
        for label, found in results.items()
        for which, result in best_and_worst(found).items()
    }
    for pair in source:
        for (label, which), result in wanted.items():
            if result.name == pair.name:
                one = contenders[label]
                picture = draw_pair(pair, result, one.find, protocol, matcher=one.matcher)
                name = re.sub(r"[^\w.=-]+", "_", label).strip("_")
                path = folder / f"matches_{name}_{which}.png"
                write_picture(path, picture, made="drawing")


def _write(canvas: Array, text: str, place: tuple[int, int], scale: float = 0.42) -> None:
    cv2.putText(canvas, shown(text), place, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def best_and_worst(results: Sequence[PairResult]) -> dict[str, PairResult]:
    """The pairs of lowest and of highest corner error; empty if no pair was matched."""
    matched = [result for result in results if not math.isnan(result.corner_error)]
    if not matched:
        return {}
    ordered = sorted(matched, key=lambda r: (r.corner_error, -r.match_precision))
    return {"best": ordered[0], "worst": ordered[-1]}


def draw_judged(
    image0: Array,
    image1: Array,
    points0: Array,
    points1: Array,
    matches: Array,
    correct: Array,
    limit: int,
) -> Array:
    """Both images side by side with their matches: green where correct, red where not.

    Args:
        image0: (H, W) or (H, W, 3) BGR uint8.
        image1: As ``image0``; the size may differ.
        points0: (N0, 2).
        points1: (N1, 2).
        matches: (M, 2) indices into the points.
        correct: (M,) bool.
        limit: Matches drawn at most, evenly spread over all.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    width = image0.shape[1]
    height = max(len(image0), len(image1))
    canvas = np.full((height, width + image1.shape[1], 3), 255, np.uint8)
    for image, left in ((image0, 0), (image1, width)):
        bgr = image[..., None] if image.ndim == 2 else image
        canvas[: len(image), left : left + image.shape[1]] = bgr
    chosen = range(len(matches))
    if len(matches) > limit:
        chosen = np.linspace(0, len(matches) - 1, limit).round().astype(int).tolist()
    for index in sorted(chosen, key=lambda i: bool(correct[i])):
        start, end = points0[matches[index, 0]], points1[matches[index, 1]] + (width, 0)
        colour = _CORRECT if correct[index] else _WRONG
        start_xy, end_xy = ((round(float(x)), round(float(y))) for x, y in (start, end))
        cv2.line(canvas, start_xy, end_xy, colour, 1, cv2.LINE_AA)
    return canvas


def draw_pair(
    pair: ImagePair,
    result: PairResult,
    find: Finder,
    protocol: Protocol,
    *,
    matcher: Matcher | None = None,
    limit: int = 200,
) -> Array:
    """The picture of :func:`draw_judged` for a pair that was measured, with a caption.

    Args:
        pair: The images.
        result: What was measured on them; goes into the caption.
        find: The detector.
        protocol: The pass that matches is drawn.
        matcher: Matcher instead of mutual nearest neighbours.
        limit: Matches drawn at most, evenly spread over all.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    step = next(step for step in protocol.passes if step.description)
    (image0, image1), h_0to1 = fit_pair(pair, step.fit)
    sizes = (image0.shape[:2], image1.shape[:2])
    turned = find_turned(find, image1, result.rotation)
    found0, found1 = select(find(image0), turned, h_0to1, sizes, step)
    if matcher is None:
        matches = metrics.mutual_matches(distances_between(found0, found1))
    else:
        matches = matched(matcher, found0, found1)[0]
    correct = metrics.match_errors(found0.points, found1.points, matches, h_0to1)
    correct = correct <= metrics.CORRECT_DISTANCE
    picture = draw_judged(image0, image1, found0.points, found1.points, matches, correct, limit)
    canvas = np.vstack([picture, np.full((30, picture.shape[1], 3), 255, np.uint8)])
    caption = (
        f"{protocol.name}, {pair.name}: {int(correct.sum())} of {len(matches)} matches correct, "
        f"corner error {result.corner_error:.2f} px"
    )
    _write(canvas, caption, (8, len(picture) + 20), 0.45)
    return canvas
