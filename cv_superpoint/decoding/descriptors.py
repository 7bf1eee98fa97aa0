"""The form of descriptors: all their numbers or fewer, as floats, bytes or bits.

A network gives rows of unit length. Fewer numbers are their principal components, made of unit
length again; bytes are rounded multiples; bits are the signs of products with the planes' normals.
Planes and components belong to a network's weights: ``python -m train compact`` fits them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.checks import as_count
from cv_superpoint.errors import FeatureError

Kind = Literal["float32", "uint8", "binary"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BITS = 256
"""Bits of a binary descriptor by default: 32 bytes, as ``cv2.ORB``'s."""
OFFSET = 128
"""Byte of the number 0."""
_ROWS = 8192
"""Rows that are multiplied at a time, which bounds the memory in use."""
_SMALL = 2**18
"""Multiplications of a product that OpenBLAS, which numpy brings, leaves to the calling thread."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DescriptorFormat:
    """What descriptors are handed out as.

    Attributes:
        kind: "float32", rows of unit length; "uint8", one byte for each number; "binary", bits in
            bytes, for the Hamming distance.
        dim: Numbers of a descriptor, or bits of a binary one, a multiple of 8. None takes all that
            the network gives, or :data:`BITS`.

    Raises:
        FeatureError: If a value is out of range.
    """

    kind: Kind = "float32"
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FeatureError(
                f"descriptor_format must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        if self.dim is not None:
            count = as_count("descriptor_dim", self.dim, 1, ", or None")
            object.__setattr__(self, "dim", count)  # it is frozen
            if self.kind == "binary" and count % 8:
                raise FeatureError(
                    f"descriptor_dim of binary descriptors must be a multiple of 8, got {count}"
                )

    @property
    def binary(self) -> bool:
        """Whether rows are bits, which the Hamming distance compares."""
        return self.kind == "binary"

    def numbers(self, full: int) -> int:
        """Numbers of a descriptor, or bits, where the network gives ``full`` numbers.

        Raises:
            FeatureError: If that is fewer than asked for.
        """
        if self.binary:
            return BITS if self.dim is None else self.dim
        if self.dim is not None and self.dim > full:
            raise FeatureError(
                f"descriptor_dim must be at most {full}, which the network gives, got {self.dim}"
            )
        return full if self.dim is None else self.dim


FLOATS = DescriptorFormat()
"""All numbers, as the network gives them."""


@dataclass(frozen=True, kw_only=True)
class NotFitted:
    """The place of a :class:`Compaction` that is not there.

    Attributes:
        why: Reason, for the error where it is needed.
    """

    why: str = (
        "these weights have no principal components and no planes for bits; fit them with: "
        "python -m train compact --weights FILE --images PHOTOGRAPHS"
    )


NOT_FITTED = NotFitted()
"""Compaction of weights that have no file of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compaction:
    """What belongs to a network's weights so that its descriptors can be made shorter.

    Attributes:
        mean: (D,) float32, of descriptors in photographs.
        components: (D, D) float32, orthonormal rows, the one of most variance first.
        planes: (B, D) float32, normals of the planes whose sides are the bits.
        offsets: (B,) float32: bit i of a descriptor x is ``planes[i] @ x > offsets[i]``. The first
            bits are the best of their number.
        digest: Digest of all this, hexadecimal.
    """

    mean: Floats
    components: Floats
    planes: Floats
    offsets: Floats
    digest: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """Rows of unit length -> rows in a format.

    Attributes:
        format: What they become.
        numbers: Numbers of a row; bits of a binary one.
        matrix: (numbers, D) that a row is multiplied with; None keeps all as it is.
        offsets: (numbers,) that is subtracted afterwards.
        compaction: Digest of the :class:`Compaction` that this is of; empty without one.
    """

    format: DescriptorFormat
    numbers: int
    matrix: Doubles | None = None
    offsets: Doubles | None = None
    compaction: str = ""

    @classmethod
    def of(cls, format: DescriptorFormat, full: int, compaction: Compaction | NotFitted) -> Encoder:
        """The encoder of a network's descriptors.

        Args:
            format: What they become.
            full: Length of the network's descriptors; 0 if it has none.
            compaction: Compaction of its weights.

        Raises:
            FeatureError: If the network or the compaction does not give as many numbers, or there
                is no compaction where one is needed.
        """
        if full == 0 and format != FLOATS:
            raise FeatureError(
                "these weights find keypoints only; leave descriptor_format and descriptor_dim out"
            )
        numbers = format.numbers(full)
        if not format.binary and numbers == full:
            return cls(format=format, numbers=numbers)
        if isinstance(compaction, NotFitted):
            what = "binary descriptors" if format.binary else f"descriptor_dim={numbers}"
            raise FeatureError(
                f"{what}: {compaction.why}. descriptor_format='uint8' with all numbers works always"
            )
        if not format.binary:
            matrix = compaction.components[:numbers].astype(np.float64)
            return cls(
                format=format,
                numbers=numbers,
                matrix=matrix,
                offsets=matrix @ compaction.mean,
                compaction=compaction.digest,
            )
        if numbers > len(compaction.planes):
            raise FeatureError(
                f"descriptor_dim of binary descriptors must be at most {len(compaction.planes)}, "
                f"for which these weights have planes, got {numbers}"
            )
        return cls(
            format=format,
            numbers=numbers,
            matrix=compaction.planes[:numbers].astype(np.float64),
            offsets=compaction.offsets[:numbers].astype(np.float64),
            compaction=compaction.digest,
        )

    @property
    def size(self) -> int:
        """Columns of a row: numbers, or bytes of a binary one."""
        return self.numbers // 8 if self.format.binary else self.numbers

    @property
    def plain(self) -> bool:
        """Whether rows stay as the network gives them."""
        return self.matrix is None and self.format.kind == "float32"

    def info(self) -> str:
        """What is special about it, for a line on a detector; nothing of floats in full length."""
        if self.numbers == 0:
            return ", keypoints only"
        if self.plain:
            return ""
        what = "bits" if self.format.binary else f"numbers as {self.format.kind}"
        return f", {self.numbers} {what}{self.compaction and f' ({self.compaction[:12]})'}"

    @property
    def dtype(self) -> type[np.generic]:
        """Type of the rows' elements."""
        return np.float32 if self.format.kind == "float32" else np.uint8

    def __call__(self, rows: NDArray[Any]) -> Floats | Bytes:
        """Rows (N, D) of unit length, float32 -> (N, ``size``), float32 or uint8."""
        if self.matrix is None:
            return to_bytes(rows) if self.format.kind == "uint8" else rows
        found = np.empty((len(rows), self.size), self.dtype)
        for at in range(0, len(rows), _ROWS):
            found[at : at + _ROWS] = self._encoded(rows[at : at + _ROWS])
        return found

    def _encoded(self, rows: NDArray[Any]) -> Floats | Bytes:
        assert self.matrix is not None
        assert self.offsets is not None
        # In float64: a product's last digits depend on the rows beside, and a bit is to depend on
        # its own row alone.
        products = _product(rows, self.matrix) - self.offsets
        if self.format.binary:
            return np.packbits(products > 0, axis=1)
        lengths = np.sqrt(np.einsum("nd,nd->n", products, products))
        unit = (products / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32)
        return to_bytes(unit) if self.format.kind == "uint8" else unit


