"""Images in, :class:`Features` out: quotas, masks, pyramid levels, tiles, batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend
from cv_superpoint.checks import as_count, as_scales
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.decoding.arrays import Steps
from cv_superpoint.detector.features import CELL_DIAMETER, Features
from cv_superpoint.detector.on_device import DecodingBackend, extract_on_device
from cv_superpoint.detector.tiles import Tile, make_tiles
from cv_superpoint.errors import ASSERTION_FAILED, FeatureError
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.architecture import NetworkConfig, receptive_margin
from cv_superpoint.pictures.arrays import (
    ByteArray,
    check_mask,
    interleave,
    pad,
    padded_size,
    to_channels,
    window_maximum,
)

STEPS = Steps(interleave=interleave, window_maximum=window_maximum)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """How images become keypoints.

    Attributes:
        decoding: What is kept of the network's answer; ``nms_radius`` and ``score_radius`` are in
            pixels of a level, ``max_keypoints`` counts over all levels.
        scales: Sizes of the pyramid's levels relative to the image; one set comes back.
        tile_size: Levels with more than ``tile_size ** 2`` pixels run in overlapping tiles of
            about this side, in pixels, a multiple of 8; it bounds the memory in use.

    Raises:
        FeatureError: If a value is out of range.
    """

    decoding: Decoding = field(default_factory=Decoding)
    scales: tuple[float, ...] = (1.0,)
    tile_size: int = 1024

    def __post_init__(self) -> None:
        # It is frozen.
        object.__setattr__(self, "scales", as_scales(self.scales))
        object.__setattr__(self, "tile_size", as_count("tile_size", self.tile_size))
        if not self.scales or not all(0.01 <= scale <= 8 for scale in self.scales):
            raise FeatureError(f"scales must be one or more in [0.01, 8], got {self.scales}")
        if len(set(self.scales)) != len(self.scales):
            raise FeatureError(f"scales must differ from each other, got {self.scales}")
        if self.tile_size < 8 * CELL_SIZE or self.tile_size % CELL_SIZE:
            raise FeatureError(
                f"tile_size must be a multiple of {CELL_SIZE}, at least {8 * CELL_SIZE}, "
                f"got {self.tile_size}"
            )


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One pyramid level of one image of a batch."""

    image: int
    octave: int
    pixels: ByteArray
    image_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def ratio(self) -> NDArray[np.float32]:
        """Image pixels for one level pixel, along x and y."""
        (height, width), (level_height, level_width) = self.image_size, self.size
        return np.array((width / level_width, height / level_height), np.float32)

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Level (x, y) -> image (x, y): pixel centres are half a pixel inside the pixel grid."""
        if self.size == self.image_size:
            return points
        last = np.array((self.image_size[1] - 1, self.image_size[0] - 1), np.float32)
        mapped: NDArray[np.float32] = (points + np.float32(0.5)) * self.ratio - np.float32(0.5)
        return mapped.clip(0, last)

    def from_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image (x, y) -> level (x, y)."""
        if self.size == self.image_size:
            return points
        mapped: NDArray[np.float32] = (points + np.float32(0.5)) / self.ratio - np.float32(0.5)
        return mapped


