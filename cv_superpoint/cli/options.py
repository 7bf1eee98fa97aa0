"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from cv_superpoint.opencv import options


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(options.DetectorOptions):
    """How keypoints are found.

    Attributes:
        max_keypoints: Keep the strongest of each image; -1 keeps all above the threshold.
    """

    max_keypoints: Annotated[int, arg(aliases=["-k"])] = 1000
