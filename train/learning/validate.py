"""Measures on warped pairs of photographs, for watching a run (the ``warp`` protocol, in small)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.evaluation import metrics
from cv_superpoint.evaluation.figures import draw_judged
from cv_superpoint.evaluation.predictions import Detections
from cv_superpoint.evaluation.statistics import accuracy, finite_mean
from cv_superpoint.geometry import (
    HomographyConfig,
    Matrix,
    corner_error,
    sample_homography,
    warp_image,
)
from cv_superpoint.synthetic.photometric import Image, PhotometricConfig, photometric
from train.data.images import ImageConfig, load_readable, to_tensor
from train.learning.detect import LOW, detect
from train.learning.model import TrainingNetwork
from train.reporting.pictures import to_bgr


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How a network is watched.

    Attributes:
        pairs: Number of warped pairs, one per photograph.
        points: Strongest keypoints of an image that count.
        homography: Homography from image 0 to image 1.
        photometric: Changes of image 1.
        seed: Seed of the warps: the same for all runs.
    """

    pairs: int = 12
    points: int = 300
    homography: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.7, 1.3), rotation=0.5, corner_jitter=0.12, translation=0.05
        )
    )
    photometric: PhotometricConfig = field(default_factory=lambda: PhotometricConfig(speckle=0.0))
    seed: int = 12345


@dataclass(frozen=True)
class WarpedPair:
    """Two uint8 images, (H, W) or (H, W, 3) RGB, and the homography from first to second."""

    image0: Image
    image1: Image
    homography: Matrix


def fixed_pairs(
    paths: list[Path], sizes: ImageConfig, config: ValidationConfig
) -> list[WarpedPair]:
    """The validation pairs of the first photographs.

    Raises:
        ValueError: If none of them can be read.
    """
    pairs = []
    for index, image in enumerate(islice(load_readable(paths, sizes), config.pairs)):
        rng = np.random.default_rng((config.seed, index))
        size = (image.shape[0], image.shape[1])
        homography = sample_homography(rng, size, config.homography)
        warped = warp_image(image, homography, size, border=cv2.BORDER_CONSTANT)
        pairs.append(WarpedPair(image, photometric(rng, warped, config.photometric), homography))
    if paths and not pairs:
        raise ValueError(f"none of the {len(paths)} photographs that are held out can be read")
    return pairs


def detect_pair(
    network: TrainingNetwork, pair: WarpedPair, count: int
) -> tuple[Detections, Detections]:
    """The strongest keypoints of both images, those that the other image shows."""
    found = [
        detect(network, to_tensor(image)[None], LOW)[0] for image in (pair.image0, pair.image1)
    ]
    sizes = [(image.shape[0], image.shape[1]) for image in (pair.image0, pair.image1)]
    shared = metrics.shared_view(found[0].points, found[1].points, pair.homography, *sizes)
    first, second = (
        detections.take(np.flatnonzero(kept)[:count])
        for detections, kept in zip(found, shared, strict=True)
    )
    return first, second


def measure_pairs(
    network: TrainingNetwork, pairs: list[WarpedPair], config: ValidationConfig
) -> dict[str, float]:
    """Repeatability and localisation error (3 px), matching score, homography accuracy."""
    rows: dict[str, list[float]] = {}
    corner_errors = []
    for pair in pairs:
        first, second = detect_pair(network, pair, config.points)
        repeats, localisation = metrics.repeatability(first.points, second.points, pair.homography)
        matches = _mutual_matches(first, second)
        errors = metrics.match_errors(first.points, second.points, matches, pair.homography)
        score = metrics.matching_score(errors, len(first.points), len(second.points))
        measures = {"repeatability": repeats, "localisation": localisation, "matching": score}
        for name, value in measures.items():
            rows.setdefault(name, []).append(value)
        size = (pair.image0.shape[0], pair.image0.shape[1])
        estimate = _homography(first.points[matches[:, 0]], second.points[matches[:, 1]])
        corner_errors.append(corner_error(estimate, pair.homography, size))
    result = {name: finite_mean(np.array(values)) for name, values in rows.items()}
    for pixels in (1, 3):
        result[f"homography_{pixels}px"] = accuracy(np.array(corner_errors), pixels)
    return result


def _mutual_matches(first: Detections, second: Detections) -> npt.NDArray[np.intp]:
    distances = metrics.descriptor_distances(first.descriptors, second.descriptors, binary=False)
    return np.asarray(metrics.mutual_matches(distances))


def _homography(
    points0: npt.NDArray[np.float32], points1: npt.NDArray[np.float32]
) -> Matrix | None:
    if len(points0) < 4:
        return None
    estimate, _ = cv2.findHomography(points0, points1, cv2.RANSAC, 3.0)
    return None if estimate is None else np.asarray(estimate, dtype=np.float64)


def draw_pair(network: TrainingNetwork, pair: WarpedPair, count: int) -> npt.NDArray[np.uint8]:
    """A picture of a pair's mutual matches: green within 3 px, red otherwise."""
    first, second = detect_pair(network, pair, count)
    matches = _mutual_matches(first, second)
    errors = metrics.match_errors(first.points, second.points, matches, pair.homography)
    images = (to_bgr(pair.image0), to_bgr(pair.image1))
    correct = errors <= metrics.CORRECT_DISTANCE
    return draw_judged(*images, first.points, second.points, matches, correct, len(matches))
