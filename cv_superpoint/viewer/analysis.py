"""What the viewer shows of two pictures: keypoints, heatmap, matches, overlay, figures."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.arrays import logits_to_heatmap
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.detector.features import Features
from cv_superpoint.detector.runtime import Runtime
from cv_superpoint.geometry import corner_error
from cv_superpoint.matching.drawing import draw_keypoints, draw_matches, draw_overlay
from cv_superpoint.matching.estimators import find_model
from cv_superpoint.matching.matchers import Matcher, NearestNeighbours, check_matches
from cv_superpoint.matching.refining import refine_homography
from cv_superpoint.pictures.arrays import ByteArray, pad, to_channels
from cv_superpoint.weights import load_weights

REFINED = ", refined"
"""Behind a detector's name in the table, of its matches placed by the pixels around them."""
PIXELS = 3.0
"""Error up to which a match is an inlier."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The page's sliders.

    Attributes:
        decoding: What is kept; ``max_keypoints`` counts for SIFT and ORB, too.
        pyramid: Detect at half the size as well.
        matcher: Of our features.
        refine: Also place the matches of every detector by the pixels around them; pictures of
            matches and the overlay then show these, the table both.
    """

    decoding: Decoding
    pyramid: bool = False
    matcher: Matcher = field(default_factory=NearestNeighbours)
    refine: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one detector found.

    Attributes:
        name: Of the detector.
        counts: Keypoints of both pictures.
        points0: (M, 2) matched points in picture 0.
        points1: (M, 2) in picture 1.
        inliers: (M,) bool.
        homography: From picture 0 to picture 1, or None.
        milliseconds: For both pictures, without the matching; with the refinement.
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
        error = "-"
        if truth is not None and self.homography is not None:
            error = f"{corner_error(self.homography, truth, size):.2f}"
        return [
            self.name,
            *self.counts,
            matches,
            inliers,
            f"{inliers / max(matches, 1):.0%}",
            error,
            round(self.milliseconds),
        ]


COLUMNS = (
    *("detector", "keypoints 1", "keypoints 2", "matches", "inliers", "share"),
    *("corner error, px", "ms"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """Everything on the page.

    Attributes:
        keypoints0: Picture 0 with our keypoints, BGR.
        keypoints1: Picture 1 with our keypoints.
        heatmap: Of picture 0.
        matches: Picture of the matches by detector.
        overlay: Picture 0 warped onto picture 1, or picture 1 where there is no homography.
        rows: The table, in the order of :data:`COLUMNS`.
        download: A zip archive of keypoints, descriptors and matches.
    """

    keypoints0: ByteArray
    keypoints1: ByteArray
    heatmap: ByteArray
    matches: dict[str, ByteArray]
    overlay: ByteArray
    rows: list[list[Any]]
    download: bytes


class LoadedNetwork:
    """Weights that run on a device; what is kept changes without loading them again.

    Args:
        weights: Bundled name or file, or None.
        device: As of ``SuperPointFeature2D``.
    """

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        loaded = load_weights(weights)
        self.recommended, self._scales = loaded.decoding(), loaded.scales
        config = DetectorConfig(decoding=self.recommended)
        self._detector, _ = Runtime(device=device).start(loaded, config)

    def detector(self, settings: Settings) -> Detector:
        """A detector with these settings."""
        scales = (1.0, 0.5) if settings.pyramid else self._scales
        config = DetectorConfig(decoding=settings.decoding, scales=scales)
        return self._detector.configured(config)

    def heatmap(self, image: ByteArray) -> ByteArray:
        """The probabilities of a keypoint, to the power of a quarter, in colours."""
        pixels = pad(to_channels(image, self._detector.channels))
        batch = pixels.reshape(1, *pixels.shape[:2], self._detector.channels)
        logits, _ = self._detector.backend.run(batch)
        heat = logits_to_heatmap(logits[0])[: image.shape[0], : image.shape[1]]
        levels = np.clip(255 * heat**0.25, 0, 255).astype(np.uint8)
        coloured: ByteArray = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO))
        return coloured


def analyse(
    image0: ByteArray,
    image1: ByteArray,
    settings: Settings,
    network: LoadedNetwork,
    truth: NDArray[np.float64] | None = None,
) -> Analysis:
    """Compare two pictures with our detector, SIFT and ORB.

    Args:
        image0: BGR.
        image1: BGR.
        settings: The options.
        network: Ours.
        truth: Homography from picture 0 to picture 1, where it is known.
    """
    detector = network.detector(settings)
    start = time.perf_counter()
    features = detector.extract(image0), detector.extract(image1)
    seconds = time.perf_counter() - start
    pairs, _ = check_matches(settings.matcher(*features), *features)
    ours = _verified(
        "SuperPoint", features[0].keypoints, features[1].keypoints, pairs, 1e3 * seconds
    )
    count = settings.decoding.max_keypoints
    others = [
        _classic("SIFT", lambda: cv2.SIFT.create(count), cv2.NORM_L2, image0, image1),
        _classic("ORB", lambda: cv2.ORB.create(count), cv2.NORM_HAMMING, image0, image1),
    ]
    size = image0.shape[0], image0.shape[1]
    listed = shown = [ours, *others]
    if settings.refine:
        shown = [_refined(each, image0, image1) for each in listed]
        listed = [each for both in zip(listed, shown, strict=True) for each in both]
    ours = shown[0]
    return Analysis(
        keypoints0=draw_keypoints(image0, features[0]),
        keypoints1=draw_keypoints(image1, features[1]),
        heatmap=network.heatmap(image0),
        matches={
            each.name.removesuffix(REFINED): draw_matches(
                image0, image1, each.points0, each.points1, inliers=each.inliers, outliers=True
            )
            for each in shown
        },
        overlay=(
            image1 if ours.homography is None else draw_overlay(image0, image1, ours.homography)
        ),
        rows=[each.row(size, truth) for each in listed],
        download=_archive(features, pairs, ours),
    )


def _refined(found: Found, image0: ByteArray, image1: ByteArray) -> Found:
    """What was found, with its matches placed by their pixels; the time includes that."""
    name = found.name + REFINED
    if found.homography is None:
        return replace(found, name=name)
    start = time.perf_counter()
    exact = refine_homography(
        image0, image1, found.points0, found.points1, found.homography, threshold=PIXELS
    )
    milliseconds = found.milliseconds + 1e3 * (time.perf_counter() - start)
    return replace(
        found,
        name=name,
        points1=exact.points1,
        homography=exact.homography,
        milliseconds=milliseconds,
    )


def _classic(
    name: str, create: Callable[[], Any], norm: int, image0: ByteArray, image1: ByteArray
) -> Found:
    detector = create()
    start = time.perf_counter()
    found = [detector.detectAndCompute(image, None) for image in (image0, image1)]
    seconds = time.perf_counter() - start
    points = [
        np.array([one.pt for one in keypoints], np.float32).reshape(-1, 2) for keypoints, _ in found
    ]
    pairs = np.empty((0, 2), np.intp)
    if all(rows is not None for _, rows in found):
        matches = cv2.BFMatcher(norm, crossCheck=True).match(found[0][1], found[1][1])
        pairs = np.array([(one.queryIdx, one.trainIdx) for one in matches], np.intp).reshape(-1, 2)
    return _verified(name, points[0], points[1], pairs, 1e3 * seconds)


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
