"""Nearest descriptors: mutual, with ratio and distance tests, on the CPU or through torch.

Convention:
    Descriptors are rows of unit length, so the Euclidean distance of two is
    ``sqrt(2 - 2 * cosine)``. Results are (M, 2) row numbers, ascending in the first column, and
    (M,) float32 cosines. Bytes count as the rows that they encode. Of B bits of which h differ
    the cosine is ``cos(pi h / B)``, which random planes lead one to expect (Charikar, "Similarity
    estimation techniques from rounding algorithms", STOC 2002), so the tests' limits suit them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.decoding.descriptors import OFFSET, from_bytes, steps
from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError, require

if TYPE_CHECKING:
    import torch

Pairs: TypeAlias = tuple[NDArray[np.intp], NDArray[np.float32]]
Allowed: TypeAlias = Callable[[slice], NDArray[np.bool_]]
"""Rows of the first set, as a slice -> (rows, N1) which pairs may match."""

RATIO = 0.95
"""Default of a ratio test, measured: docs/results/accuracy.md."""
DISTANCE = 0.8
"""Default of a distance test, measured: docs/results/accuracy.md."""
BLOCK_ELEMENTS = 2**22
"""Similarities computed at a time, 16 MiB, whatever the number of descriptors."""
UNIT_TOLERANCE = 1e-2
"""How far from 1 the squared length of a descriptor may lie."""


def mutual_nearest(
    descriptors0: Any,
    descriptors1: Any,
    *,
    max_ratio: float | None = None,
    max_distance: float | None = None,
    device: str = "cpu",
    binary: bool = False,
) -> Pairs:
    """Find pairs of descriptors that are each other's nearest neighbours.

    ``cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)`` finds the same pairs; one matrix product is
    many times faster, also of uint8 rows, for which ``cv2.BFMatcher`` has no fast way with this
    norm. The memory in use does not grow with the number of descriptors.

    Args:
        descriptors0: (N0, D) rows, float32 of unit length or uint8 as ``descriptorFormat`` makes
            them; None, as ``cv2`` gives it, means no rows.
        descriptors1: (N1, D) rows of the same type.
        max_ratio: Largest ratio of a pair's distance to the distance of the second nearest in
            ``descriptors1`` (Lowe's test); :data:`RATIO` suits these descriptors.
            None skips this test.
        max_distance: Largest distance of a pair, such as :data:`DISTANCE`. None skips this test.
        device: "cpu", or a torch device such as "cuda" for the product.
        binary: Whether the rows are packed bits, compared by Hamming distance.

    Returns:
        (M, 2) row numbers, ascending in the first column, and (M,) float32 cosines. Every row is
        in one pair at most.

    Raises:
        FeatureError: If the shapes do not fit, rows are not of unit length, or a test's limit is
            out of range.
    """
    first = check_descriptors(descriptors0, "descriptors0", binary)
    second = check_descriptors(descriptors1, "descriptors1", binary)
    if max_ratio is not None and not 0 < max_ratio <= 1:
        raise FeatureError(f"max_ratio must lie in (0, 1], got {max_ratio}")
    if max_distance is not None and not 0 < max_distance <= 2:
        raise FeatureError(f"max_distance must lie in (0, 2], got {max_distance}")
    if len(first) == 0 or len(second) == 0:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    if first.shape[1] != second.shape[1]:
        raise FeatureError(
            "descriptors0 and descriptors1 must be of one length, "
            f"got {first.shape} and {second.shape}"
        )
    find = _nearest if device == "cpu" else _nearest_in_torch(device)
    pairs, similarity, runner_up = find(first, second, max_ratio is not None)
    if binary:
        if len(second) == 1:  # there is no second nearest; as far as can be
            runner_up = np.full_like(runner_up, -first.shape[1])
        similarity, runner_up = (_cosine(each, first.shape[1]) for each in (similarity, runner_up))
    keep = np.ones(len(pairs), np.bool_)
    if max_distance is not None:
        keep &= _distance(similarity) <= max_distance
    if max_ratio is not None:
        keep &= _distance(similarity) <= max_ratio * _distance(runner_up)
    return pairs[keep], similarity[keep]


def nearest_features(
    features0: Features,
    features1: Features,
    *,
    max_ratio: float | None = None,
    max_distance: float | None = None,
) -> Pairs:
    """:func:`mutual_nearest` of two images' features, whose descriptors are of one kind.

    Raises:
        FeatureError: If :func:`mutual_nearest` raises it, or they are of different kinds.
    """
    return mutual_nearest(
        features0.descriptors,
        features1.descriptors,
        max_ratio=max_ratio,
        max_distance=max_distance,
        binary=are_binary(features0, features1),
    )


def nearest_allowed(features0: Features, features1: Features, allowed: Allowed) -> Pairs:
    """Same as :func:`nearest_features`, among the pairs that a function allows."""
    binary = are_binary(features0, features1)
    first = check_descriptors(features0.descriptors, "descriptors0", binary)
    second = check_descriptors(features1.descriptors, "descriptors1", binary)
    pairs, similarity, _ = _nearest(first, second, False, allowed)
    return pairs, _cosine(similarity, first.shape[1]) if binary else similarity


def cosines(
    features0: Features, features1: Features, rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(M,) cosines of the descriptors in (M, 2) matched rows."""
    binary = are_binary(features0, features1)
    first = check_descriptors(features0.descriptors[rows[:, 0]], "descriptors0", binary)
    second = check_descriptors(features1.descriptors[rows[:, 1]], "descriptors1", binary)
    products: NDArray[np.float32] = np.einsum("md,md->m", first, second)
    return _cosine(products, first.shape[1]) if binary else products


def are_binary(features0: Features, features1: Features) -> bool:
    """Whether the descriptors of two images are bits.

    Raises:
        FeatureError: If only those of one image are bits.
    """
    kinds = features0.descriptor_kind, features1.descriptor_kind
    if ("binary" in kinds) and kinds[0] != kinds[1]:
        raise FeatureError(
            f"descriptors must be of one kind, got {kinds[0]} and {kinds[1]}; extract both with "
            "the same descriptorFormat"
        )
    return kinds[0] == "binary"


def _cosine(agreement: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The cosine for a number of equal bits less the number of different ones."""
    differing = (1 - agreement / np.float32(bits)) / 2
    cosine: NDArray[np.float32] = np.cos(np.float32(np.pi) * differing).astype(np.float32)
    return cosine


def check_descriptors(descriptors: Any, name: str, binary: bool = False) -> NDArray[np.float32]:
    """Descriptors as rows whose products order them; (0, 0) for None.

    Args:
        descriptors: What was given.
        name: Name of the matcher, for errors.
        binary: Whether they are packed bits.

    Returns:
        (N, D) float32 rows of unit length, or a row of 1 and -1 for each row of bits: products of
        these are whole numbers, so equal distances stay equal.

    Raises:
        FeatureError: If they are anything else.
    """
    if descriptors is None:
        return np.empty((0, 0), np.float32)
    if not isinstance(descriptors, np.ndarray) or descriptors.ndim != 2:
        raise FeatureError(
            f"{name} must be an (N, D) array, got {getattr(descriptors, 'shape', descriptors)}"
        )
    if len(descriptors) and not descriptors.shape[1]:
        raise FeatureError(
            f"{name} have no numbers, as of weights that find keypoints only; take other weights"
        )
    if binary:
        if descriptors.dtype != np.uint8:
            raise FeatureError(
                f"{name} must be uint8 rows of bits with binary=True, got {descriptors.dtype}; "
                "leave it out for numbers"
            )
        bits = np.unpackbits(descriptors, axis=1).astype(np.float32)
        bits *= 2
        bits -= 1
        return bits
    if descriptors.dtype == np.uint8:
        return _from_bytes(descriptors, name)
    rows = descriptors.astype(np.float32, copy=False)
    squares = np.einsum("nd,nd->n", rows, rows)
    wrong = np.flatnonzero(~(np.abs(squares - 1) <= UNIT_TOLERANCE))  # NaN is wrong, too
    if len(wrong):
        raise FeatureError(
            f"{name} must have rows of unit length, got length {np.sqrt(squares[wrong[0]]):g} in "
            f"row {wrong[0]}; divide them by np.linalg.norm(rows, axis=1, keepdims=True), or use "
            "cv2.BFMatcher"
        )
    return rows


def _from_bytes(rows: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    floats = rows.astype(np.float32) - np.float32(OFFSET)
    lengths = np.sqrt(np.einsum("nd,nd->n", floats, floats))
    # Clipped numbers make a row shorter; bits, and other programs' bytes, are far longer.
    wrong = np.flatnonzero(~((lengths > 0) & (lengths <= 1.1 * steps(rows.shape[1]))))
    if len(wrong):
        raise FeatureError(
            f"{name} must be uint8 rows as descriptorFormat='uint8' makes them, row {wrong[0]} is "
            "none; with binary=True they are bits, and cv2.BFMatcher takes any"
        )
    return from_bytes(rows)


def _distance(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    distance: NDArray[np.float32] = np.sqrt(np.maximum(2 - 2 * similarity, 0))
    return distance


def _nearest(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    second_best: bool,
    allowed: Allowed | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Mutual pairs, their cosines, and each pair's second highest cosine in its row."""
    nearest = np.empty(len(first), np.intp)
    similarity = np.empty(len(first), np.float32)
    runner_up = np.full(len(first), -1, np.float32)
    best = np.full(len(second), -np.inf, np.float32)
    step = max(1, BLOCK_ELEMENTS // len(second))
    for start in range(0, len(first), step):
        rows = slice(start, min(start + step, len(first)))
        block = first[rows] @ second.T
        if allowed is not None:
            block[~allowed(rows)] = -np.inf
        nearest[rows] = block.argmax(axis=1)
        similarity[rows] = np.take_along_axis(block, nearest[rows, None], axis=1)[:, 0]
        np.maximum(best, block.max(axis=0), out=best)
        if second_best and len(second) > 1:
            np.put_along_axis(block, nearest[rows, None], -np.inf, axis=1)
            runner_up[rows] = block.max(axis=1)
    return _mutual(nearest, similarity, best, runner_up)


def _mutual(
    nearest: NDArray[np.intp],
    similarity: NDArray[np.float32],
    best: NDArray[np.float32],
    runner_up: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    # Equal numbers, not nearly equal ones: both sides come from the same product. A maximum along
    # columns is a vector operation where an argmax is not.
    mutual = np.flatnonzero((similarity == best[nearest]) & np.isfinite(similarity))
    # Equal descriptors may claim one partner twice: the first keeps it.
    mutual = np.sort(mutual[np.unique(nearest[mutual], return_index=True)[1]])
    return np.stack([mutual, nearest[mutual]], axis=1), similarity[mutual], runner_up[mutual]


def _nearest_in_torch(
    device: str,
) -> Callable[..., tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]]:
    """:func:`_nearest` with the product on a torch device; only row maxima come back."""
    torch = require("torch", "torch")
    from cv_superpoint.backends.torch import choose_device

    chosen = choose_device(device)

    def find(
        first: NDArray[np.float32], second: NDArray[np.float32], second_best: bool
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            columns = _to(second, chosen)
            parts: list[tuple[NDArray[Any], ...]] = []
            best = torch.full((len(second),), -torch.inf, device=chosen)
            step = max(1, 16 * BLOCK_ELEMENTS // len(second))
            for start in range(0, len(first), step):
                block = _to(first[start : start + step], chosen) @ columns.T
                count = min(2 if second_best else 1, len(second))
                values, indices = block.topk(count, dim=1)
                torch.maximum(best, block.amax(dim=0), out=best)
                last = values[:, -1] if count == 2 else torch.full_like(values[:, 0], -1)
                found = indices[:, 0], values[:, 0], last
                parts.append(tuple(each.cpu().numpy() for each in found))
        nearest, similarity, runner_up = map(np.concatenate, zip(*parts, strict=True))
        return _mutual(nearest.astype(np.intp), similarity, best.cpu().numpy(), runner_up)

    return find


def _to(rows: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    import torch  # it is there: the device is torch's

    return torch.from_numpy(np.ascontiguousarray(rows)).to(device)
