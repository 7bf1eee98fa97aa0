"""Whole images through a backend that decodes on its device: only keypoints come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import CELL_DIAMETER, Features
from cv_superpoint.pictures.arrays import ByteArray, pad

Floats = NDArray[np.float32]


class DecodingBackend(Protocol):
    """What a backend with ``decodes`` set offers beyond :class:`cv_superpoint.backends.Backend`."""

    def run_decoded(
        self,
        images: NDArray[np.uint8],
        allowed: NDArray[np.bool_],
        *,
        count: int,
        threshold: float,
        radius: int,
        score_radius: int,
        subpixel: bool,
    ) -> tuple[Floats, Floats, Floats]:
        """Keypoints of images of one size.

        Args:
            images: (B, H', W', C) uint8, padded to multiples of 8.
            allowed: (B, H, W), the pixels of the images themselves where keypoints may be.
            count: Rows of each output.
            threshold: Score that a keypoint has to exceed.
            radius: Of the suppression, in pixels.
            score_radius: Of the window that a score is the sum of, in pixels.
            subpixel: Refine positions below the pixel.

        Returns:
            Points (B, count, 2), scores (B, count), negative in the rows left over, descriptors
            (B, count, D).
        """
        ...


def extract_on_device(
    backend: DecodingBackend,
    images: Sequence[ByteArray],
    masks: Sequence[NDArray[np.bool_] | None],
    *,
    count: int,
    threshold: float,
    radius: int,
    score_radius: int,
    margin: int,
    subpixel: bool,
) -> list[Features]:
    """As :meth:`cv_superpoint.detector.detector.Detector.extract_batch`, for images of one size.

    Args:
        backend: Runs and decodes.
        images: (H, W) or (H, W, C), as the network takes them.
        masks: (H, W) of each image, or None.
        count: Keypoints at most, of each image.
        threshold: See :class:`cv_superpoint.detector.detector.DetectorConfig`, here and below.
        radius: Its ``nms_radius``.
        score_radius: Its ``score_radius``.
        margin: Its ``border_margin``.
        subpixel: Its ``subpixel``.
    """
    height, width = images[0].shape[:2]
    stack = np.stack([pad(image) for image in images])
    stack = stack.reshape(*stack.shape[:3], -1)
    allowed = np.zeros((len(images), height, width), np.bool_)
    allowed[:, margin : height - margin, margin : width - margin] = True
    for one, mask in zip(allowed, masks, strict=True):
        if mask is not None:
            one &= mask
    outputs = backend.run_decoded(
        stack,
        allowed,
        count=min(count, height * width),
        threshold=threshold,
        radius=radius,
        score_radius=score_radius,
        subpixel=subpixel,
    )
    found = []
    for points, scores, descriptors in zip(*outputs, strict=True):
        kept = int(np.count_nonzero(scores > 0))  # sorted: the empty rows come last
        found.append(
            Features(
                keypoints=points[:kept],
                scores=scores[:kept],
                descriptors=descriptors[:kept],
                sizes=np.full(kept, CELL_DIAMETER, np.float32),
                octaves=np.zeros(kept, np.int32),
                image_size=(height, width),
            )
        )
    return found
