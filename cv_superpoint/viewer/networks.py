"""The sets of weights that the viewer compares, each loaded once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from cv_superpoint.decoding.arrays import logits_to_heatmap
from cv_superpoint.decoding.descriptors import DescriptorFormat, Kind
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.detector.runtime import Runtime
from cv_superpoint.pictures.arrays import ByteArray, pad, to_channels
from cv_superpoint.weights import load_weights

SETS = ("superpoint", "superpoint-lite")
"""Bundled sets that the page always shows."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """The page's options of detection.

    Attributes:
        max_keypoints: Keypoints of a picture at most, of SIFT and ORB too.
        threshold: Score that a keypoint must exceed; None takes what each set recommends.
        nms_radius: No two keypoints lie within this distance, in pixels.
        subpixel: Place keypoints below the pixel.
        scales: Levels of the pyramid; None takes what each set recommends.
        descriptors: Form of the descriptors.
    """

    max_keypoints: int = 1000
    threshold: float | None = None
    nms_radius: int = 4
    subpixel: bool = True
    scales: tuple[float, ...] | None = None
    descriptors: Kind = "float32"


class LoadedNetwork:
    """Weights that run on a device; options change without loading them again.

    Args:
        weights: Bundled name or file, or None.
        device: Same as for ``SuperPointFeature2D``.

    Raises:
        FeatureError: If the weights have no descriptors, which the page matches.
    """

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        loaded = load_weights(weights)
        loaded.check_descriptors()
        self.name = loaded.name
        self._recommended, self._scales = loaded.decoding(), loaded.scales
        config = DetectorConfig(decoding=self._recommended)
        self._detector, _ = Runtime(device=device).start(loaded, config)

    def detector(self, settings: DetectorSettings) -> Detector:
        """A detector with these settings.

        Raises:
            FeatureError: If a value is out of range, or the weights have no such descriptors.
        """
        threshold = settings.threshold
        if threshold is None:
            threshold = self._recommended.score_threshold
        decoding = replace(
            self._recommended,
            max_keypoints=settings.max_keypoints,
            score_threshold=threshold,
            nms_radius=settings.nms_radius,
            subpixel=settings.subpixel,
        )
        config = DetectorConfig(
            decoding=decoding,
            scales=settings.scales or self._scales,
            descriptors=DescriptorFormat(kind=settings.descriptors),
        )
        return self._detector.configured(config)

    def heatmap(self, image: ByteArray) -> ByteArray:
        """The probabilities of a keypoint, to the power of a quarter, in colours."""
        pixels = pad(to_channels(image, self._detector.channels))
        batch = pixels.reshape(1, *pixels.shape[:2], self._detector.channels)
        logits, _ = self._detector.backend.run(batch)
        heat = logits_to_heatmap(logits[0])[: image.shape[0], : image.shape[1]]
        levels = np.clip(255 * heat**0.25, 0, 255).astype(np.uint8)
        coloured: ByteArray = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO))
        return coloured


def load_networks(weights: str | None = None, device: str = "auto") -> tuple[LoadedNetwork, ...]:
    """The chosen weights first, then :data:`SETS`, each once.

    Args:
        weights: Bundled name or file; None takes the default set.
        device: Same as for ``SuperPointFeature2D``.
    """
    first = LoadedNetwork(weights, device)
    return (first, *(LoadedNetwork(name, device) for name in SETS if name != first.name))
