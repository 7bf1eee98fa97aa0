"""Which pictures belong together, and by which matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features, float_rows
from cv_superpoint.errors import SuperPointError
from cv_superpoint.interop.stitching.matched import match_pictures
from cv_superpoint.matching.matchers import Matcher
from cv_superpoint.matching.verdict import LIMIT, log_false_alarms

# Untyped: OpenCV's stubs allow neither arrays for cv2.UMat nor None for what comes out.
detail: Any = cv2.detail
umat: Any = cv2.UMat

Points = NDArray[np.float64]

NEIGHBOURS = 1.0
"""Confidence that OpenCV's estimators are told of pictures that belong together; of others 0."""
MATCH_CONFIDENCE = 0.1
"""The second nearest must be farther by this: a ratio of 0.9, where SIFT would take 0.7."""
LARGEST_MISS = 0.005
"""Median distance by which a link may miss its place, as a share of a picture's diagonal."""
SAME_VIEW = 0.98
"""Overlap, as intersection over union, from which on two pictures show the same."""


class StitchError(SuperPointError):
    """The pictures do not make a panorama; the message says why."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What the matcher found between two pictures, counted from 0.

    Attributes:
        first: Index of one picture.
        second: Index of the other, larger.
        matches: Number of matches between them.
        inliers: Number of these that agree with a homography.
        confidence: ``inliers / (8 + 0.3 * matches)``, OpenCV's measure; 1 is sure.
        reliable: Whether they belong together: chance does not explain the inliers (see
            :mod:`cv_superpoint.matching.verdict`), however few they are of all matches.
    """

    first: int
    second: int
    matches: int
    inliers: int
    confidence: float
    reliable: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """Two pictures that overlap.

    Attributes:
        first: Index of one picture.
        second: Index of the other, larger.
        points0: (K, 2) inliers in pixels of the first.
        points1: (K, 2) in pixels of the second, row by row.
        homography: (3, 3) from the first to the second.
        rows: (K,) each, of the keypoints of both pictures that the inliers are.
    """

    first: int
    second: int
    points0: Points
    points1: Points
    homography: NDArray[np.float64]
    rows: tuple[NDArray[np.intp], NDArray[np.intp]] = (np.zeros(0, np.intp), np.zeros(0, np.intp))


def to_image_features(features: Features, index: int) -> Any:
    """A ``cv2.detail.ImageFeatures``, which OpenCV's matchers and bundle adjusters take.

    Args:
        features: Features of one picture.
        index: Place of the picture in the sequence.
    """
    # Made by C++ and then filled: in OpenCV 4 the descriptors of a detail.ImageFeatures() made in
    # Python crash the interpreter (opencv/opencv#20979).
    filled = detail.computeImageFeatures2(cv2.ORB.create(1), np.zeros((16, 16), np.uint8))
    filled.img_idx = index
    filled.img_size = features.image_size[1], features.image_size[0]
    filled.keypoints = features.to_keypoints()
    if len(features):
        # OpenCV's matcher takes uint8 rows for bits.
        binary = features.descriptor_kind == "binary"
        rows = features.descriptors if binary else float_rows(features, "cv2.detail")
        filled.descriptors = umat(rows)
    return filled


def match_all(
    features: Sequence[Features], matcher: Matcher | None = None
) -> tuple[list[Any], Any, list[Link]]:
    """OpenCV's features, matches of every two of them, and the pairs that belong together.

    Args:
        features: Features of each picture.
        matcher: Matcher instead of OpenCV's own.
    """
    converted = [to_image_features(each, index) for index, each in enumerate(features)]
    if matcher is not None:
        pairs = match_pictures(features, converted, matcher)
        return converted, pairs, find_links(features, pairs)
    try:
        with ThreadPoolExecutor(1) as own:
            pairs = own.submit(_match_seeded, converted).result()
    except RuntimeError:  # no more threads, as at the end of the interpreter
        pairs = _match_seeded(converted)
    return converted, pairs, find_links(features, pairs)


def find_links(features: Sequence[Features], pairs: Any) -> list[Link]:
    """The pairs of pictures that belong together; OpenCV's confidence of the others becomes 0."""
    links = []
    for pair in pairs:
        first, second = pair.src_img_idx, pair.dst_img_idx
        pair.confidence = 0.0
        if not 0 <= first < second:
            continue
        link = _find_link(features, pair)
        if link is not None:
            links.append(link)
            pair.confidence = pairs[second * len(features) + first].confidence = NEIGHBOURS
    return links


def _match_seeded(converted: list[Any]) -> Any:
    """OpenCV's matches, the same in every call.

    Its nearest neighbours are approximate and depend on the state of the thread's generator. Call
    it in a thread of its own, so that the caller's generator keeps its state.
    """
    cv2.setRNGSeed(0)
    matcher = detail.BestOf2NearestMatcher(False, MATCH_CONFIDENCE)
    pairs = matcher.apply2(converted)
    matcher.collectGarbage()
    return pairs


