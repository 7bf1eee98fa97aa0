"""What the viewer shows of two pictures: matches, figures, overlay, keypoints, heatmap."""

from __future__ import annotations

import io
import statistics
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.geometry import corner_error
from cv_superpoint.matching.drawing import draw_keypoints, draw_overlay
from cv_superpoint.matching.estimators import find_model
from cv_superpoint.matching.matchers import Matcher, build_matcher, check_matches
from cv_superpoint.matching.refining import refine_homography
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.viewer.networks import DetectorSettings, LoadedNetwork
from cv_superpoint.viewer.pictures import draw_on_screen, warp_onto
from cv_superpoint.weights import WeightsError

REFINED = ", refined"
"""Suffix of a detector's name in the table, for its matches placed by the pixels around them."""
PIXELS = 3.0
"""Error up to which a match is an inlier."""
COLUMNS = ("detector", "keypoints", "matches", "inliers", "share", "error, px", "ms")
"""Columns of the table; keypoints are those of both pictures, the error is that of the corners."""
UNKNOWN = "-"
"""A corner error without a homography, or where the true one is not known."""
RUNS, SECONDS = 5, 1.0
"""Warm runs that a time is the median of, at most, and how long they may take together."""

NEAREST = "mutual"
"""Name of the matcher that every set has."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The page's options.

    Attributes:
        detection: Options of our detectors.
        matcher: Matcher of our features, by its name for :func:`build_matcher`.
        refine: Also place the matches of every detector by the pixels around them; pictures of
            matches and the overlay then show these, the table both.
    """

    detection: DetectorSettings = field(default_factory=DetectorSettings)
    matcher: str = NEAREST
    refine: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one detector found.

    Attributes:
        name: Name of the detector.
        counts: Keypoints of both pictures.
        points0: (M, 2) matched points in picture 0.
        points1: (M, 2) in picture 1.
        inliers: (M,) bool.
        homography: Homography from picture 0 to picture 1, or None.
        milliseconds: Detection and description in both pictures, without the matching, with the
            refinement; the median of warm runs.
    """

    name: str
    counts: tuple[int, int]
    points0: NDArray[np.float32]
    points1: NDArray[np.float32]
    inliers: NDArray[np.bool_]
    homography: NDArray[np.float64] | None
    milliseconds: float

    def row(self, size: tuple[int, int], truth: NDArray[np.float64] | None) -> list[Any]:
        """A row of :data:`COLUMNS`."""
        matches, inliers = len(self.points0), int(self.inliers.sum())
        error = UNKNOWN
        if truth is not None and self.homography is not None:
            error = f"{corner_error(self.homography, truth, size):.2f}"
        return [
            self.name,
            "{} / {}".format(*self.counts),
            matches,
            inliers,
            f"{inliers / max(matches, 1):.0%}",
            error,
            f"{self.milliseconds:.3g}" if self.milliseconds < 10 else f"{self.milliseconds:.0f}",
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """Everything on the page.

    Attributes:
        keypoints0: Picture 0 with the keypoints of the first network, BGR.
        keypoints1: Picture 1 with them.
        heatmap: Heatmap of picture 0, by the first network.
        matches: Picture of the matches by detector: our networks, SIFT, ORB.
        overlay: Picture 0 warped onto picture 1 in red, picture 1 in cyan; picture 1 where there is
            no homography.
        warped: Picture 0 warped onto picture 1, likewise.
        rows: The table, in the order of :data:`COLUMNS`.
        download: A zip archive of the first network's keypoints, descriptors and matches.
    """

    keypoints0: ByteArray
    keypoints1: ByteArray
    heatmap: ByteArray
    matches: dict[str, ByteArray]
    overlay: ByteArray
    warped: ByteArray
    rows: list[list[Any]]
    download: bytes


def analyse(
    image0: ByteArray,
    image1: ByteArray,
    settings: Settings,
    networks: Sequence[LoadedNetwork],
    truth: NDArray[np.float64] | None = None,
) -> Analysis:
    """Compare two pictures with our detectors, SIFT and ORB.

    Args:
        image0: BGR.
        image1: BGR.
        settings: The options.
        networks: Our networks, at least one; the first is shown in all views.
        truth: Homography from picture 0 to picture 1, where it is known.

    Raises:
        FeatureError: If a set of weights or a matcher cannot do what the settings ask for.
    """
    ours = [_network(each, settings, image0, image1) for each in networks]
    features, pairs, _ = ours[0]
    count = settings.detection.max_keypoints
    listed = [found for _, _, found in ours]
    listed += [
        _classic("SIFT", cv2.SIFT.create(count), cv2.NORM_L2, image0, image1),
        _classic("ORB", cv2.ORB.create(count), cv2.NORM_HAMMING, image0, image1),
    ]
    size = image0.shape[0], image0.shape[1]
    shown = listed
    if settings.refine:
        shown = [_refined(each, image0, image1) for each in listed]
        listed = [each for both in zip(listed, shown, strict=True) for each in both]
    homography = shown[0].homography
    return Analysis(
        keypoints0=draw_keypoints(image0, features[0]),
        keypoints1=draw_keypoints(image1, features[1]),
        heatmap=networks[0].heatmap(image0),
        matches={
            each.name.removesuffix(REFINED): draw_on_screen(
                image0, image1, each.points0, each.points1, each.inliers
            )
            for each in shown
        },
        overlay=draw_overlay(image0, image1, homography) if homography is not None else image1,
        warped=warp_onto(image0, image1, homography) if homography is not None else image1,
        rows=[each.row(size, truth) for each in listed],
        download=_archive(features, pairs, shown[0]),
    )


def _warm(run: Callable[[], T]) -> tuple[T, float]:
    """The result of a first run, and the median time of some more, in milliseconds."""
    result = run()
    times: list[float] = []
    while not times or (len(times) < RUNS and sum(times) < SECONDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return result, 1e3 * statistics.median(times)


@cache
def _matcher(name: str) -> Matcher:
    """A matcher by name; a learned one is loaded once."""
    return build_matcher(name)


def _match(
    name: str, network: LoadedNetwork, features: tuple[Features, Features]
) -> tuple[str, NDArray[np.intp]]:
    """The name of the network's row, and matched rows: the one place where the matcher is chosen.

    Weights without a learned matcher have their nearest neighbours matched, which the name tells.
    """
    try:
        found, label = _matcher(name)(*features), network.name
    except WeightsError:
        found, label = _matcher(NEAREST)(*features), f"{network.name}, {NEAREST}"
    return label, check_matches(found, *features)[0]


def _network(
    network: LoadedNetwork, settings: Settings, image0: ByteArray, image1: ByteArray
) -> tuple[tuple[Features, Features], NDArray[np.intp], Found]:
    """Features of both pictures, matched rows, and what the table and the views show."""
    detector = network.detector(settings.detection)
    features, milliseconds = _warm(lambda: (detector.extract(image0), detector.extract(image1)))
    label, pairs = _match(settings.matcher, network, features)
    points = features[0].keypoints, features[1].keypoints
    return features, pairs, _verified(label, *points, pairs, milliseconds)


def _refined(found: Found, image0: ByteArray, image1: ByteArray) -> Found:
    """What was found, with its matches placed by their pixels; the time includes that."""
    name = found.name + REFINED
    if found.homography is None:
        return replace(found, name=name)
    points, homography = (found.points0, found.points1), found.homography
    exact, milliseconds = _warm(
        lambda: refine_homography(image0, image1, *points, homography, threshold=PIXELS)
    )
    return replace(
        found,
        name=name,
        points1=exact.points1,
        homography=exact.homography,
        milliseconds=found.milliseconds + milliseconds,
    )


def _classic(
    name: str, detector: cv2.Feature2D, norm: int, image0: ByteArray, image1: ByteArray
) -> Found:
    found, milliseconds = _warm(
        lambda: [detector.detectAndCompute(image, None) for image in (image0, image1)]
    )
    points = [
        np.array([one.pt for one in keypoints], np.float32).reshape(-1, 2) for keypoints, _ in found
    ]
    pairs = np.empty((0, 2), np.intp)
    if all(rows is not None for _, rows in found):
        matches = cv2.BFMatcher(norm, crossCheck=True).match(found[0][1], found[1][1])
        pairs = np.array([(one.queryIdx, one.trainIdx) for one in matches], np.intp).reshape(-1, 2)
    return _verified(name, points[0], points[1], pairs, milliseconds)


def _verified(
    name: str,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    pairs: NDArray[np.intp],
    milliseconds: float,
) -> Found:
    matched = points0[pairs[:, 0]], points1[pairs[:, 1]]
    homography, inliers = find_model(*matched, threshold=PIXELS)
    return Found(
        name=name,
        counts=(len(points0), len(points1)),
        points0=matched[0],
        points1=matched[1],
        inliers=inliers,
        homography=homography,
        milliseconds=milliseconds,
    )


def _archive(features: tuple[Features, Features], pairs: NDArray[np.intp], ours: Found) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, each in enumerate(features):
            arrays = io.BytesIO()
            np.savez(
                arrays, keypoints=each.keypoints, scores=each.scores, descriptors=each.descriptors
            )
            archive.writestr(f"keypoints{index}.npz", arrays.getvalue())
        table = np.c_[pairs, ours.points0, ours.points1, ours.inliers]
        lines = io.StringIO()
        header = "row0,row1,x0,y0,x1,y1,inlier"
        np.savetxt(lines, table, fmt="%.9g", delimiter=",", header=header, comments="")
        archive.writestr("matches.csv", lines.getvalue())
    return data.getvalue()
