"""The interface of ``cv2.Feature2D``: cv2 types in, cv2 types out; the detector computes.

It is a plain Python class, because a Python subclass of ``cv2.Feature2D`` crashes as soon as C++
calls or deletes it. Where its behaviour differs from ``cv2.SIFT``'s, docs/opencv.md says so.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.checks import (
    as_count,
    as_images,
    as_scales,
    check_images,
)
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.descriptors import as_format
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.detector.features import Features, keypoints_to_array
from cv_superpoint.detector.runtime import Runtime
from cv_superpoint.detector.streaming import stream
from cv_superpoint.errors import FeatureError
from cv_superpoint.opencv import storage
from cv_superpoint.opencv.call_forms import (
    REQUIRED,
    check_count,
    give,
    one_of,
    signature_of,
    to_host,
)
from cv_superpoint.opencv.parameters import Parameters
from cv_superpoint.opencv.pickling import Portable
from cv_superpoint.pictures.arrays import check_image, is_empty
from cv_superpoint.weights import LoadedWeights, load_weights

KeyPoints = tuple[cv2.KeyPoint, ...]

Image = TypeVar("Image")


class SuperPointFeature2D(Parameters, Portable):
    """SuperPoint with the methods, call forms and return types of ``cv2.SIFT``.

    Args:
        maxKeypoints: Largest number of keypoints: the strongest are kept. -1, None, or 0 as in
            ``cv2.SIFT``, keeps all above the threshold.
        scoreThreshold: Score that a keypoint must exceed, in [0, 1); None takes what the weights
            recommend.
        nmsRadius: Chebyshev distance in pixels within which only one keypoint is kept.
        borderMargin: Distance in pixels that every keypoint has from the image's border.
        subpixel: Whether positions are refined below the pixel.
        weights: Bundled name, or path of a checkpoint (ours, or in the layout of Magic Leap,
            rpautrat, eric-yyjau or Hugging Face); None takes the bundled default. With weights
            that have no descriptors :meth:`detect` works, as with ``cv2.FastFeatureDetector``.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", or a ``torch.device``.
        precision: "auto", "float32", "bfloat16", "float16" or "int8".
        backend: "auto", "ncnn", "openvino", "onnxruntime" or "torch"; see docs/speed.md.
        scales: Pyramid levels relative to the image, or one, merged into one set; None takes what
            the weights recommend; see docs/options.md. Keypoint ``size`` is 8 / scale, ``octave``
            its position among these.
        scoreRadius: A keypoint's score is the sum of the probabilities within this Chebyshev
            distance, in pixels; 0 takes the probability of its pixel, as the paper; None takes
            what the weights recommend. Another radius needs a ``scoreThreshold`` of its own.
        tileSize: Levels with more pixels than its square run in overlapping tiles of about this
            side, a multiple of 8, which bounds the memory in use and changes no keypoint.
        threads: Threads of a network on the CPU; None takes the cores that the process may use.
        descriptorFormat: "float32", rows of unit length; "uint8", a quarter of the bytes; or
            "binary", bits for ``cv2.NORM_HAMMING`` like those of ``cv2.ORB``; see
            docs/descriptors.md.
        descriptorDim: Numbers of a descriptor, the first principal components, or bits, a multiple
            of 8; None takes all numbers, or 256 bits.

    Raises:
        ImportError: If the backend's package is not installed.
        WeightsError: If the weights cannot be loaded.
        FeatureError: If a parameter is out of range; it is a ``cv2.error`` and a ``ValueError``.

    Convention:
        Keypoints are (x, y) in pixels of the image passed, (0, 0) the centre of its top-left
        pixel. They are sorted by descending ``response``, the score; ``angle`` and
        ``class_id`` are -1; ``size`` is the diameter of the network's cell, 8 pixels.
    """

    def __init__(
        self,
        maxKeypoints: int | None = -1,
        scoreThreshold: float | None = None,
        nmsRadius: int = 4,
        borderMargin: int = 4,
        subpixel: bool = True,
        weights: str | os.PathLike[str] | None = None,
        device: Any = "auto",
        precision: Any = "auto",
        backend: str | None = "auto",
        *,
        scales: float | Sequence[float] | None = None,
        scoreRadius: int | None = None,
        tileSize: int = 1024,
        threads: int | None = None,
        descriptorFormat: str | None = "float32",
        descriptorDim: int | None = None,
    ) -> None:
        self._runtime = Runtime(
            device=device, precision=precision, backend=backend, threads=threads
        )
        options: dict[str, Any] = {
            "max_keypoints": maxKeypoints,
            "score_threshold": scoreThreshold,
            "nms_radius": nmsRadius,
            "score_radius": scoreRadius,
            "border_margin": borderMargin,
            "subpixel": subpixel,
        }
        # Checked before the network is loaded; the weights may have to say the rest.
        given = {name: value for name, value in options.items() if value is not None}
        config = DetectorConfig(
            decoding=Decoding(**given),
            scales=as_scales(scales),
            tile_size=tileSize,
            descriptors=as_format(descriptorFormat, descriptorDim),
        )
        loaded = load_weights(weights)
        if scales is None:
            config = replace(config, scales=loaded.scales)
        self._start(loaded, replace(config, decoding=loaded.decoding(**options)))

    @classmethod
    @signature_of(__init__)
    def create(cls, *arguments: Any, **options: Any) -> SuperPointFeature2D:
        """Create a detector, as OpenCV's classes do; the arguments are the constructor's."""
        return cls(*arguments, **options)

    def _start(self, weights: LoadedWeights, config: DetectorConfig) -> None:
        self._detector, self._choice = self._runtime.start(weights, config)
        self._weights = weights

    @property
    def detector(self) -> Detector:
        """The detector that computes, on arrays: a new one after every setter."""
        return self._detector

    # ---- the twelve methods of cv2.Feature2D ----

    def detectAndCompute(
        self,
        image: Any,
        mask: Any = None,
        descriptors: Any = None,
        useProvidedKeypoints: bool = False,
        *,
        keypoints: Sequence[cv2.KeyPoint] | None = None,
    ) -> tuple[KeyPoints, Any]:
        """Keypoints and descriptors of one image.

        Args:
            image: uint8 grey, BGR or BGRA, ``numpy`` or ``cv2.UMat``, of any size.
            mask: None, or uint8 or bool of the image's size; non-zero keeps.
            descriptors: Preallocated (N, D) array, filled in place if it fits.
            useProvidedKeypoints: Whether to describe ``keypoints`` instead of detecting.
            keypoints: Keypoints to describe then; see :meth:`compute`.

        Returns:
            A tuple of ``cv2.KeyPoint``, and (N, D) descriptors, float32 or uint8; ``cv2.UMat`` if
            any input was one; ``((), None)`` if there is no keypoint.

        Raises:
            FeatureError: If the image or the mask is of the wrong type or size, or the weights
                have no descriptors.
        """
        self._weights.check_descriptors()
        wants_umat = any(isinstance(value, cv2.UMat) for value in (image, mask, descriptors))
        image = check_image(to_host(image))
        if useProvidedKeypoints:
            found, rows = self._describe(image, () if keypoints is None else keypoints)
        else:
            if keypoints is not None:
                warnings.warn(
                    "keypoints= has no effect without useProvidedKeypoints=True", stacklevel=2
                )
            features = self._detector.extract(image, to_host(mask))
            found, rows = features.to_keypoints(), features.descriptors
        return found, give(rows, descriptors, wants_umat)

    def detect(
        self,
        image: Any = REQUIRED,
        mask: Any = None,
        *,
        images: Any = REQUIRED,
        masks: Any = None,
    ) -> Any:
        """Keypoints of an image, or of each image of a list or tuple.

        Args:
            image: Image as for :meth:`detectAndCompute`, or a list; None or empty gives ``()``.
            mask: Same as for :meth:`detectAndCompute`, or a list with one for each image.
            images: The same as a list for ``image``, by keyword.
            masks: The same as a list for ``mask``, by keyword.

        Returns:
            A tuple of ``cv2.KeyPoint``; for a list a tuple of such tuples.
        """
        image, mask = one_of(image, images, "image"), mask if masks is None else masks
        if not isinstance(image, (list, tuple)):
            image, mask = to_host(image), to_host(mask)
            if is_empty(image):
                return ()
            return self._detector.extract(image, mask).to_keypoints()
        hosts = [to_host(one) for one in image]
        host_masks = [None] * len(hosts) if is_empty(mask) else [to_host(one) for one in mask]
        host_masks = host_masks or [None] * len(hosts)
        check_count("masks", len(host_masks), len(hosts))
        filled = [index for index, one in enumerate(hosts) if not is_empty(one)]
        features = self._detector.extract_batch(
            [hosts[index] for index in filled], [host_masks[index] for index in filled]
        )
        found: list[KeyPoints] = [()] * len(hosts)
        for index, one_set in zip(filled, features, strict=True):
            found[index] = one_set.to_keypoints()
        return tuple(found)

    def compute(
        self,
        image: Any = REQUIRED,
        keypoints: Any = None,
        descriptors: Any = None,
        *,
        images: Any = REQUIRED,
    ) -> tuple[Any, Any]:
        """Descriptors of any keypoints: fewer, in another order, from another detector, sub-pixel.

        Args:
            image: Same as for :meth:`detectAndCompute`, or a list of images.
            keypoints: ``cv2.KeyPoint`` objects; for a list of images a list of such lists.
            descriptors: Preallocated, as for :meth:`detectAndCompute` (one image only).
            images: The same as a list for ``image``, by keyword.

        Returns:
            The keypoints in their order with every field kept, without those outside the image,
            and their descriptors, row by row. ``((), None)`` if none is left.

        Raises:
            FeatureError: If an argument is of the wrong type, or the weights have no descriptors.
        """
        image = one_of(image, images, "image")
        if isinstance(image, (list, tuple)):
            keypoints = () if keypoints is None else keypoints
            check_count("sets of keypoints", len(keypoints), len(image))
            results = [
                self.compute(one, points) for one, points in zip(image, keypoints, strict=True)
            ]
            return tuple(found for found, _ in results), tuple(rows for _, rows in results)
        wants_umat = any(isinstance(value, cv2.UMat) for value in (image, descriptors))
        found, rows = self._describe(to_host(image), () if keypoints is None else keypoints)
        return found, give(rows, descriptors, wants_umat)

    def descriptorSize(self) -> int:
        """Columns of a descriptor: its numbers, or the bytes of a binary one; 0 without any."""
        return self._detector.encoder.size

    def descriptorType(self) -> int:
        """``cv2.CV_32F``; ``cv2.CV_8U`` for bytes and bits."""
        floats = self._detector.config.descriptors.kind == "float32"
        return int(cv2.CV_32F if floats else cv2.CV_8U)

    def defaultNorm(self) -> int:
        """``cv2.NORM_L2``, which sorts as dot products do; ``cv2.NORM_HAMMING`` for bits."""
        binary = self._detector.config.descriptors.binary
        return int(cv2.NORM_HAMMING if binary else cv2.NORM_L2)

    def empty(self) -> bool:
        """False: there are always weights."""
        return False

    def clear(self) -> None:
        """Do nothing: a detector keeps no state between calls."""

    def getDefaultName(self) -> str:
        """Name of the detector in a ``cv2.FileStorage``."""
        return storage.NAME

    def write(self, file: Any, name: str | None = None) -> None:
        """Write the parameters to a file, or under ``name`` into an open ``cv2.FileStorage``."""
        storage.write(file, name, self._detector.config, self._weights)

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the parameters to a file that :meth:`read` takes."""
        self.write(filename)

    def read(self, source: Any) -> None:
        """Take the parameters, and the weights, from a file or a ``cv2.FileNode``.

        Raises:
            FeatureError: If they are not a SuperPoint's, or are for weights that changed.
        """
        parameters = storage.read(source)
        weights = storage.find_weights(parameters, self._weights)
        if weights is None:
            self._detector = self._detector.configured(parameters.config)
        else:
            self._start(weights, parameters.config)

    # ---- beyond cv2 ----

    def extract(self, image: Any, mask: Any = None) -> Features:
        """Keypoints and descriptors as arrays; otherwise as :meth:`detectAndCompute`."""
        self._weights.check_descriptors()
        return self._detector.extract(to_host(image), to_host(mask))

    def extractBatch(
        self, images: Sequence[Any], masks: Sequence[Any] | None = None
    ) -> list[Features]:
        """:meth:`extract` for each image, of any sizes; one call fills a GPU."""
        self._weights.check_descriptors()
        hosts = [to_host(image) for image in as_images(images)]
        return self._detector.extract_batch(
            hosts, None if masks is None else [to_host(mask) for mask in masks]
        )

    def extractStream(
        self, images: Iterable[Image], ahead: int = 2
    ) -> Iterator[tuple[Image, Features]]:
        """:meth:`extract` for each image of a video or of another sequence, in order.

        The network works on an image while the one before it is decoded and the next are read.

        Args:
            images: Images, also without an end: no more are read than needed. The iterable must
                not change an image that it has given.
            ahead: Largest number of images that are read before the features of the oldest are
                taken.

        Yields:
            Each image with its features.

        Raises:
            FeatureError: If ``ahead`` is below 1; for each image as :meth:`extract`.
        """
        self._weights.check_descriptors()
        check_images(images)
        return stream(self._detector, images, to_host, as_count("ahead", ahead, 1))

    def info(self) -> str:
        """One line that says which weights, backend and precision run, and why."""
        weights = self._weights
        how = f"{self._detector.backend.info()}: {self._choice.reason}"
        return f"{weights.name} ({weights.sha256[:12]}){self._detector.encoder.info()}, {how}"

    def describe(self) -> str:
        """Old name of :meth:`info`, removed in 0.3."""
        warnings.warn("describe() is info() now", DeprecationWarning, stacklevel=2)
        return self.info()

    def __repr__(self) -> str:
        config = self._detector.config
        return f"SuperPointFeature2D(weights={self._weights.name!r}, {config})"

    def _describe(self, image: Any, keypoints: Any) -> tuple[KeyPoints, NDArray[Any]]:
        self._weights.check_descriptors()
        image = check_image(image)
        if not isinstance(keypoints, (list, tuple)) or not all(
            isinstance(keypoint, cv2.KeyPoint) for keypoint in keypoints
        ):
            raise FeatureError(
                "keypoints must be a list or tuple of cv2.KeyPoint; "
                "make them from an (N, 2) array with cv2.KeyPoint.convert(points)"
            )
        points = keypoints_to_array(keypoints)
        last = np.array((image.shape[1], image.shape[0]), np.float32) - np.float32(0.5)
        inside = np.all((points >= -0.5) & (points <= last), axis=1)  # False for NaN
        kept = tuple(keypoints[index] for index in np.flatnonzero(inside))
        sizes = np.array([keypoint.size for keypoint in kept], np.float32)
        return kept, self._detector.describe(image, points[inside], sizes)
