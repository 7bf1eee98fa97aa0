"""The ``pose`` protocol: relative poses of calibrated cameras, from a list of pairs.

The list is in the layout of SuperGlue's ``pairs.txt`` (Sarlin et al., "SuperGlue: Learning Feature
Matching with Graph Neural Networks", CVPR 2020), a line for each pair:

    path0 path1 turns0 turns1 K0 (9 numbers) K1 (9) T_0to1 (16)

Paths are relative to the folder of pictures. Turns are quarter turns counter-clockwise that bring a
picture upright; intrinsics and pose belong to the pictures as stored. Matrices are row by row.
Measured as there: the essential matrix by RANSAC on normalised points, and the larger one of the
angles by which rotation and direction of translation are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import PictureError, SuperPointError
from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.contenders import matched
from cv_superpoint.evaluation.datasets import Skipped, read_grey
from cv_superpoint.evaluation.measure import distances_between, find_turned
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.evaluation.predictions import Detections, Finder
from cv_superpoint.evaluation.protocols import Fit
from cv_superpoint.evaluation.statistics import Estimate, area_under_curve, estimate, finite_mean
from cv_superpoint.matching.epipolar import epipolar_distances, refine_epipolar
from cv_superpoint.matching.matchers import Matcher

FIT = Fit(rule="longer", side=640, enlarge=False)
QUOTA = 1000
THRESHOLD = 1.0
"""Pixels by which an inlier may miss its epipolar line, SuperGlue's."""
PLACED = 0.5
"""Share of the threshold for matches that the pixels placed: they are that much more exact."""
CONFIDENCE = 0.99999
CORRECT = 1.5
"""Pixels from its true epipolar line within which a match counts as correct."""
ANGLES = (5, 10, 20)
COLUMNS = (
    *("keypoints", "matches", "match_precision", "inliers", "inlier_error"),
    *(f"pose_auc_{angle}" for angle in ANGLES),
)
_NUMBERS = 9 + 9 + 16


class Pose(NamedTuple):
    """A relative pose.

    Attributes:
        rotation: (3, 3).
        translation: (3,) of unit length.
    """

    rotation: Array
    translation: Array


@dataclass(frozen=True, kw_only=True)
class PosePair:
    """Two pictures of calibrated cameras.

    Attributes:
        paths: Paths of both pictures, as in the list.
        turns: Quarter turns counter-clockwise that bring them upright.
        intrinsics: (3, 3) of both, of the pictures as stored.
        t_0to1: (4, 4), points of camera 0 to those of camera 1.
    """

    paths: tuple[str, str]
    turns: tuple[int, int]
    intrinsics: tuple[Array, Array]
    t_0to1: Array

    @property
    def name(self) -> str:
        """Name of the pair."""
        return " ".join(self.paths)


@dataclass(frozen=True, kw_only=True)
class PoseResult:
    """Measures of one pair; NaN where there was nothing to measure.

    ``pose_error`` is the larger one of both angles, in degrees, infinite without a pose;
    ``inlier_error`` the median distance of the inliers from their true epipolar lines, in pixels.
    """

    name: str
    sequence: str
    kind: str = "pose"
    keypoints: float = math.nan
    matches: float = math.nan
    match_precision: float = math.nan
    inliers: float = math.nan
    inlier_error: float = math.nan
    rotation_error: float = math.inf
    translation_error: float = math.inf
    pose_error: float = math.inf


@dataclass(frozen=True, kw_only=True)
class PosePairs:
    """The pairs of a list.

    Attributes:
        root: Folder of the pictures.
        list_of_pairs: File; ``pairs.txt`` of the folder if None.
        skipped: Lines that cannot be used, and pairs whose pictures cannot be read, with the
            reason.
        left_out: Pairs whose pictures cannot be read, which only shows when the pairs are read.

    Raises:
        SuperPointError: If the list is missing or no line can be used.
    """

    root: Path
    list_of_pairs: Path | None = None
    pairs: list[PosePair] = field(default_factory=list, init=False, repr=False)
    skipped: list[Skipped] = field(default_factory=list, init=False, repr=False)
    left_out: list[Skipped] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        path = self.list_of_pairs or self.root / "pairs.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SuperPointError(
                f"cannot read {path} ({error}); protocol pose needs a list of pairs in SuperGlue's "
                "layout: name it with --pairs, or put it as pairs.txt beside the pictures"
            ) from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            pair = read_line(line)
            if isinstance(pair, str):
                self.skipped.append(Skipped(f"{path.name}, line {number}", pair))
            else:
                self.pairs.append(pair)
        if not self.pairs:
            found = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:3])
            raise SuperPointError(f"no pair in {path}" + (f" ({found})" if found else ""))

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[PosePair, tuple[Array, Array]]]:
        for pair in self.pairs:
            try:
                first, second = (read_grey(self.root / path) for path in pair.paths)
            except PictureError as error:
                entry = Skipped(pair.name, str(error))
                if entry not in self.skipped:  # every detector reads the pairs
                    self.skipped.append(entry)
                    self.left_out.append(entry)
                continue
            yield pair, (first, second)


