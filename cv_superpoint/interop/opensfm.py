"""Feature files of OpenSfM (``features/IMAGE.features.npz``).

Convention:
    OpenSfM's positions have their origin in the middle of the image and the longer side as unit:
    ``(x + 0.5 - width / 2) / max(width, height)``. Sizes are in that unit, too. Descriptors are
    floats, or bits in uint8 rows, which OpenSfM matches by their Hamming distance.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint.detector.features import Features, float_rows
from cv_superpoint.errors import FeatureError
from cv_superpoint.files import replace_file
from cv_superpoint.interop.checks import check_features
from cv_superpoint.pictures.arrays import check_image

VERSION = 1
"""Version of the layout: with it, OpenSfM takes the sizes as they are."""


def write_features(path: str | os.PathLike[str], features: Features, image: Any) -> None:
    """Write the features of one image; an older file is replaced in one step.

    Args:
        path: ``features/NAME.jpg.features.npz`` of a dataset; must end in ``.npz``.
        features: Features of the image.
        image: The image itself, uint8 grey, BGR or BGRA, for the colours of the points.

    Raises:
        FeatureError: If the image is of another size than the features were made of.
        StoreError: If the features are not finite.
    """
    image = check_image(image)
    check_features(Path(path).name, features)
    if image.shape[:2] != features.image_size:
        raise FeatureError(
            f"image must have the size that the features were made of, {features.image_size} as "
            f"(height, width), got {image.shape[:2]}"
        )
    target = Path(path)
    if target.suffix != ".npz":
        raise FeatureError(f"the name of an OpenSfM feature file ends in .npz, got {target.name}")
    height, width = features.image_size
    unit = max(width, height)
    points = np.empty((len(features), 4), np.float32)
    points[:, 0] = (features.keypoints[:, 0] + 0.5 - width / 2) / unit
    points[:, 1] = (features.keypoints[:, 1] + 0.5 - height / 2) / unit
    points[:, 2] = features.sizes / unit
    points[:, 3] = 0  # upright, in degrees
    x, y = np.rint(features.keypoints).astype(np.intp).T
    colours = image.reshape(height, width, -1)[y, x]
    rgb = np.repeat(colours, 3, axis=1) if colours.shape[1] == 1 else colours[:, 2::-1]
    binary = features.descriptor_kind == "binary"
    rows = features.descriptors if binary else float_rows(features, "OpenSfM")
    content = io.BytesIO()
    np.savez_compressed(
        content,
        points=points,
        descriptors=rows,
        colors=rgb,
        OPENSFM_FEATURES_VERSION=VERSION,
    )
    replace_file(target, content.getvalue())
