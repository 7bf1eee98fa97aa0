"""Whole images through a backend that decodes on its device: only keypoints come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding import Decoding
from cv_superpoint.detector.features import CELL_DIAMETER, Features
from cv_superpoint.pictures.arrays import ByteArray, pad

Floats = NDArray[np.float32]


class DecodingBackend(Protocol):
    """What a backend with ``decodes`` set offers beyond :class:`cv_superpoint.backends.Backend`."""

    def run_decoded(
        self,
        images: NDArray[np.uint8],
        allowed: NDArray[np.bool_],
        decoding: Decoding,
    ) -> tuple[Floats, Floats, Floats]:
        """Keypoints of images of one size.

        Args:
            images: (B, H', W', C) uint8, padded to multiples of 8.
            allowed: (B, H, W), the pixels of the images themselves where keypoints may be.
            decoding: What is kept; ``max_keypoints`` is positive. ``allowed`` holds its margin.

        Returns:
            Points (B, K, 2), scores (B, K), negative in the rows left over, descriptors (B, K, D);
            K is ``max_keypoints``, or H W where that is less.
        """
        ...


def extract_on_device(
    backend: DecodingBackend,
    images: Sequence[ByteArray],
    masks: Sequence[NDArray[np.bool_] | None],
    decoding: Decoding,
) -> list[Features]:
    """As :meth:`cv_superpoint.detector.Detector.extract_batch`, for images of one size.

    Args:
        backend: Runs and decodes.
        images: (H, W) or (H, W, C), as the network takes them.
        masks: (H, W) of each image, or None.
        decoding: What is kept; ``max_keypoints`` is positive.
    """
    height, width = images[0].shape[:2]
    stack = np.stack([pad(image) for image in images])
    stack = stack.reshape(*stack.shape[:3], -1)
    allowed = np.zeros((len(images), height, width), np.bool_)
    margin = decoding.border_margin
    allowed[:, margin : height - margin, margin : width - margin] = True
    for one, mask in zip(allowed, masks, strict=True):
        if mask is not None:
            one &= mask
    outputs = backend.run_decoded(stack, allowed, decoding)
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