class Detector:
    """Array-first SuperPoint; holds no state between calls, so threads may share it.

    Args:
        backend: Runs the network.
        network: What it runs.
        config: How images become keypoints.
    """

    def __init__(self, backend: Backend, network: NetworkConfig, config: DetectorConfig) -> None:
        self.backend = backend
        self.network = network
        self.config = config

    def configured(self, config: DetectorConfig) -> Detector:
        """A detector of the same network with another configuration."""
        return Detector(self.backend, self.network, config)

    @property
    def channels(self) -> int:
        """Channels of the network's input, 1 or 3."""
        return self.network.in_channels

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return self.network.descriptor_dim

    def extract(self, image: Any, mask: Any = None) -> Features:
        """Keypoints and descriptors of one image.

        Args:
            image: uint8, (H, W) or (H, W, C) with 1, 3 (BGR) or 4 (BGRA) channels, any size.
            mask: None, or uint8 or bool of the image's size; non-zero keeps. It is read at the
                keypoint's nearest pixel, before ``max_keypoints`` is filled.

        Raises:
            FeatureError: If the image or the mask is of the wrong type or size.
        """
        return self.extract_batch([image], [mask])[0]

    def extract_batch(
        self, images: Sequence[Any], masks: Sequence[Any] | None = None
    ) -> list[Features]:
        """As :meth:`extract` for each image; sizes may differ.

        Raises:
            FeatureError: As :meth:`extract`, or if there are not as many masks as images.
        """
        if masks is None or len(masks) == 0:
            masks = [None] * len(images)
        if len(masks) != len(images):
            raise FeatureError(
                f"there must be a mask for each image, got {len(masks)} masks and "
                f"{len(images)} images",
                ASSERTION_FAILED,
            )
        pixels = [to_channels(image, self.channels) for image in images]
        kept = [
            check_mask(mask, image.shape[:2]) for mask, image in zip(masks, pixels, strict=True)
        ]
        if self.backend.decodes and self._fits_device(pixels):
            return self._on_device(pixels, kept)
        parts: list[list[Features]] = [[] for _ in images]
        for level, tile, logits, dense in self._run(self._levels(pixels)):
            features = self._decode(level, tile, logits, dense, kept[level.image])
            parts[level.image].append(features)
        return [
            self._merge(part, image.shape[:2]) for part, image in zip(parts, pixels, strict=True)
        ]

    def describe(
        self, image: Any, points: NDArray[np.float32], sizes: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Descriptors at given positions.

        Args:
            image: As for :meth:`extract`.
            points: (N, 2) as (x, y), inside the image.
            sizes: (N,) diameters in pixels; each point is described at the pyramid level whose
                keypoints are closest to that size. None takes the first level.

        Returns:
            (N, D) float32 unit rows, in the order of the points.
        """
        pixels = to_channels(image, self.channels)
        points = np.asarray(points, np.float32).reshape(-1, 2)
        octaves = self._octaves(sizes, len(points))
        descriptors = np.empty((len(points), self.descriptor_dim), np.float32)
        levels = [level for level in self._levels([pixels]) if np.any(octaves == level.octave)]
        for level, tile, _, dense in self._run(levels):
            positions = level.from_image(points)
            # Points within half a pixel outside the border belong to the border's tiles.
            inside = np.clip(positions, 0, np.array(level.size[::-1], np.float32) - 1)
            rows = np.flatnonzero((octaves == level.octave) & tile.owns(inside))
            origin = np.array((tile.left, tile.top), np.float32)
            descriptors[rows] = decode.sample_descriptors(dense, positions[rows] - origin)
        return descriptors

    def _fits_device(self, images: Sequence[ByteArray]) -> bool:
        """Whether the device can decode these: one level, no tiles, a count that is fixed."""
        config = self.config
        largest = max((image.shape[0] * image.shape[1] for image in images), default=0)
        return (
            config.decoding.max_keypoints > 0
            and config.scales == (1.0,)
            and (largest <= config.tile_size**2)
        )

    def _on_device(
        self, images: Sequence[ByteArray], masks: Sequence[NDArray[np.bool_] | None]
    ) -> list[Features]:
        """Images of one size in batches."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(image.shape, []).append(index)
        found: dict[int, Features] = {}
        for group in groups.values():
            for start in range(0, len(group), self.backend.batch):
                batch = group[start : start + self.backend.batch]
                features = extract_on_device(
                    cast(DecodingBackend, self.backend),
                    [images[index] for index in batch],
                    [masks[index] for index in batch],
                    self.config.decoding,
                )
                found.update(zip(batch, features, strict=True))
        return [found[index] for index in range(len(images))]

    def _octaves(self, sizes: NDArray[np.float32] | None, count: int) -> NDArray[np.int32]:
        """The pyramid level that each of the points is described at."""
        scales = self.config.scales
        if sizes is None or len(scales) == 1:
            return np.zeros(count, np.int32)
        levels = np.log(CELL_DIAMETER / np.array(scales))
        distance = np.abs(np.log(np.maximum(sizes, 1e-6))[:, None] - levels)
        nearest: NDArray[np.int32] = distance.argmin(axis=1).astype(np.int32)
        return nearest

    def _levels(self, images: Sequence[ByteArray]) -> list[_Level]:
        return [
            _Level(
                image=index,
                octave=octave,
                pixels=_rescale(image, scale),
                image_size=(image.shape[0], image.shape[1]),
            )
            for octave, scale in enumerate(self.config.scales)
            for index, image in enumerate(images)
        ]

    def _run(
        self, levels: Sequence[_Level]
    ) -> Iterator[tuple[_Level, Tile, NDArray[np.float32], NDArray[np.float32]]]:
        """The network's outputs for each tile of each level, small equal levels in batches."""
        batches: dict[tuple[int, int], list[_Level]] = {}
        for level in levels:
            batches.setdefault(padded_size(level.size), []).append(level)
        for size, group in batches.items():
            tiles = make_tiles(
                size,
                tile_size=self.config.tile_size,
                reach=self.config.decoding.reach,
                margin=receptive_margin(self.network),
            )
            step = self.backend.batch if len(tiles) == 1 else 1
            for start in range(0, len(group), step):
                batch = group[start : start + step]
                padded = [pad(level.pixels) for level in batch]
                stack = padded[0][None] if len(padded) == 1 else np.stack(padded)
                stack = stack.reshape(*stack.shape[:3], self.channels)
                for tile in tiles:
                    logits, dense = self.backend.run(tile.cut(stack))
                    for level, *output in zip(batch, logits, dense, strict=True):
                        yield level, tile, output[0], output[1]

    def _decode(
        self,
        level: _Level,
        tile: Tile,
        logits: NDArray[np.float32],
        dense: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
    ) -> Features:
        """The strongest keypoints of one tile, in the coordinates of the image."""
        decoding, scale = self.config.decoding, self.config.scales[level.octave]
        height, width = level.size
        origin = np.array((tile.left, tile.top), np.float32)

        def keep(points: NDArray[np.float32]) -> NDArray[np.bool_]:
            assert mask is not None
            x, y = np.rint(level.to_image(points + origin)).astype(np.intp).T
            kept: NDArray[np.bool_] = mask[y, x]
            return kept

        points, scores, descriptors = decode.decode(
            logits,
            dense,
            decoding,
            size=(height - tile.top, width - tile.left),
            inside=tile.inside(decoding.border_margin, level.size),
            keep=None if mask is None else keep,
            steps=STEPS,
        )
        return Features(
            keypoints=level.to_image(points + origin),
            scores=scores,
            descriptors=descriptors,
            sizes=np.full(len(points), CELL_DIAMETER / scale, np.float32),
            octaves=np.full(len(points), level.octave, np.int32),
            image_size=level.image_size,
        )

    def _merge(self, parts: Sequence[Features], image_size: tuple[int, int]) -> Features:
        """One sorted set; equal scores in the order of level, row and column."""
        if len(parts) == 1:
            return parts[0]
        merged = Features.concatenate(parts, image_size)
        x, y = np.rint(merged.keypoints).T
        order = np.lexsort((x, y, merged.octaves, -merged.scores))
        count = self.config.decoding.max_keypoints
        return merged[order if count < 0 else order[:count]]


def _rescale(image: ByteArray, scale: float) -> ByteArray:
    """A pyramid level: blurred against aliasing, then resampled."""
    if scale == 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.ascontiguousarray(image)
    if scale < 1:
        sigma = (1 / scale - 1) / 2
        kernel = 2 * math.ceil(3 * sigma) + 1
        image = cv2.GaussianBlur(image, (kernel, kernel), sigma).astype(np.uint8, copy=False)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
