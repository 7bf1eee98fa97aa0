"""OpenCV's stitching pipeline (``cv2.detail``) on our keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cv_superpoint.drawing import to_bgr
from cv_superpoint.errors import FeatureError
from cv_superpoint.features import Features
from cv_superpoint.image import ByteArray
from cv_superpoint.matching import Extractor

# Untyped: OpenCV's stubs allow neither arrays for cv2.UMat nor None for what comes out.
detail: Any = cv2.detail
umat: Any = cv2.UMat

CONFIDENCE = 0.8
"""Pairs below it are not neighbours; 1 is sure (OpenCV's measure of inliers against matches)."""
MATCH_CONFIDENCE = 0.1
"""The second nearest must be farther by this: a ratio of 0.9, where SIFT would take 0.7."""
REFINE_ALL = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0]], np.uint8)
"""Focal length, principal point and aspect ratio of each camera."""


class StitchError(ValueError):
    """The pictures do not make a panorama; the message says why."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What the matcher found between two pictures, counted from 0.

    Attributes:
        first: Index of one picture.
        second: Of the other, larger.
        matches: Between them.
        inliers: Of these, those that agree with a homography.
        confidence: OpenCV's measure; 1 is sure.
    """

    first: int
    second: int
    matches: int
    inliers: int
    confidence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Panorama:
    """A panorama and what it was made of.

    Attributes:
        image: (H, W, 3) uint8 BGR, black where no picture reaches.
        keypoints: Number of keypoints of each picture.
        pairs: What was found between each two pictures.
        focal_lengths: Of each picture's camera, in pixels of the picture as it was used.
    """

    image: ByteArray
    keypoints: tuple[int, ...]
    pairs: tuple[PairReport, ...]
    focal_lengths: tuple[float, ...]


def stitch(
    images: Sequence[Any], detector: Extractor, *, megapixels: float | None = 1.0
) -> Panorama:
    """A panorama of overlapping pictures taken from one place, the camera turning.

    Args:
        images: Two or more, uint8 grey, BGR or BGRA, overlapping by about a third.
        detector: A :class:`~cv_superpoint.SuperPointFeature2D`; 1500 keypoints are plenty.
        megapixels: Larger pictures are shrunk to this; None keeps them.

    Raises:
        StitchError: If there are fewer than two, or they do not belong together.
        FeatureError: If one is no image.
    """
    if len(images) < 2:
        raise StitchError(f"a panorama needs two pictures or more, got {len(images)}")
    pictures = [shrink(to_bgr(image), megapixels) for image in images]
    features = [
        to_image_features(detector.extract(picture), index)
        for index, picture in enumerate(pictures)
    ]
    pairs = _match(features)
    cameras = _cameras(features, pairs)
    return Panorama(
        image=_compose(pictures, cameras),
        keypoints=tuple(len(each.getKeypoints()) for each in features),
        pairs=_reports(pairs),
        focal_lengths=tuple(float(camera.focal) for camera in cameras),
    )


def shrink(image: ByteArray, megapixels: float | None) -> ByteArray:
    """The picture with at most so many million pixels."""
    if megapixels is None:
        return image
    if not megapixels > 0:
        raise FeatureError(f"megapixels must be a positive number or None, got {megapixels}")
    scale = np.sqrt(megapixels * 1e6 / (image.shape[0] * image.shape[1]))
    if scale >= 1:
        return image
    smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return smaller.astype(np.uint8, copy=False)


def to_image_features(features: Features, index: int) -> Any:
    """A ``cv2.detail.ImageFeatures``, which OpenCV's matchers and bundle adjusters take.

    Args:
        features: Of one picture.
        index: Its place in the sequence of pictures.
    """
    # Made by C++ and then filled: in OpenCV 4 the descriptors of a detail.ImageFeatures() made in
    # Python crash the interpreter (opencv/opencv#20979).
    filled = detail.computeImageFeatures2(cv2.ORB.create(1), np.zeros((16, 16), np.uint8))
    filled.img_idx = index
    filled.img_size = features.image_size[1], features.image_size[0]
    filled.keypoints = features.to_keypoints()
    if len(features):
        filled.descriptors = umat(features.descriptors)
    return filled