def report(pairs: Any) -> tuple[PairReport, ...]:
    """What was found between each two pictures."""
    return tuple(
        PairReport(
            first=pair.src_img_idx,
            second=pair.dst_img_idx,
            matches=len(pair.getMatches()),
            inliers=pair.num_inliers,
            confidence=pair.num_inliers / (8 + 0.3 * len(pair.getMatches())),
            reliable=pair.confidence > 0,
        )
        for pair in pairs
        if 0 <= pair.src_img_idx < pair.dst_img_idx
    )


def _find_link(features: Sequence[Features], pair: Any) -> Link | None:
    """The link of a pair of pictures, if chance does not explain it.

    OpenCV's confidence asks how many of the matches agree; of pictures that overlap by a fifth
    that are few. It also calls pictures unrelated of which nearly all agree.
    """
    first, second = pair.src_img_idx, pair.dst_img_idx
    agree = np.asarray(pair.getInliers()).reshape(-1) > 0
    if agree.sum() < 4:
        return None
    rows = np.array([(match.queryIdx, match.trainIdx) for match in pair.getMatches()], np.intp)
    points0 = features[first].keypoints[rows[agree, 0]].astype(np.float64)
    points1 = features[second].keypoints[rows[agree, 1]].astype(np.float64)
    homography = cv2.findHomography(points0, points1, 0)[0]
    if homography is None:
        return None
    matrix = np.asarray(homography, np.float64)
    alarms = log_false_alarms(features[first], features[second], rows, matrix, "homography")
    if alarms > LIMIT:
        return None
    return Link(
        first=first,
        second=second,
        points0=points0,
        points1=points1,
        homography=matrix,
        rows=(rows[agree, 0], rows[agree, 1]),
    )


def components(count: int, links: Iterable[Link]) -> list[list[int]]:
    """Groups of the pictures 0 to ``count - 1`` that links join, the largest first."""
    group = list(range(count))
    for link in links:
        one, other = group[link.first], group[link.second]
        group = [one if each == other else each for each in group]
    members = [
        [index for index in range(count) if group[index] == which] for which in sorted(set(group))
    ]
    return sorted(members, key=len, reverse=True)


def require_one_component(count: int, links: Iterable[Link], reports: Iterable[PairReport]) -> None:
    """Check that all pictures belong together.

    Raises:
        StitchError: If they do not; the message names those that do.
    """
    kept = components(count, links)[0]
    if len(kept) == count:
        return
    found = ", ".join(
        f"{each.first + 1} and {each.second + 1}: {each.inliers} of {each.matches} matches agree"
        for each in reports
    )
    together = ", ".join(str(index + 1) for index in kept)
    which = f"only pictures {together} belong" if len(kept) > 1 else "no two pictures belong"
    raise StitchError(
        f"{which} together ({found}); leave the others out, or take pictures that overlap more"
    )


def different_views(sizes: Sequence[tuple[int, int]], links: Sequence[Link]) -> list[int]:
    """The pictures without those that show the same as one before them.

    Args:
        sizes: (height, width) of each picture.
        links: Links between the pictures.

    Raises:
        StitchError: If all show the same.
    """
    same = [
        link for link in links if _overlap(link, sizes[link.first], sizes[link.second]) > SAME_VIEW
    ]
    kept = sorted(group[0] for group in components(len(sizes), same))
    if len(kept) == 1:
        raise StitchError(
            f"the {len(sizes)} pictures show the same view, so there is nothing to put together; "
            "take pictures that overlap by a third, not in full"
        )
    return kept


def _overlap(link: Link, size0: tuple[int, int], size1: tuple[int, int]) -> float:
    """Intersection over union of the second picture and the first as the second would see it."""
    placed = cv2.perspectiveTransform(outline(size0)[None], link.homography)[0]
    other = outline(size1)
    shared = cv2.intersectConvexConvex(placed.astype(np.float32), other.astype(np.float32))[0]
    area = abs(cv2.contourArea(placed.astype(np.float32))) + size1[0] * size1[1]
    return float(shared / (area - shared)) if area > shared else 1.0


def outline(size: tuple[int, int]) -> Points:
    """(4, 2) corners of a picture's area, half a pixel beyond the centres of its corner pixels."""
    height, width = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5


def worst_link(
    links: Iterable[Link], maps: dict[tuple[int, int], NDArray[np.float64]]
) -> tuple[float, Link]:
    """The link whose inliers a model misses most: median distance in pixels of its second picture.

    Args:
        links: One or more.
        maps: (3, 3) homographies of the model by the pictures of a link.
    """
    missed = []
    for link in links:
        places = cv2.perspectiveTransform(link.points0[None], maps[link.first, link.second])[0]
        distance = np.linalg.norm(places - link.points1, axis=1)
        missed.append((float(np.median(np.nan_to_num(distance, nan=np.inf))), link))
    return max(missed, key=lambda each: each[0])
