"""Images in, :class:`Features` out: quotas, masks, pyramid levels, tiles, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends import Backend
from cv_superpoint.checks import as_count, check_scales
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.decoding.arrays import Steps
from cv_superpoint.decoding.descriptors import (
    FLOATS,
    NOT_FITTED,
    Bytes,
    Compaction,
    DescriptorFormat,
    Encoder,
    NotFitted,
)
from cv_superpoint.detector.features import CELL_DIAMETER, Features
from cv_superpoint.detector.lanes import LanesBackend, decode_side_by_side, run_stack
from cv_superpoint.detector.levels import Level, rescale
from cv_superpoint.detector.on_device import Decoded, DecodingBackend, Stack, decode_on_device
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
        descriptors: What descriptors are handed out as.

    Raises:
        FeatureError: If a value is out of range.
    """

    decoding: Decoding = field(default_factory=Decoding)
    scales: tuple[float, ...] = (1.0,)
    tile_size: int = 1024
    descriptors: DescriptorFormat = FLOATS

    def __post_init__(self) -> None:
        # It is frozen.
        object.__setattr__(self, "scales", check_scales(self.scales))
        object.__setattr__(self, "tile_size", as_count("tile_size", self.tile_size))
        if self.tile_size < 8 * CELL_SIZE or self.tile_size % CELL_SIZE:
            raise FeatureError(
                f"tile_size must be a multiple of {CELL_SIZE}, at least {8 * CELL_SIZE}, "
                f"got {self.tile_size}"
            )


