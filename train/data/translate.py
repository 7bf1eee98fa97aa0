"""A matcher of one set of weights as the beginning of a matcher for another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.opencv.feature2d import SuperPointFeature2D
from cv_superpoint.synthetic.photometric import Image

Rows = npt.NDArray[np.float32]


LEAST = 0.05
"""Descriptors vary in some directions by rounding alone, which the first layer must not amplify.

Directions in which they vary by less than this share of the most count for nothing.
"""


def translate_matcher(
    start: LoadedMatcher,
    theirs: SuperPointFeature2D,
    own: SuperPointFeature2D,
    photographs: Iterable[Image],
) -> LoadedMatcher:
    """A matcher whose first layer takes descriptors of other weights.

    Both sets describe the same keypoints. What the first layer makes of one descriptor is predicted
    from the other by least squares, so the layers after it keep their meaning.

    Args:
        start: The matcher.
        theirs: Detector with the weights that it was trained for.
        own: Detector with the other weights.
        photographs: Images, of which both describe the keypoints that ``own`` finds.

    Raises:
        ValueError: If there are fewer keypoints than numbers of a descriptor.
    """
    seen: list[Rows] = []
    wanted: list[Rows] = []
    for image in photographs:
        keypoints = own.detect(image)
        for detector, rows in ((own, seen), (theirs, wanted)):
            described: Rows | None = detector.compute(image, keypoints)[1]
            if described is not None:
                rows.append(described)
    inputs = np.concatenate(seen) if seen else np.empty((0, own.descriptorSize()), np.float32)
    count, length = inputs.shape
    if count < length:
        raise ValueError(
            f"the photographs have {count} keypoints, and a start takes at least {length}: give "
            "more photographs, or no start"
        )
    weight, bias = (start.tensors[f"project.{name}"] for name in ("weight", "bias"))
    outputs = np.concatenate(wanted) @ weight.T + bias
    mean = inputs.mean(axis=0)
    solved = np.linalg.pinv(inputs - mean, rcond=LEAST) @ (outputs - outputs.mean(axis=0))
    first = {
        "project.weight": np.ascontiguousarray(solved.T, np.float32),
        "project.bias": np.asarray(outputs.mean(axis=0) - mean @ solved, np.float32),
    }
    return replace(
        start,
        config=replace(start.config, descriptor_dim=length),
        tensors={**start.tensors, **first},
    )
