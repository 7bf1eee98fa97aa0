"""A detector's keypoints as arrays, and a cache of them on disk."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.metrics import Array, Size, strongest
from cv_superpoint.files import replace_file

logger = logging.getLogger(__name__)


class Feature2D(Protocol):
    """What an evaluated detector has to offer, as every ``cv2.Feature2D`` does.

    One whose ``descriptorSize()`` is 0 is asked to ``detect(image, mask)`` instead.
    """

    def detectAndCompute(  # noqa: N802
        self, image: Any, mask: Any, /
    ) -> tuple[Sequence[cv2.KeyPoint], Any]:
        """Keypoints of a grey uint8 image, and (N, D) descriptors or None."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Keypoints of one image.

    Attributes:
        points: (N, 2) float64.
        scores: (N,) float64, the keypoints' responses.
        descriptors: (N, D), float vectors or bytes of bits; (N, 0) of a detector without any.
        binary: Whether descriptors are compared by Hamming distance.
        size: (height, width) of the image that the detector looked at; (0, 0) if not told.
        weights: Digest of the weights that described them; empty where there are none.
        seen: (N, 2) positions in that image where it is a turned one; None where they are
            ``points``.
    """

    points: Array
    scores: Array
    descriptors: Array
    binary: bool
    size: Size = (0, 0)
    weights: str = ""
    seen: Array | None = None

    def __len__(self) -> int:
        return len(self.points)

    @property
    def described(self) -> bool:
        """Whether there are descriptors."""
        return bool(self.descriptors.shape[1] > 0)

    def take(self, indices: Array) -> Detections:
        """The keypoints at ``indices`` (or where a mask is true)."""
        return replace(
            self,
            points=self.points[indices],
            scores=self.scores[indices],
            descriptors=self.descriptors[indices],
            seen=None if self.seen is None else self.seen[indices],
        )

    def strongest(self, count: int) -> Detections:
        """The ``count`` keypoints of highest response, best first."""
        return self.take(strongest(self.scores, count))


Finder = Callable[[Array], Detections]
"""(H, W) uint8 -> its detections: ``functools.partial(detect, detector)``, or a cache's."""


def describes(detector: Any) -> bool:
    """Whether a detector has descriptors: all but those whose ``descriptorSize()`` is 0."""
    size = getattr(detector, "descriptorSize", None)
    return not callable(size) or size() != 0


def detect(detector: Feature2D, image: Array) -> Detections:
    """Run a detector on a grey image.

    Raises:
        ValueError: If keypoints and descriptors do not belong together.
    """
    keypoints, descriptors = _run(detector, image)
    points = np.array([keypoint.pt for keypoint in keypoints], np.float64).reshape(-1, 2)
    scores = np.array([keypoint.response for keypoint in keypoints], np.float64)
    if descriptors is None:
        descriptors = np.zeros((len(points), 0), np.float32)
    descriptors = np.asarray(descriptors)
    if len(descriptors) != len(points):
        raise SuperPointError(
            f"detectAndCompute returned {len(points)} keypoints and {len(descriptors)} "
            "descriptors; it must return one row per keypoint"
        )
    return Detections(
        points=points,
        scores=scores,
        descriptors=descriptors,
        binary=_is_binary(detector, descriptors),
        size=(image.shape[0], image.shape[1]),
        weights=weights_of(detector),
    )


def check_described(label: str, detector: Any, weights: str | None) -> None:
    """Check that a detector has descriptors.

    Args:
        label: Its name, for the error.
        detector: The detector.
        weights: Weights of superpoint, where they are named beside it.

    Raises:
        SuperPointError: If it has none.
    """
    if not describes(detector):
        what = f"{label} with weights {weights}" if weights and weights_of(detector) else label
        raise SuperPointError(
            f"{what} has no descriptors, which this protocol needs; take others, or a protocol "
            "with repeatability, such as warp or synthetic"
        )


def _run(detector: Any, image: Array) -> tuple[Sequence[cv2.KeyPoint], Any]:
    if describes(detector):
        keypoints, descriptors = detector.detectAndCompute(image, None)
        return keypoints, descriptors
    return detector.detect(image, None), None


def weights_of(detector: Feature2D) -> str:
    """Digest of the weights of a SuperPoint; empty of other detectors."""
    return str(getattr(getattr(detector, "detector", None), "weights", ""))


def _is_binary(detector: Feature2D, descriptors: Array) -> bool:
    norm = getattr(detector, "defaultNorm", None)
    if callable(norm):
        return bool(norm() in (cv2.NORM_HAMMING, cv2.NORM_HAMMING2))
    return bool(descriptors.dtype == np.uint8)


@dataclass(frozen=True, kw_only=True)
class PredictionCache:
    """A detector whose answers are kept in a folder.

    Answers are found again by the image's pixels and by what the detector says of itself: its
    name with its options and, where it has one, ``info()`` (for SuperPoint that holds the
    weights' hash and the backend). A change of code is not seen: empty the folder after one.

    Attributes:
        folder: Folder of the answers, made if missing.
        detector: Detector for images that are not in the folder.
        name: The detector's name with its options.
        quota: What the detector was told to find at most.
    """

    folder: Path
    detector: Feature2D
    name: str
    quota: int

    def __call__(self, image: Array) -> Detections:
        """Detections of an (H, W) uint8 image."""
        path = self.folder / f"{self._key(image)}.npz"
        if path.is_file():
            try:
                with path.open("rb") as file, np.load(file) as stored:
                    return Detections(
                        points=stored["points"],
                        scores=stored["scores"],
                        descriptors=stored["descriptors"],
                        binary=bool(stored["binary"]),
                        size=(image.shape[0], image.shape[1]),
                        weights=weights_of(self.detector),
                    )
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                logger.warning("%s is damaged and is made again", path.name)
        found = detect(self.detector, image)
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(
            content,
            points=found.points,
            scores=found.scores,
            descriptors=found.descriptors,
            binary=found.binary,
        )
        replace_file(path, content.getvalue())
        return found

    def _key(self, image: Array) -> str:
        info = getattr(self.detector, "info", None)
        said = info() if callable(info) else ""
        identity = (self.name, self.quota, said, cv2.__version__, image.shape)
        digest = hashlib.sha256(repr(identity).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()
