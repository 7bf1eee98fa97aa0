"""A panorama of two or three pictures: our keypoints in OpenCV's stitching pipeline (cv2.detail).

python examples/panorama.py                              three views cut from a photograph
python examples/panorama.py left.jpg middle.jpg right.jpg    your own, overlapping by a third

The pictures should come from one place, the camera turning. For documents and flat scenes see
homography.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pictures import Image, Matrix, photograph, read, write

import cv_superpoint

detail: Any = cv2.detail
"""Untyped: OpenCV's stubs allow neither arrays for ``cv2.UMat`` nor None for what comes out."""

CONFIDENCE = 0.8
"""Pairs below it are not neighbours; 1 is sure (OpenCV's measure of inliers against matches)."""
MATCH_CONFIDENCE = 0.1
"""The second nearest must be farther by this: a ratio of 0.9, where SIFT would take 0.7."""
REFINE_ALL = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0]], np.uint8)
"""Focal length, principal point and aspect ratio of each camera."""


def cut_views(image: Image, *, degrees: float = 14.0) -> list[Image]:
    """What a camera sees that stands before the photograph and turns left, ahead and right."""
    height, width, focal = 400, 340, 700.0
    to_rays = np.linalg.inv(_intrinsics(focal, image.shape[1], image.shape[0]))
    views = []
    for index, angle in enumerate(np.deg2rad([-degrees, 0, degrees])):
        turn: Matrix = np.asarray(cv2.Rodrigues(np.array([0, -angle, 0]))[0], np.float64)
        homography = _intrinsics(focal, width, height) @ turn @ to_rays
        view = cv2.warpPerspective(image, homography, (width, height))
        brighter = np.clip(view * (0.85 + 0.15 * index), 0, 255)  # as automatic exposure does
        views.append(brighter.astype(np.uint8))
    return views


def _intrinsics(focal: float, width: int, height: int) -> Matrix:
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def shrink(image: Image, megapixels: float) -> Image:
    """The picture with at most so many pixels."""
    scale = np.sqrt(megapixels * 1e6 / (image.shape[0] * image.shape[1]))
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
        np.uint8
    )


def find_features(images: list[Image], detector: cv_superpoint.SuperPointFeature2D) -> list[Any]:
    """Our keypoints in the form that OpenCV's stitching takes."""
    found = []
    blind = cv2.ORB.create(1)
    for index, image in enumerate(images):
        keypoints, descriptors = detector.detectAndCompute(image)
        # Made by C++ and then filled: in OpenCV 4 the descriptors of a detail.ImageFeatures() made
        # in Python crash the interpreter (opencv/opencv#20979).
        features = detail.computeImageFeatures2(blind, np.zeros((16, 16), np.uint8))
        features.img_idx = index
        features.img_size = image.shape[1], image.shape[0]
        features.keypoints = keypoints
        if descriptors is not None:
            features.descriptors = cv2.UMat(descriptors)
        found.append(features)
    return found


def find_cameras(features: list[Any]) -> list[Any] | None:
    """Focal length and rotation of each camera; None if the pictures do not belong together."""
    matcher = detail.BestOf2NearestMatcher(False, MATCH_CONFIDENCE)
    pairs = matcher.apply2(features)
    matcher.collectGarbage()
    for pair in pairs:
        if pair.src_img_idx < pair.dst_img_idx:
            print(
                f"pictures {pair.src_img_idx + 1} and {pair.dst_img_idx + 1}: "
                f"{len(pair.getMatches())} matches, {pair.num_inliers} inliers, "
                f"confidence {pair.confidence:.2f}"
            )
    kept = np.asarray(detail.leaveBiggestComponent(features, pairs, CONFIDENCE)).reshape(-1)
    if len(kept) < len(features):
        print(f"only pictures {', '.join(str(index + 1) for index in kept)} belong together")
        return None
    done, cameras = detail.HomographyBasedEstimator().apply(features, pairs, None)
    if not done:
        return None
    for camera in cameras:
        camera.R = camera.R.astype(np.float32)  # the only type that the adjuster takes
    adjuster = detail.BundleAdjusterRay()
    adjuster.setConfThresh(CONFIDENCE)
    adjuster.setRefinementMask(REFINE_ALL)
    done, cameras = adjuster.apply(features, pairs, cameras)
    if not done:
        return None
    straight = detail.waveCorrect(
        [np.copy(camera.R) for camera in cameras], detail.WAVE_CORRECT_HORIZ
    )
    for camera, rotation in zip(cameras, straight, strict=True):
        camera.R = rotation
    return list(cameras)


def compose(images: list[Image], cameras: list[Any]) -> Image:
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
        [each.astype(np.float32) for each in warped],
        places,
        masks,
    )
    blender = detail.MultiBandBlender()
    blender.prepare(detail.resultRoi(places, [(each.shape[1], each.shape[0]) for each in warped]))
    for place, picture, seam in zip(places, warped, seams, strict=True):
        mask = seam.get() if isinstance(seam, cv2.UMat) else seam
        blender.feed(picture.astype(np.int16), mask, place)
    result = blender.blend(None, None)[0]
    panorama: Image = np.clip(result, 0, 255).astype(np.uint8)
    return panorama


def main() -> int:
    parser = argparse.ArgumentParser(description="Stitch a panorama.")
    parser.add_argument("pictures", nargs="*", help="two or three files; none: a photograph")
    parser.add_argument("--megapixels", type=float, default=1.0, help="larger ones are shrunk")
    parser.add_argument("--output", type=Path, default=Path("panorama.png"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    if len(args.pictures) == 1:
        parser.error("name two or more pictures, or none")
    if args.pictures:
        images = [read(path) for path in args.pictures]
    else:
        images = cut_views(photograph("stereo_motorcycle"))
    images = [shrink(image, args.megapixels) for image in images]

    detector = cv_superpoint.SuperPointFeature2D.create(maxKeypoints=1500, weights=args.weights)
    features = find_features(images, detector)
    for index, each in enumerate(features):
        print(f"picture {index + 1}: {len(each.getKeypoints())} keypoints")
    cameras = find_cameras(features)
    if cameras is None:
        print("no panorama")
        return 1
    print("focal lengths " + ", ".join(f"{camera.focal:.0f}" for camera in cameras) + " px")
    write(args.output, compose(images, cameras))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