def _product(rows: NDArray[Any], matrix: Doubles) -> Doubles:
    """``rows @ matrix.T`` in float64, in products that are too small for threads.

    The threads of a BLAS wait busily for some 20 ms after a larger product. That takes a core from
    the network's next call: on two cores a call with bits took a third longer.
    """
    count, length = rows.shape
    few = max(1, _SMALL // matrix.size)
    blocks = np.zeros((-(-count // few), few, length))
    blocks.reshape(-1, length)[:count] = rows
    found: Doubles = (blocks @ matrix.T).reshape(-1, len(matrix))[:count]
    return found


def steps(dim: int) -> float:
    """Steps of a byte that the number 1 is: five standard deviations of a row's numbers fit."""
    return 25 * math.sqrt(dim)


def to_bytes(rows: Floats) -> Bytes:
    """(N, D) rows of unit length -> bytes, ``round(25 sqrt(D) x) + 128``, clipped.

    Euclidean distances of bytes are those of the rows times ``25 sqrt(D)``, but for the rounding.
    """
    scaled = np.rint(rows * np.float32(steps(rows.shape[1]))) + np.float32(OFFSET)
    return cast(Bytes, np.clip(scaled, 0, 255).astype(np.uint8))


def from_bytes(rows: Bytes) -> Floats:
    """(N, D) rows of :func:`to_bytes` -> float32 rows, of unit length again."""
    floats = rows.astype(np.float32) - np.float32(OFFSET)
    lengths = np.sqrt(np.einsum("nd,nd->n", floats, floats))
    unit: Floats = floats / np.maximum(lengths, np.float32(1))[:, None]
    return unit


def as_format(kind: Any, dim: Any) -> DescriptorFormat:
    """A format from what a user gave; None takes floats, and all numbers.

    Raises:
        FeatureError: If there is no such format.
    """
    return DescriptorFormat(kind=FLOATS.kind if kind is None else kind, dim=dim)
