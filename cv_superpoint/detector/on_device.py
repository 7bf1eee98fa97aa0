"""Images through a backend that decodes on its device: only keypoints come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding import Decoding
from cv_superpoint.detector.levels import Level
from cv_superpoint.detector.tiles import Tile
from cv_superpoint.pictures.arrays import ByteArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Decoded = tuple[Floats, Floats, Floats]
"""Points (N, 2) as (x, y), scores (N,) and descriptors (N, D), the strongest first."""
Stack = tuple[Sequence[Level], Tile, ByteArray]
"""Levels, a tile, and that tile of each of them, (B, H, W, C)."""
_BEGUN = 2
"""Calls that are begun before the first is waited for: the device computes while the host works."""


class DecodingBackend(Protocol):
    """What a backend with ``decodes`` set offers beyond :class:`cv_superpoint.backends.Backend`."""

    def start_decoding(
        self,
        images: ByteArray,
        frames: NDArray[np.int32],
        allowed: Mask | None,
        decoding: Decoding,
    ) -> Callable[[], list[Decoded]]:
        """Begin to find the keypoints of images of one size.

        Args:
            images: (B, H, W, C), padded to multiples of 8.
            frames: (B, 6), pixels: height and width of the image in the top-left corner, outside
                of which nothing suppresses, and top, left, bottom and right of where keypoints may
                be, which is within the border margin.
            allowed: (B, H, W), where keypoints may be, too; None for everywhere.
            decoding: What is kept.

        Returns:
            A function that waits for the end and gives what was found, for each image.

        Raises:
            FeatureError: If an image does not fit into the device's memory.
        """
        ...


def decode_on_device(
    backend: DecodingBackend,
    stacks: Iterable[Stack],
    masks: Sequence[Mask | None],
    decoding: Decoding,
) -> Iterator[tuple[Level, Tile, Decoded]]:
    """The strongest keypoints of each tile of each level, in the tile's own pixels.

    Args:
        backend: Backend that runs and decodes.
        stacks: What is to run.
        masks: (H, W) of each image, or None.
        decoding: What is kept.
    """
    begun: deque[Callable[[], Iterator[tuple[Level, Tile, Decoded]]]] = deque()
    for stack in stacks:
        begun.append(_start(backend, stack, masks, decoding))
        if len(begun) == _BEGUN:
            yield from begun.popleft()()
    while begun:
        yield from begun.popleft()()


def _start(
    backend: DecodingBackend, stack: Stack, masks: Sequence[Mask | None], decoding: Decoding
) -> Callable[[], Iterator[tuple[Level, Tile, Decoded]]]:
    levels, tile, images = stack
    frames = np.array([_frame(level, tile, decoding.border_margin) for level in levels], np.int32)
    # A mask is read at the pixel nearest to a keypoint. Where the image itself runs, that is the
    # pixel that was found; for other levels all keypoints come back, and the mask acts on the host.
    later = [masks[level.image] if level.is_rescaled else None for level in levels]
    allowed = _allowed(levels, tile, images.shape[1:3], masks)
    asked = decoding
    if any(mask is not None for mask in later):
        asked = replace(decoding, max_keypoints=-1)
    finish = backend.start_decoding(images, frames, allowed, asked)

    def decoded() -> Iterator[tuple[Level, Tile, Decoded]]:
        for level, mask, found in zip(levels, later, finish(), strict=True):
            if mask is not None:
                kept = np.flatnonzero(level.shows(mask, tile.origin, found[0]))
                found = found[0][kept], found[1][kept], found[2][kept]
            most = len(found[0]) if decoding.max_keypoints < 0 else decoding.max_keypoints
            yield level, tile, (found[0][:most], found[1][:most], found[2][:most])

    return decoded


def _frame(level: Level, tile: Tile, margin: int) -> tuple[int, ...]:
    height, width = level.size
    return height - tile.top, width - tile.left, *tile.inside(margin, level.size)


def _allowed(
    levels: Sequence[Level], tile: Tile, size: tuple[int, int], masks: Sequence[Mask | None]
) -> Mask | None:
    """The masks of the levels that are not rescaled, cut as the tile; None if there are none."""
    cuts = {
        index: mask[tile.top : tile.bottom, tile.left : tile.right]
        for index, level in enumerate(levels)
        if not level.is_rescaled and (mask := masks[level.image]) is not None
    }
    if not cuts:
        return None
    allowed = np.ones((len(levels), *size), np.bool_)
    for index, cut in cuts.items():
        allowed[index, : cut.shape[0], : cut.shape[1]] = cut
    return allowed