def read_line(line: str) -> PosePair | str:
    """A pair, or what is wrong with the line."""
    words = line.split()
    if len(words) != 4 + _NUMBERS:
        return f"has {len(words)} words; two paths, two turns and {_NUMBERS} numbers are expected"
    try:
        turns = int(words[2]) % 4, int(words[3]) % 4
        numbers = np.array([float(word) for word in words[4:]])
    except ValueError as error:
        return f"is not numbers after the paths ({error})"
    first, second = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
    t_0to1 = numbers[18:].reshape(4, 4)
    rotation, translation = t_0to1[:3, :3], t_0to1[:3, 3]
    if not np.isfinite(numbers).all() or min(abs(np.linalg.det(k)) for k in (first, second)) < 1e-9:
        return "has intrinsics that cannot be inverted"
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or not translation.any():
        return "has a pose that is no rotation, or no translation"
    return PosePair(
        paths=(words[0], words[1]), turns=turns, intrinsics=(first, second), t_0to1=t_0to1
    )


def evaluate_poses(
    source: PosePairs,
    find: Finder,
    *,
    threshold: float = THRESHOLD,
    refine: bool = False,
    matcher: Matcher | None = None,
) -> list[PoseResult]:
    """Measure a detector pair by pair.

    Args:
        source: The pairs.
        find: The detector.
        threshold: Pixels by which an inlier may miss its epipolar line.
        refine: Whether matches are refined from the pixels around them.
        matcher: Matcher instead of mutual nearest neighbours.
    """
    results = []
    for pair, stored in source:
        fitted = [FIT.apply(image) for image in stored]
        images = (fitted[0][0], fitted[1][0])
        intrinsics = [
            scaling @ own for (_, scaling), own in zip(fitted, pair.intrinsics, strict=True)
        ]
        found = [
            find_turned(find, image, 90 * turns).strongest(QUOTA)
            for image, turns in zip(images, pair.turns, strict=True)
        ]
        matches = _matches(found, matcher)
        measured = {"keypoints": (len(found[0]) + len(found[1])) / 2}
        if matches is not None:
            points = found[0].points[matches[:, 0]], found[1].points[matches[:, 1]]
            pixels = images if refine else None
            measured |= _measure(*points, intrinsics, pair.t_0to1, threshold, pixels)
        result = PoseResult(name=pair.name, sequence=pair.name)
        results.append(replace(result, **measured))  # type: ignore[arg-type]
    return results


def _matches(found: Sequence[Detections], matcher: Matcher | None) -> Array | None:
    """(M, 2) rows of both; None of a detector without descriptors."""
    if not (found[0].described and found[1].described):
        return None
    if matcher is None:
        return metrics.mutual_matches(distances_between(*found))
    return matched(matcher, *found)[0]


def _measure(
    points0: Array,
    points1: Array,
    intrinsics: Sequence[Array],
    t_0to1: Array,
    threshold: float,
    images: tuple[Array, Array] | None,
) -> dict[str, float]:
    truth = to_fundamental(essential_of(t_0to1), intrinsics)
    errors = epipolar_distances(truth, points0, points1)
    measured = {
        "matches": float(len(points0)),
        "match_precision": metrics.match_precision(errors, CORRECT),
    }
    solve = partial(find_essential, intrinsics=intrinsics, threshold=threshold)
    essential, agree = solve(points0, points1)
    if essential is None:
        return measured
    if images is not None:
        points1, essential, agree = refine_epipolar(
            *images,
            points0,
            points1,
            essential,
            agree,
            partial(find_essential, intrinsics=intrinsics, threshold=threshold * PLACED),
            fundamental=lambda matrix: to_fundamental(matrix, intrinsics),
            threshold=threshold,
        )
    measured["inliers"] = float(agree.sum())
    missed = epipolar_distances(truth, points0[agree], points1[agree])
    measured["inlier_error"] = float(np.median(missed)) if len(missed) else math.nan
    pose = to_pose(essential, points0[agree], points1[agree], intrinsics)
    if pose is None:
        return measured
    return measured | pose_errors(pose, t_0to1)


