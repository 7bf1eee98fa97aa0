"""Getters and setters of options that can change after construction, as in ``cv2.SIFT``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.descriptors import as_format
from cv_superpoint.detector import Detector
from cv_superpoint.weights import LoadedWeights


class Parameters:
    """The part of :class:`cv_superpoint.SuperPointFeature2D` with the getters and setters.

    Every setter raises :class:`cv_superpoint.FeatureError` where the constructor would.
    """

    _detector: Detector
    _weights: LoadedWeights

    def _set(self, **changes: Any) -> None:
        # A new detector rather than a changed one: running calls in other threads keep theirs.
        self._detector = self._detector.configured(replace(self._detector.config, **changes))

    @property
    def _decoding(self) -> Decoding:
        return self._detector.config.decoding

    def _set_decoding(self, **changes: Any) -> None:
        self._set(decoding=replace(self._decoding, **changes))

    def getMaxKeypoints(self) -> int:
        """Largest number of keypoints; -1 for all."""
        return self._decoding.max_keypoints

    def setMaxKeypoints(self, maxKeypoints: int | None) -> None:
        """Set :meth:`getMaxKeypoints`; 0 and None mean all, too."""
        self._set_decoding(max_keypoints=maxKeypoints)

    def getScoreThreshold(self) -> float:
        """Score that a keypoint must exceed."""
        return self._decoding.score_threshold

    def setScoreThreshold(self, scoreThreshold: float | None) -> None:
        """Set :meth:`getScoreThreshold`; None takes what the weights recommend.

        Raises:
            FeatureError: If the weights recommend a threshold for another :meth:`getScoreRadius`
                only.
        """
        self._set_scoring(scoreThreshold, self._decoding.score_radius)

    def getScoreRadius(self) -> int:
        """Radius in pixels of the window whose probabilities sum to a score; 0 for one pixel."""
        return self._decoding.score_radius

    def setScoreRadius(self, scoreRadius: int | None, scoreThreshold: float | None = None) -> None:
        """Set :meth:`getScoreRadius`, and the threshold that goes with it.

        Args:
            scoreRadius: Radius in pixels; None takes what the weights recommend.
            scoreThreshold: Score that a keypoint must exceed; None takes what the weights recommend
                for this radius. The same radius as before keeps the threshold.

        Raises:
            FeatureError: If the weights recommend a threshold for another radius only.
        """
        now = self._decoding
        same = scoreThreshold is None and scoreRadius == now.score_radius
        self._set_scoring(now.score_threshold if same else scoreThreshold, scoreRadius)

    def _set_scoring(self, threshold: float | None, radius: int | None) -> None:
        decoding = self._weights.decoding(
            self._decoding, score_threshold=threshold, score_radius=radius
        )
        self._set(decoding=decoding)

    def getNmsRadius(self) -> int:
        """Radius of the non-maximum suppression, in pixels."""
        return self._decoding.nms_radius

    def setNmsRadius(self, nmsRadius: int) -> None:
        """Set :meth:`getNmsRadius`."""
        self._set_decoding(nms_radius=nmsRadius)

    def getBorderMargin(self) -> int:
        """Distance that every keypoint has from the border, in pixels."""
        return self._decoding.border_margin

    def setBorderMargin(self, borderMargin: int) -> None:
        """Set :meth:`getBorderMargin`."""
        self._set_decoding(border_margin=borderMargin)

    def getSubpixel(self) -> bool:
        """Whether positions are refined below the pixel."""
        return self._decoding.subpixel

    def setSubpixel(self, subpixel: bool) -> None:
        """Set :meth:`getSubpixel`."""
        self._set_decoding(subpixel=subpixel)

    def getScales(self) -> tuple[float, ...]:
        """Levels of the pyramid, relative to the image."""
        return self._detector.config.scales

    def setScales(self, scales: float | Sequence[float] | None) -> None:
        """Set :meth:`getScales`; None takes what the weights recommend."""
        self._set(scales=self._weights.scales if scales is None else scales)

    def getDescriptorFormat(self) -> str:
        """Format of the descriptors: "float32", "uint8" or "binary"."""
        return self._detector.config.descriptors.kind

    def setDescriptorFormat(
        self, descriptorFormat: str | None, descriptorDim: int | None = None
    ) -> None:
        """Set :meth:`getDescriptorFormat`, and the length that goes with it.

        Args:
            descriptorFormat: Format; None takes "float32".
            descriptorDim: Numbers or bits of a descriptor; None takes all numbers, or 256 bits. The
                same format as before keeps its length.
        """
        now = self._detector.config.descriptors
        if descriptorDim is None and descriptorFormat == now.kind:
            return
        self._set(descriptors=as_format(descriptorFormat, descriptorDim))

    def getDescriptorDim(self) -> int:
        """Number of a descriptor's numbers, or of a binary one's bits."""
        return self._detector.encoder.numbers

    def setDescriptorDim(self, descriptorDim: int | None) -> None:
        """Set :meth:`getDescriptorDim`; None takes all numbers, or 256 bits."""
        self._set(descriptors=as_format(self.getDescriptorFormat(), descriptorDim))

    def getTileSize(self) -> int:
        """Side in pixels of the tiles in which large levels run."""
        return self._detector.config.tile_size

    def setTileSize(self, tileSize: int) -> None:
        """Set :meth:`getTileSize`; a multiple of 8, at least 64."""
        self._set(tile_size=tileSize)