class Detector:
    """Array-first SuperPoint; holds no state between calls, so threads may share it.

    Args:
        backend: Runs the network.
        network: What it runs.
        config: How images become keypoints.
        compaction: Compaction of the network's weights, for descriptors with fewer numbers and for
            bits.
        weights: Digest of the network's weights, which features carry.

    Raises:
        FeatureError: If the compaction does not give the descriptors that the configuration asks
            for.
    """

    def __init__(
        self,
        backend: Backend,
        network: NetworkConfig,
        config: DetectorConfig,
        compaction: Compaction | NotFitted = NOT_FITTED,
        weights: str = "",
    ) -> None:
        self.backend = backend
        self.weights = weights
        self.network = network
        self.config = config
        self.compaction = compaction
        self.encoder = Encoder.of(config.descriptors, network.descriptor_dim, compaction)

    def configured(self, config: DetectorConfig) -> Detector:
        """A detector of the same network with another configuration."""
        return Detector(self.backend, self.network, config, self.compaction, self.weights)

    def on(self, backend: Backend) -> Detector:
        """The same detector with another backend for its network."""
        return Detector(backend, self.network, self.config, self.compaction, self.weights)

    @property
    def channels(self) -> int:
        """Channels of the network's input, 1 or 3."""
        return self.network.in_channels

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
        """Same as :meth:`extract` for each image; sizes may differ.

        Raises:
            FeatureError: If :meth:`extract` raises it, or there are not as many masks as images.
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
        parts: list[list[Features]] = [[] for _ in images]
        for level, features in self._decoded(self._levels(pixels), kept):
            parts[level.image].append(features)
        return [
            self._encoded(self._merge(part, image.shape[:2]))
            for part, image in zip(parts, pixels, strict=True)
        ]

    def describe(
        self, image: Any, points: NDArray[np.float32], sizes: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32] | Bytes:
        """Descriptors at given positions.

        Args:
            image: Same as for :meth:`extract`.
            points: (N, 2) as (x, y), inside the image.
            sizes: (N,) diameters in pixels; each point is described at the pyramid level whose
                keypoints are closest to that size. None takes the first level.

        Returns:
            One row for each point, in their order, in the format of the configuration.
        """
        pixels = to_channels(image, self.channels)
        points = np.asarray(points, np.float32).reshape(-1, 2)
        octaves = self._octaves(sizes, len(points))
        descriptors = np.empty((len(points), self.network.descriptor_dim), np.float32)
        levels = [level for level in self._levels([pixels]) if np.any(octaves == level.octave)]
        outputs = (run_stack(stack, self.backend.run) for stack in self._stacks(levels))
        for level, tile, _, dense in chain.from_iterable(outputs):
            positions = level.from_image(points)
            # Points within half a pixel outside the border belong to the border's tiles.
            inside = np.clip(positions, 0, np.array(level.size[::-1], np.float32) - 1)
            rows = np.flatnonzero((octaves == level.octave) & tile.owns(inside))
            descriptors[rows] = decode.sample_descriptors(dense, positions[rows] - tile.origin)
        return self.encoder(descriptors)

    def _encoded(self, features: Features) -> Features:
        """The features with their descriptors as the configuration asks for."""
        features = replace(features, weights=self.weights)
        if self.config.descriptors == FLOATS:
            return features
        rows = self.encoder(features.descriptors)
        return replace(features, descriptors=rows, descriptor_kind=self.config.descriptors.kind)

    def _decoded(
        self, levels: Sequence[Level], masks: Sequence[NDArray[np.bool_] | None]
    ) -> Iterator[tuple[Level, Features]]:
        """The strongest keypoints of each tile of each level, in the coordinates of the image."""
        if self.backend.decodes:
            backend = cast(DecodingBackend, self.backend)
            found = decode_on_device(backend, self._stacks(levels), masks, self.config.decoding)
        else:
            found = decode_side_by_side(
                cast(LanesBackend, self.backend), self._stacks(levels), partial(self._decode, masks)
            )
        for level, tile, (points, scores, descriptors) in found:
            scale = self.config.scales[level.octave]
            yield (
                level,
                Features(
                    keypoints=level.to_image(points + tile.origin),
                    scores=scores,
                    descriptors=descriptors,
                    sizes=np.full(len(points), CELL_DIAMETER / scale, np.float32),
                    octaves=np.full(len(points), level.octave, np.int32),
                    image_size=level.image_size,
                ),
            )

    def _octaves(self, sizes: NDArray[np.float32] | None, count: int) -> NDArray[np.int32]:
        """The pyramid level that each of the points is described at."""
        scales = self.config.scales
        if sizes is None or len(scales) == 1:
            return np.zeros(count, np.int32)
        levels = np.log(CELL_DIAMETER / np.array(scales))
        distance = np.abs(np.log(np.maximum(sizes, 1e-6))[:, None] - levels)
        nearest: NDArray[np.int32] = distance.argmin(axis=1).astype(np.int32)
        return nearest

    def _levels(self, images: Sequence[ByteArray]) -> list[Level]:
        return [
            Level(
                image=index,
                octave=octave,
                pixels=rescale(image, scale),
                image_size=(image.shape[0], image.shape[1]),
            )
            for octave, scale in enumerate(self.config.scales)
            for index, image in enumerate(images)
        ]

    def _stacks(self, levels: Sequence[Level]) -> Iterator[Stack]:
        """Levels of one padded size together, in tiles, small ones in batches."""
        batches: dict[tuple[int, int], list[Level]] = {}
        for level in levels:
            batches.setdefault(padded_size(level.size), []).append(level)
        for size, group in batches.items():
            tiles = make_tiles(
                size,
                tile_size=self.config.tile_size,
                reach=self.config.decoding.reach,
                margin=receptive_margin(self.network),
            )
            start = 0
            while start < len(group):
                # It may become less on the way, where memory does not hold as many.
                batch = group[start : start + (self.backend.batch if len(tiles) == 1 else 1)]
                start += len(batch)
                padded = [pad(level.pixels) for level in batch]
                stack = padded[0][None] if len(padded) == 1 else np.stack(padded)
                stack = stack.reshape(*stack.shape[:3], self.channels)
                for tile in tiles:
                    yield batch, tile, tile.cut(stack)

    def _decode(
        self,
        masks: Sequence[NDArray[np.bool_] | None],
        level: Level,
        tile: Tile,
        logits: NDArray[np.float32],
        dense: NDArray[np.float32],
    ) -> Decoded:
        """The strongest keypoints of one tile, in its own pixels."""
        height, width = level.size
        mask = masks[level.image]
        return decode.decode(
            logits,
            dense,
            self.config.decoding,
            size=(height - tile.top, width - tile.left),
            inside=tile.inside(self.config.decoding.border_margin, level.size),
            keep=None if mask is None else partial(level.shows, mask, tile.origin),
            steps=STEPS,
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
