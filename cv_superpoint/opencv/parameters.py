"""Getters and setters of what can change after construction, as ``cv2.SIFT`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.weights import LoadedWeights


class Parameters:
    """The part of :class:`cv_superpoint.SuperPointFeature2D` that sets and tells its options.

    Every setter raises :class:`cv_superpoint.FeatureError` where the constructor would.
    """

    _detector: Detector
    _weights: LoadedWeights

    def _make_detector(self, config: DetectorConfig) -> Detector:
        raise NotImplementedError

    def _set(self, **changes: Any) -> None:
        # A new detector rather than a changed one: calls under way in other threads keep theirs.
        self._detector = self._make_detector(replace(self._detector.config, **changes))

    def getMaxKeypoints(self) -> int:
        """Most keypoints kept; -1 for all."""
        return self._detector.config.max_keypoints

    def setMaxKeypoints(self, maxKeypoints: int | None) -> None:
        """Set :meth:`getMaxKeypoints`; 0 and None mean all, too."""
        self._set(max_keypoints=maxKeypoints)

    def getScoreThreshold(self) -> float:
        """Score that a keypoint must exceed."""
        return self._detector.config.score_threshold

    def setScoreThreshold(self, scoreThreshold: float | None) -> None:
        """Set :meth:`getScoreThreshold`; None takes what the weights recommend.

        Raises:
            FeatureError: If they recommend one for another :meth:`getScoreRadius` only.
        """
        threshold, _ = self._weights.scoring(scoreThreshold, self.getScoreRadius())
        self._set(score_threshold=threshold)

    def getScoreRadius(self) -> int:
        """Pixels around a keypoint whose probabilities make its score; 0 for its own alone."""
        return self._detector.config.score_radius

    def setScoreRadius(self, scoreRadius: int | None) -> None:
        """Set :meth:`getScoreRadius`; the threshold stays, and should be set with it.

        None takes what the weights recommend.
        """
        _, radius = self._weights.scoring(self.getScoreThreshold(), scoreRadius)
        self._set(score_radius=radius)

    def getNmsRadius(self) -> int:
        """Radius of the non-maximum suppression, in pixels."""
        return self._detector.config.nms_radius

    def setNmsRadius(self, nmsRadius: int) -> None:
        """Set :meth:`getNmsRadius`."""
        self._set(nms_radius=nmsRadius)

    def getBorderMargin(self) -> int:
        """Distance that keypoints keep from the border, in pixels."""
        return self._detector.config.border_margin

    def setBorderMargin(self, borderMargin: int) -> None:
        """Set :meth:`getBorderMargin`."""
        self._set(border_margin=borderMargin)

    def getSubpixel(self) -> bool:
        """Whether positions are refined below the pixel."""
        return self._detector.config.subpixel

    def setSubpixel(self, subpixel: bool) -> None:
        """Set :meth:`getSubpixel`."""
        self._set(subpixel=subpixel)

    def getScales(self) -> tuple[float, ...]:
        """The pyramid's levels, relative to the image."""
        return self._detector.config.scales

    def setScales(self, scales: float | Sequence[float] | None) -> None:
        """Set :meth:`getScales`; None means the image alone."""
        self._set(scales=scales)