def _match(features: list[Any]) -> Any:
    matcher = detail.BestOf2NearestMatcher(False, MATCH_CONFIDENCE)
    pairs = matcher.apply2(features)
    matcher.collectGarbage()
    return pairs


def _reports(pairs: Any) -> tuple[PairReport, ...]:
    return tuple(
        PairReport(
            first=pair.src_img_idx,
            second=pair.dst_img_idx,
            matches=len(pair.getMatches()),
            inliers=pair.num_inliers,
            confidence=pair.confidence,
        )
        for pair in pairs
        if pair.src_img_idx < pair.dst_img_idx
    )


def _cameras(features: list[Any], pairs: Any) -> list[Any]:
    """Focal length and rotation of each camera."""
    found = ", ".join(
        f"{each.first + 1} and {each.second + 1}: {each.inliers} of {each.matches} matches agree"
        for each in _reports(pairs)
    )
    count = len(features)
    kept = np.asarray(detail.leaveBiggestComponent(features, pairs, CONFIDENCE)).reshape(-1)
    if len(kept) < count:
        together = ", ".join(str(index + 1) for index in kept)
        which = f"only pictures {together} belong" if len(kept) > 1 else "no two pictures belong"
        raise StitchError(
            f"{which} together ({found}); leave the others out, or take pictures that overlap more"
        )
    done, cameras = detail.HomographyBasedEstimator().apply(features, pairs, None)
    if done:
        for camera in cameras:
            camera.R = camera.R.astype(np.float32)  # the only type that the adjuster takes
        adjuster = detail.BundleAdjusterRay()
        adjuster.setConfThresh(CONFIDENCE)
        adjuster.setRefinementMask(REFINE_ALL)
        done, cameras = adjuster.apply(features, pairs, cameras)
    if not done:
        raise StitchError(
            f"no cameras fit the pictures ({found}); they must be taken from one place"
        )
    straight = detail.waveCorrect(
        [np.copy(camera.R) for camera in cameras], detail.WAVE_CORRECT_HORIZ
    )
    for camera, rotation in zip(cameras, straight, strict=True):
        camera.R = rotation
    return list(cameras)


def _compose(images: list[ByteArray], cameras: list[Any]) -> ByteArray:
    """Warp the pictures onto a cylinder, even out exposure, cut along seams, blend."""
    focal = float(np.median([camera.focal for camera in cameras]))
    warper = cv2.PyRotationWarper("cylindrical", focal)
    places, warped, masks = [], [], []
    for image, camera in zip(images, cameras, strict=True):
        intrinsics = camera.K().astype(np.float32)
        full = np.full(image.shape[:2], 255, np.uint8)
        place, picture = warper.warp(
            image, intrinsics, camera.R, cv2.INTER_LINEAR, cv2.BORDER_REFLECT
        )
        mask = warper.warp(full, intrinsics, camera.R, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)[1]
        places.append(place)
        warped.append(picture)
        masks.append(mask)
    compensator = detail.ExposureCompensator.createDefault(detail.EXPOSURE_COMPENSATOR_GAIN_BLOCKS)
    compensator.feed(places, warped, masks)
    for index, place in enumerate(places):
        warped[index] = compensator.apply(index, place, warped[index], masks[index])
    seams = detail.GraphCutSeamFinder("COST_COLOR").find(
        [each.astype(np.float32) for each in warped], places, masks
    )
    blender = detail.MultiBandBlender()
    blender.prepare(detail.resultRoi(places, [(each.shape[1], each.shape[0]) for each in warped]))
    for place, picture, seam in zip(places, warped, seams, strict=True):
        mask = seam.get() if isinstance(seam, cv2.UMat) else seam
        blender.feed(picture.astype(np.int16), mask, place)
    result = blender.blend(None, None)[0]
    panorama: ByteArray = np.clip(result, 0, 255).astype(np.uint8)
    return panorama
