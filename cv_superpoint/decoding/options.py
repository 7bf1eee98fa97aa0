"""The options of the decoding, as one value for all its implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cv_superpoint.checks import as_count, as_flag, as_limit, as_number
from cv_superpoint.errors import FeatureError

LARGEST_SCORE_RADIUS = 32
"""Pixels, four cells of the network; the memory that scores take grows with its square."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Options that decide which keypoints the network's output gives.

    The defaults are those of the bundled default weights.
    :meth:`cv_superpoint.weights.LoadedWeights.decoding` gives those of other weights.

    Attributes:
        max_keypoints: Largest number of keypoints: the strongest are kept. -1, or 0 as in
            ``cv2.SIFT``, keeps all above the threshold.
        score_threshold: Score that a keypoint must exceed, in [0, 1).
        nms_radius: Chebyshev distance in pixels within which only one keypoint is kept.
        score_radius: A keypoint's score is the sum of the probabilities within this Chebyshev
            distance, in pixels; 0 takes the probability of its pixel, as the paper.
        border_margin: Distance in pixels that every keypoint has from the image's border.
        subpixel: Whether positions are refined below the pixel.

    Raises:
        FeatureError: If a value is out of range.
    """

    max_keypoints: int = -1
    score_threshold: float = 0.3
    nms_radius: int = 4
    score_radius: int = 2
    border_margin: int = 4
    subpixel: bool = True

    def __post_init__(self) -> None:
        self._set("max_keypoints", as_limit(self.max_keypoints))
        for name in ("nms_radius", "score_radius", "border_margin"):
            self._set(name, as_count(name, getattr(self, name)))
        threshold = as_number("score_threshold", self.score_threshold, "a number in [0, 1)")
        self._set("score_threshold", threshold)
        self._set("subpixel", as_flag("subpixel", self.subpixel))
        if not 0 <= self.score_threshold < 1:
            raise FeatureError(f"score_threshold must lie in [0, 1), got {self.score_threshold}")
        if self.score_radius > LARGEST_SCORE_RADIUS:
            raise FeatureError(
                f"score_radius must be at most {LARGEST_SCORE_RADIUS}, got {self.score_radius}"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # it is frozen

    @property
    def peak_threshold(self) -> float:
        """Probability that a keypoint's own pixel has to exceed: its share of the threshold."""
        return self.score_threshold / (2 * self.score_radius + 1) ** 2

    @property
    def reach(self) -> int:
        """Pixels around a keypoint that its suppression and its score depend on."""
        return max(self.nms_radius, self.score_radius)


DEFAULT = Decoding()
