"""OpenCV's stitching pipeline (``cv2.detail``) on SuperPoint keypoints; a model for planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError
from cv_superpoint.interop.stitching.pairs import (
    PairReport,
    StitchError,
    different_views,
    match_all,
    report,
    require_one_component,
    to_image_features,
)
from cv_superpoint.interop.stitching.placing import place_keypoints
from cv_superpoint.interop.stitching.plane import plane_panorama
from cv_superpoint.interop.stitching.rotation import rotation_panorama
from cv_superpoint.matching.drawing import to_bgr
from cv_superpoint.matching.matchers import Matcher
from cv_superpoint.matching.pairs import Extractor
from cv_superpoint.pictures.arrays import ByteArray

__all__ = ["PairReport", "Panorama", "StitchError", "shrink", "stitch", "to_image_features"]

Model = Literal["rotation", "plane"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panorama:
    """A panorama, and the pictures and cameras of which it was made.

    Attributes:
        image: (H, W, 3) uint8 BGR, black where no picture reaches.
        keypoints: Number of keypoints of each picture.
        pairs: Result for each two pictures.
        used: Indices of the pictures in it: those without whose view another shows in full.
        focal_lengths: Focal lengths of the camera of each picture used, in pixels of the picture as
            it was used; none where the model is a plane.
    """

    image: ByteArray
    keypoints: tuple[int, ...]
    pairs: tuple[PairReport, ...]
    used: tuple[int, ...]
    focal_lengths: tuple[float, ...]


def stitch(
    images: Sequence[Any],
    detector: Extractor,
    *,
    megapixels: float | None = 1.0,
    model: Model = "rotation",
    refine: bool = False,
    matcher: Matcher | None = None,
) -> Panorama:
    """Make a panorama of overlapping pictures.

    Args:
        images: Two or more, uint8 grey, BGR or BGRA, overlapping by about a third. Of pictures
            that show the same view the first is taken.
        detector: A :class:`~cv_superpoint.SuperPointFeature2D`; 1500 keypoints are plenty.
        megapixels: Size to which larger pictures are shrunk; None keeps them.
        model: "rotation" for a camera that turned in one place, "plane" for a flat scene (a wall,
            a page, a map) from anywhere.
        refine: Whether the pixels around them place the keypoints before the cameras are found.
        matcher: Matcher instead of OpenCV's nearest neighbours with a ratio test, such as a
            :class:`~cv_superpoint.LightGlueMatcher`.

    Raises:
        StitchError: If there are fewer than two, they do not belong together, all show the same
            view, or the model does not explain them.
        FeatureError: If one is not an image.
    """
    if len(images) < 2:
        raise StitchError(f"a panorama needs two pictures or more, got {len(images)}")
    if model not in ("rotation", "plane"):
        raise FeatureError(f'model must be "rotation" or "plane", got {model!r}')
    pictures = [shrink(to_bgr(image), megapixels) for image in images]
    features = [detector.extract(picture) for picture in pictures]
    try:
        return _stitch(pictures, features, model, refine, matcher)
    except (cv2.error, np.linalg.LinAlgError) as error:
        said = " ".join(str(error).split())
        raise StitchError(
            f"OpenCV cannot put these pictures together ({said}); leave out the smallest or the "
            "strangest of them"
        ) from error


def _stitch(
    pictures: list[ByteArray],
    features: list[Features],
    model: Model,
    refine: bool,
    matcher: Matcher | None,
) -> Panorama:
    converted, pairs, links = match_all(features, matcher)
    reports = report(pairs)
    require_one_component(len(pictures), links, reports)
    used = different_views([each.image_size for each in features], links)
    kept = features
    if len(used) < len(pictures):
        pictures, kept = [pictures[index] for index in used], [features[index] for index in used]
        converted, pairs, links = match_all(kept, matcher)
        require_one_component(len(pictures), links, report(pairs))
    if refine:
        _, links = place_keypoints(pictures, kept, converted, pairs, links)
        require_one_component(len(pictures), links, report(pairs))
    focal_lengths: list[float] = []
    if model == "plane":
        image = plane_panorama(pictures, links)
    else:
        image, focal_lengths = rotation_panorama(pictures, converted, pairs, links)
    return Panorama(
        image=image,
        keypoints=tuple(map(len, features)),
        pairs=reports,
        used=tuple(used),
        focal_lengths=tuple(focal_lengths),
    )


def shrink(image: ByteArray, megapixels: float | None) -> ByteArray:
    """The picture with at most so many million pixels, and at least one."""
    if megapixels is None:
        return image
    if not megapixels > 0:
        raise FeatureError(f"megapixels must be a positive number or None, got {megapixels}")
    height, width = image.shape[:2]
    scale = np.sqrt(megapixels * 1e6 / (height * width))
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
