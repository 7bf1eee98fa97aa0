"""The protocols: sizes, quotas, what counts, and how the homography is estimated.

The protocols are described in docs/evaluation.md. Figures of different ones are not comparable,
so a protocol's name goes with every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.metrics import Array, Size
from cv_superpoint.matching.estimators import Estimator

ProtocolName = Literal["paper", "auc", "plain", "warp"]


@dataclass(frozen=True, kw_only=True)
class Ransac:
    """Options of ``cv2.findHomography(..., cv2.RANSAC)``; the defaults are OpenCV's.

    OpenCV's RANSAC is seeded, so the same matches give the same homography.

    Attributes:
        threshold: Reprojection error of an inlier, pixels.
        iterations: Largest number of iterations.
        confidence: Confidence at which it stops early.
        estimator: Another estimator, of :func:`~cv_superpoint.matching.estimators.find_model`; the
            number of draws and the confidence are then its own. "dlt" fits all matches, see
            :func:`~cv_superpoint.matching.estimators.weighted_dlt`.
        order: Seed of the order in which the matches are given to it, which changes its draws; 0
            leaves them as they are.
    """

    threshold: float = 3.0
    iterations: int = 2000
    confidence: float = 0.995
    estimator: Estimator | Literal["dlt"] | None = None
    order: int = 0

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise SuperPointError(f"the RANSAC threshold must be positive, got {self.threshold}")


THOROUGH = Ransac(iterations=10_000, confidence=0.9999)
"""Few inliers need more draws than OpenCV's default stops at."""

VERY_LARGE_SEQUENCES = (
    "i_contruction",  # sic, as HPatches spells it
    "i_crownnight",
    "i_dc",
    "i_pencils",
    "i_whitebuilding",
    "v_artisans",
    "v_astronautis",
    "v_talent",
)
"""Sequences of HPatches above 1600 x 1200, left out by D2-Net, SuperGlue and glue-factory."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image is brought to the size of a protocol, always keeping its proportions.

    Attributes:
        rule: "cover": smallest size that covers ``size``, then the centre of exactly ``size``;
            "shorter" or "longer": that side becomes ``side``; "keep": unchanged.
        size: Height and width for "cover".
        side: Pixels for "shorter" and "longer".
        enlarge: Whether images that are smaller are scaled up.
    """

    rule: Literal["cover", "shorter", "longer", "keep"]
    size: Size = (0, 0)
    side: int = 0
    enlarge: bool = True

    def apply(self, image: Array) -> tuple[Array, Array]:
        """Resize and crop an image.

        Returns:
            The image, and the (3, 3) map from the old pixels to its own. As OpenCV resizes, old
            pixel x becomes (x + 0.5) * factor - 0.5; leaving the halves out shifts the truth by
            up to half a pixel, which shows at an error of 1 px.
        """
        height, width = image.shape[:2]
        if self.rule == "keep":
            return image, np.eye(3)
        if self.rule == "cover":
            factor = max(self.size[0] / height, self.size[1] / width)
        else:
            factor = self.side / (min if self.rule == "shorter" else max)(height, width)
        if factor > 1 and not self.enlarge:
            factor = 1.0
        new_height, new_width = round(height * factor), round(width * factor)
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, (new_width, new_height), interpolation=how)
        x, y = new_width / width, new_height / height
        scaling = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        if self.rule != "cover":
            return resized, scaling
        top, left = (new_height - self.size[0]) // 2, (new_width - self.size[1]) // 2
        crop = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        cropped = resized[top : top + self.size[0], left : left + self.size[1]]
        return np.ascontiguousarray(cropped), crop @ scaling


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run of the detector over a pair.

    Attributes:
        fit: The images' size.
        quota: Keypoints kept in each image, the strongest.
        counting: "paper": points whose warp lies outside the other image are dropped before the
            quota is applied; repeatability pools both images, the matching score averages over
            them. "plain": the quota comes first and all points are matched, the rates count the
            points in the shared view; repeatability is the mean of the two images' rates, the
            matching score is taken of the image with fewer points.
        nms_radius: Pixels of an additional suppression; None for the detector's own only.
        detection: Whether repeatability and localisation error are measured.
        description: Whether matches and the homography are measured.
    """

    fit: Fit
    quota: int
    counting: Literal["paper", "plain"]
    nms_radius: int | None = None
    detection: bool = True
    description: bool = True


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named set of passes.

    Attributes:
        name: Name, which goes with every result.
        passes: Each measures its part; together they fill one result per pair.
        ransac: How the homography is estimated.
        excluded: HPatches sequences left out.
        columns: Measures in the printed table (all are in the JSON).
    """

    name: ProtocolName
    passes: tuple[Pass, ...]
    ransac: Ransac = THOROUGH
    excluded: tuple[str, ...] = ()
    columns: tuple[str, ...] = (
        "keypoints",
        "repeatability",
        "localisation_error",
        "match_precision",
        "matching_score",
        "nn_map",
        "accuracy_1",
        "accuracy_3",
        "accuracy_5",
    )

    @property
    def quota(self) -> int:
        """The most keypoints that any pass keeps."""
        return max(step.quota for step in self.passes)


_PAPER = Protocol(
    name="paper",
    ransac=Ransac(),
    passes=(
        Pass(
            fit=Fit(rule="cover", size=(240, 320)),
            quota=300,
            counting="paper",
            nms_radius=4,
            description=False,
        ),
        Pass(fit=Fit(rule="cover", size=(480, 640)), quota=1000, counting="paper", detection=False),
    ),
)

PROTOCOLS: dict[ProtocolName, Protocol] = {
    "paper": _PAPER,
    "auc": Protocol(
        name="auc",
        passes=(Pass(fit=Fit(rule="shorter", side=480), quota=1024, counting="plain"),),
        excluded=VERY_LARGE_SEQUENCES,
        columns=("keypoints", "match_precision", "matching_score", "auc_1", "auc_3", "auc_5"),
    ),
    "plain": Protocol(
        name="plain",
        passes=(
            Pass(fit=Fit(rule="longer", side=640, enlarge=False), quota=1000, counting="plain"),
        ),
    ),
    "warp": Protocol(
        name="warp", passes=(Pass(fit=Fit(rule="keep"), quota=1000, counting="plain"),)
    ),
}
