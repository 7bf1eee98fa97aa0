"""The calling form of vismatch (before: image-matching-models): two tensors in, points out."""

from __future__ import annotations

from typing import Any

import numpy as np

from cv_superpoint.errors import FeatureError
from cv_superpoint.matching.pairs import Extractor, match_pair
from cv_superpoint.pictures.arrays import ByteArray


class PairMatcher:
    """A matcher with vismatch's arguments and results.

    Args:
        detector: A :class:`~cv_superpoint.SuperPointFeature2D`; None makes one with the defaults.
        threshold: Pixels by which an inlier may miss the place that the homography gives it.
    """

    def __init__(self, detector: Extractor | None = None, *, threshold: float = 3.0) -> None:
        if detector is None:
            from cv_superpoint.opencv.feature2d import SuperPointFeature2D

            detector = SuperPointFeature2D.create(maxKeypoints=2048)
        self.detector = detector
        self.threshold = threshold

    def __call__(self, image0: Any, image1: Any) -> dict[str, Any]:
        """Match two images.

        Args:
            image0: (3, H, W) RGB in [0, 1], torch tensor on any device, or array.
            image1: Like ``image0``, of any other size.

        Returns:
            ``num_inliers``, ``H`` (3, 3) from image 0 to image 1 or None, and arrays
            ``all_kpts0``, ``all_kpts1`` (N, 2), ``all_desc0``, ``all_desc1`` (N, D),
            ``matched_kpts0``, ``matched_kpts1`` (M, 2), ``inlier_kpts0``, ``inlier_kpts1`` (K, 2)
            and ``matched_confidences`` (M,), the cosines of the descriptors.

        Raises:
            FeatureError: If an image is of another shape or type.
        """
        result = match_pair(
            _to_bgr(image0), _to_bgr(image1), self.detector, threshold=self.threshold
        )
        points0, points1 = result.points0, result.points1
        return {
            "num_inliers": int(result.inliers.sum()),
            "H": result.homography,
            "all_kpts0": result.features0.keypoints,
            "all_kpts1": result.features1.keypoints,
            "all_desc0": result.features0.descriptors,
            "all_desc1": result.features1.descriptors,
            "matched_kpts0": points0,
            "matched_kpts1": points1,
            "inlier_kpts0": points0[result.inliers],
            "inlier_kpts1": points1[result.inliers],
            "matched_confidences": result.similarity,
        }


def _to_bgr(image: Any) -> ByteArray:
    array = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype.kind != "f":
        raise FeatureError(
            f"image must be (3, H, W) float RGB in [0, 1], got {array.dtype} {array.shape}"
        )
    rgb = np.rint(array.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)
    bgr: ByteArray = np.ascontiguousarray(rgb[..., ::-1])
    return bgr
