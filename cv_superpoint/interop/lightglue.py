"""LightGlue matchers: the dictionaries of cvg's and kornia's, and OpenCV's ``LightGlueMatcher``.

Convention:
    Keypoints go in as they are: LightGlue takes pixels with (0, 0) the centre of the top-left one
    and sizes as (width, height).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features, float_rows
from cv_superpoint.errors import require
from cv_superpoint.matching.nearest import Pairs

if TYPE_CHECKING:
    import torch


def to_lightglue(features: Features, *, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Make LightGlue's input for one image, as ``matcher({"image0": ..., "image1": ...})``.

    Args:
        features: Features of one image.
        device: Device of the tensors.

    Returns:
        ``keypoints`` (1, N, 2), ``descriptors`` (1, N, D), ``keypoint_scores`` (1, N) and
        ``image_size`` (1, 2) as (width, height), all float32.

    Raises:
        FeatureError: If the descriptors are bits.
    """
    torch = require("torch", "torch")

    def batch_of_one(rows: NDArray[np.float32]) -> Any:
        # torch does not take the negative strides of a reversed set.
        return torch.from_numpy(np.ascontiguousarray(rows))[None].to(device)

    height, width = features.image_size
    return {
        "keypoints": batch_of_one(features.keypoints),
        "descriptors": batch_of_one(float_rows(features, "LightGlue")),
        "keypoint_scores": batch_of_one(features.scores),
        "image_size": torch.tensor([[width, height]], dtype=torch.float32, device=device),
    }


def from_lightglue(output: Mapping[str, Any]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(M, 2) row numbers and (M,) scores of LightGlue's output for one pair."""
    matches = output["matches"][0].detach().cpu().numpy().astype(np.intp)
    scores = output["scores"][0].detach().float().cpu().numpy()
    return matches, scores


def match_with_opencv(
    matcher: Any, features0: Features, features1: Features, *, own_sides: bool = False
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Match with a ``cv2.LightGlueMatcher`` (OpenCV 5).

    Given image sizes, OpenCV divides x by the width and y by the height; LightGlue was trained on
    both divided by the longer side. So the positions are normalised here, and no sizes are given.

    Args:
        matcher: ``cv2.LightGlueMatcher.create("superpoint_lightglue.onnx")``.
        features0: Features of image 0.
        features1: Features of image 1.
        own_sides: Whether the file is one of ours (``cv-superpoint export --layout matcher``). They
            learned each axis divided by its own side.

    Returns:
        (M, 2) row numbers and (M,) ``cv2.DMatch`` distances, small for sure matches.

    Raises:
        FeatureError: If the descriptors are bits.
    """
    if len(features0) == 0 or len(features1) == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    rows0, rows1 = (float_rows(each, "LightGlue") for each in (features0, features1))
    if own_sides:
        sizes = [each.image_size[::-1] for each in (features0, features1)]
        matcher.setPairInfo(features0.keypoints, features1.keypoints, *sizes)
    else:
        matcher.setPairInfo(normalised(features0), normalised(features1))
    found: list[cv2.DMatch] = list(matcher.match(rows0, rows1))
    rows = np.array([(match.queryIdx, match.trainIdx) for match in found], np.intp)
    return rows.reshape(-1, 2), np.array([match.distance for match in found], np.float32)


class OpenCVLightGlue:
    """A ``cv2.LightGlueMatcher`` (OpenCV 5) as a :class:`~cv_superpoint.matching.matchers.Matcher`.

    Args:
        matcher: ``cv2.LightGlueMatcher.create("superpoint_lightglue.onnx")``.
        own_sides: Same as for :func:`match_with_opencv`.
    """

    def __init__(self, matcher: Any, *, own_sides: bool = False) -> None:
        self._matcher, self._own_sides = matcher, own_sides

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match; a score is 1 less OpenCV's distance, which is LightGlue's score again."""
        rows, distances = match_with_opencv(
            self._matcher, features0, features1, own_sides=self._own_sides
        )
        return rows, np.asarray(1 - distances, np.float32)


class TorchLightGlue:
    """cvg's or kornia's ``LightGlue`` as a :class:`~cv_superpoint.matching.matchers.Matcher`.

    Args:
        network: ``kornia.feature.LightGlue("superpoint")``, on the device on which it runs.
    """

    def __init__(self, network: Any) -> None:
        self._network = network.eval()

    def __call__(self, features0: Features, features1: Features, /) -> Pairs:
        """Match; scores are LightGlue's."""
        if len(features0) == 0 or len(features1) == 0:
            return np.empty((0, 2), np.intp), np.empty(0, np.float32)
        torch = require("torch", "torch")
        device = str(next(self._network.parameters()).device)
        given = {
            f"image{index}": to_lightglue(each, device=device)
            for index, each in enumerate((features0, features1))
        }
        with torch.inference_mode():
            return from_lightglue(self._network(given))


def normalised(features: Features) -> NDArray[np.float32]:
    """(N, 2) positions in [-1, 1], both axes divided by half the longer side."""
    height, width = features.image_size
    size = np.array((width, height), np.float32)
    positions: NDArray[np.float32] = (features.keypoints - size / 2) / (size.max() / 2)
    return positions
