"""One process's share of a run: pictures in, finished shards out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import PictureError
from cv_superpoint.extract.plan import ExtractConfig, Format, Shard
from cv_superpoint.extract.precision import without_8_bits
from cv_superpoint.extract.store import TURNED, Row, write_shard
from cv_superpoint.files.entries import look
from cv_superpoint.files.fingerprint import Fingerprint, fingerprint
from cv_superpoint.pictures.arrays import ByteArray, padded_size
from cv_superpoint.pictures.orientation import stored_points
from cv_superpoint.pictures.reading import load_picture
from cv_superpoint.weights import load_weights

BATCH_PIXELS = 32 * 480 * 640
"""Pixels that go to the detector in one call."""
WAITING_PIXELS = 4 * BATCH_PIXELS
"""Pixels that wait for others of their size."""
AHEAD = 32
"""Pictures decoded ahead, so that the device never waits for a slow file."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture as the detector gets it.

    Attributes:
        pixels: uint8, shrunk where the options say so; None where it cannot be read.
        size: (height, width) of the file's picture, upright if it is so.
        orientation: Orientation by which it was turned, 1 to 8.
        notes: What else was done to it.
        file: The file that it was.
        why: Why it cannot be read.
    """

    pixels: ByteArray | None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    notes: tuple[str, ...] = ()
    file: Fingerprint | None = None
    why: str = ""


def decode(path: Path, grey: bool, longest_side: int, upright: bool) -> Decoded:
    """Read a picture as the detector takes it."""
    try:
        file = fingerprint(path) if isinstance(look(path), tuple) else None
        picture = load_picture(path, grey=grey, upright=upright)
    except PictureError as error:
        return Decoded(pixels=None, why=str(error))
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or "memory does not suffice"
        return Decoded(pixels=None, why=f"{path}: cannot be read ({why})")
    image = picture.pixels
    size = image.shape[0], image.shape[1]
    if 0 < longest_side < max(size):
        scale = longest_side / max(size)
        target = max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
        image = cv2.resize(image, target, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return Decoded(
        pixels=image, size=size, orientation=picture.orientation, notes=picture.notes, file=file
    )


class Worker:
    """Extracts shards; one for each device.

    Args:
        images: The folder of the images.
        format: Format of the shards.
        config: What to extract.
        readers: Threads that read and decode; 0 does it in turn.
    """

    def __init__(
        self, images: Path, format: Format, config: ExtractConfig, *, readers: int = 2
    ) -> None:
        self.images, self.format, self.config = images, format, config
        self.detector = without_8_bits(config).create()
        self.grey = load_weights(config.weights).config.in_channels == 1
        self.readers = readers

    def run(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Extract shards in turn; yields the shard of each image, when it was dealt with.

        Raises:
            ExtractError: If a shard cannot be written.
        """
        jobs = ((shard, name) for shard in shards for name in shard.names)
        open_shard = _OpenShard(self.detector, self.config)
        for shard, name, decoded in self._decode(jobs):
            open_shard.add(name, decoded)
            if open_shard.count == len(shard.names):
                rows, broken = open_shard.close(shard.names)
                write_shard(shard, self.format, rows, broken, half=self.config.half)
                open_shard = _OpenShard(self.detector, self.config)
            yield shard

    def _decode(self, jobs: Iterator[tuple[Shard, str]]) -> Iterator[tuple[Shard, str, Decoded]]:
        options = self.grey, self.config.longest_side, self.config.upright
        if self.readers == 0:
            for shard, name in jobs:
                yield shard, name, decode(self.images / name, *options)
            return
        # Threads: reading, decoding and hashing let other threads run, and a process would start
        # the script anew that calls this.
        waiting: deque[tuple[Shard, str, Future[Decoded]]] = deque()
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="cv-superpoint-reader")
        try:
            for shard, name in jobs:
                waiting.append((shard, name, pool.submit(decode, self.images / name, *options)))
                if len(waiting) > AHEAD:
                    yield _settled(*waiting.popleft())
            while waiting:
                yield _settled(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _OpenShard:
    """The shard being extracted: its features, and the pictures that wait for a full batch.

    Args:
        detector: With ``extractBatch``.
        config: What to extract.
    """

    def __init__(self, detector: Any, config: ExtractConfig) -> None:
        self.count = 0
        self._config = config
        self._detector = detector
        self._broken: dict[str, str] = {}
        self._found: dict[str, Row] = {}
        self._groups: dict[tuple[int, int], list[tuple[str, Decoded]]] = {}
        self._waiting = 0

    def add(self, name: str, decoded: Decoded) -> None:
        """Take a picture; pictures of equal padded size run together."""
        self.count += 1
        if decoded.pixels is None:
            self._broken[name] = decoded.why
            return
        size = padded_size(_pixels(decoded).shape[:2])
        group = self._groups.setdefault(size, [])
        group.append((name, decoded))
        self._waiting += math.prod(size)
        if (len(group) + 1) * math.prod(size) > BATCH_PIXELS:
            self._extract(size)
        elif self._waiting > WAITING_PIXELS:
            self._extract(max(self._groups, key=lambda one: len(self._groups[one])))

    def close(self, names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
        """The features of each picture, in the order of the names; why others have none."""
        for size in list(self._groups):
            self._extract(size)
        return [self._found[name] for name in names if name in self._found], self._broken

    def _extract(self, size: tuple[int, int]) -> None:
        group = self._groups.pop(size)
        self._waiting -= len(group) * math.prod(size)
        found = self._detector.extractBatch([_pixels(each) for _, each in group])
        for (name, each), features in zip(group, found, strict=True):
            assert each.file is not None
            features, notes = enlarge(features, each.size), each.notes
            if self._config.stored_points:
                features = as_stored(features, each.orientation)
            elif each.orientation > 1:
                notes = (*notes, TURNED)
            self._found[name] = Row(name=name, features=features, file=each.file, notes=notes)


def enlarge(features: Features, size: tuple[int, int]) -> Features:
    """Features of a shrunk picture in the coordinates of the whole."""
    if features.image_size == size:
        return features
    ratio = np.array(
        (size[1] / features.image_size[1], size[0] / features.image_size[0]), np.float32
    )
    keypoints = (features.keypoints + np.float32(0.5)) * ratio - np.float32(0.5)
    last = np.array((size[1] - 1, size[0] - 1), np.float32)
    return replace(
        features,
        keypoints=keypoints.clip(0, last),
        sizes=features.sizes * ratio.max(),
        image_size=size,
    )


def as_stored(features: Features, orientation: int) -> Features:
    """Features of an upright picture in the coordinates of the stored one."""
    height, width = features.image_size
    size = (width, height) if orientation > 4 else (height, width)
    keypoints = stored_points(features.keypoints, size, orientation)
    return replace(features, keypoints=keypoints, image_size=size)


def _pixels(each: Decoded) -> ByteArray:
    assert each.pixels is not None
    return each.pixels


def _settled(shard: Shard, name: str, future: Future[Decoded]) -> tuple[Shard, str, Decoded]:
    return shard, name, future.result()