def find_essential(
    points0: Array, points1: Array, intrinsics: Sequence[Array], threshold: float
) -> tuple[Array | None, NDArray[np.bool_]]:
    """The essential matrix of matched points (M, 2), and its inliers, (M,).

    SuperGlue's: five points by RANSAC on normalised points, the threshold over the mean focal
    length. OpenCV's RANSAC is seeded. Of several matrices the one with the most points ahead of
    both cameras.
    """
    none = np.zeros(len(points0), np.bool_)
    if len(points0) < 5:
        return None, none
    focal = np.mean([k[axis, axis] for k in intrinsics for axis in (0, 1)])
    first, second = normalise(points0, intrinsics[0]), normalise(points1, intrinsics[1])
    found, mask = cv2.findEssentialMat(
        first, second, np.eye(3), cv2.RANSAC, CONFIDENCE, float(threshold / focal)
    )
    if found is None or found.shape[1] != 3 or not np.isfinite(found).all():
        return None, none
    agree = mask.reshape(-1) > 0
    best = max(
        (found[row : row + 3] for row in range(0, len(found), 3)),
        key=lambda matrix: cv2.recoverPose(matrix, first[agree], second[agree], np.eye(3))[0],
    )
    return np.asarray(best, np.float64), agree


def to_pose(
    essential: Array, points0: Array, points1: Array, intrinsics: Sequence[Array]
) -> Pose | None:
    """The pose under which the points lie ahead of both cameras; None where none do."""
    if len(points0) == 0:
        return None
    first, second = normalise(points0, intrinsics[0]), normalise(points1, intrinsics[1])
    count, rotation, translation, _ = cv2.recoverPose(essential, first, second, np.eye(3))
    return Pose(np.asarray(rotation), np.ravel(translation)) if count > 0 else None


def normalise(points: Array, intrinsics: Array) -> Array:
    """(M, 2) pixels to coordinates at a depth of 1."""
    rays = np.c_[points, np.ones(len(points))] @ np.linalg.inv(intrinsics).T
    return np.ascontiguousarray(rays[:, :2] / rays[:, 2:])


def essential_of(t_0to1: Array) -> Array:
    """The (3, 3) essential matrix of a pose."""
    x, y, z = t_0to1[:3, 3]
    return np.asarray(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ t_0to1[:3, :3])


def to_fundamental(essential: Array, intrinsics: Sequence[Array]) -> Array:
    """The (3, 3) fundamental matrix of pixels."""
    first, second = (np.linalg.inv(each) for each in intrinsics)
    return np.asarray(second.T @ essential @ first)


def pose_errors(pose: Pose, t_0to1: Array) -> dict[str, float]:
    """Angles in degrees. The sign of the translation does not count, as in SuperGlue."""
    cosine = (np.trace(pose.rotation.T @ t_0to1[:3, :3]) - 1) / 2
    rotation = math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))
    truth = t_0to1[:3, 3] / np.linalg.norm(t_0to1[:3, 3])
    along = abs(float(pose.translation @ truth)) / float(np.linalg.norm(pose.translation))
    translation = math.degrees(math.acos(min(1.0, along)))
    return {
        "rotation_error": rotation,
        "translation_error": translation,
        "pose_error": max(rotation, translation),
    }


def summarise_poses(
    results: Sequence[PoseResult], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Every measure over all pairs; intervals over pairs."""
    names = [result.name for result in results]
    records = [asdict(result) for result in results]
    over = partial(estimate, groups=names, resamples=resamples, seed=seed)
    values: Mapping[str, Any] = {
        key: np.array([record[key] for record in records], np.float64)
        for key in (*COLUMNS[:5], "pose_error")
    }
    summary = {key: over(values[key], statistic=finite_mean) for key in COLUMNS[:5]}
    for angle in ANGLES:
        area: Callable[..., float] = partial(area_under_curve, threshold=angle)
        summary[f"pose_auc_{angle}"] = over(values["pose_error"], statistic=area)
    return {"all": summary}
