"""Image pairs with a known homography: readers of HPatches-layout folders and of photographs.

An HPatches-layout folder has one folder per sequence, named ``i_*`` (illumination) or ``v_*``
(viewpoint), with images ``1.ppm`` ... ``6.ppm`` (or .png) and text files ``H_1_2`` ... ``H_1_6``
that map image 1 to image k (Balntas et al., "HPatches", CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.metrics import Array
from cv_superpoint.pictures.reading import read_picture

Kind = Literal["illumination", "viewpoint", "warp", "other"]

_KIND: dict[str, Kind] = {"i_": "illumination", "v_": "viewpoint"}
_IMAGE_SUFFIXES = (".ppm", ".png")
_FULL_SEQUENCE = range(1, 7)


class Skipped(NamedTuple):
    """Something that a reader found and left out."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """Two grey images of one plane (or of one camera centre).

    Attributes:
        name: Unique, for example "v_boat 1-3".
        sequence: Pairs of one sequence share images; intervals resample whole sequences.
        kind: Which subset the pair belongs to.
        images: Two (H, W) uint8 images; the sizes may differ.
        h_0to1: (3, 3) float64.
        keys: Unique names of the two images, so that detections can be reused.
    """

    name: str
    sequence: str
    kind: Kind
    images: tuple[Array, Array]
    h_0to1: Array
    keys: tuple[str, str]


class PairSource(Protocol):
    """Where pairs come from: a folder read lazily, in a fixed order, sequence by sequence."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What was found and left out, by name."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ImagePair]: ...


@dataclass(frozen=True)
class _Sequence:
    name: str
    reference: Path
    others: tuple[tuple[int, Path, Array], ...]


@dataclass(frozen=True, kw_only=True)
class HPatches:
    """The pairs 1 -> k of a folder in HPatches layout.

    Attributes:
        root: The folder that holds the sequences.
        only: Glob patterns; sequences that match none are passed over (all by default).
        excluded: Sequences that the protocol leaves out; listed as skipped.

    Raises:
        ValueError: If the folder is missing or holds no usable pair.
    """

    root: Path
    only: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    sequences: list[_Sequence] = field(default_factory=list, init=False, repr=False)
    skipped: list[Skipped] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise SuperPointError(
                f"{self.root} is not a folder; give the one with v_* and i_* folders"
            )
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            if self.only and not any(fnmatch(folder.name, pattern) for pattern in self.only):
                continue
            if folder.name in self.excluded:
                self.skipped.append(Skipped(folder.name, "left out by the protocol"))
                continue
            self._scan(folder)
        if not self.sequences:
            found = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
            raise SuperPointError(
                f"no HPatches sequence in {self.root}: expected folders that hold 1.ppm (or .png), "
                f"2.ppm, ... and H_1_2, ..." + (f" ({found})" if found else "")
            )

    def _scan(self, folder: Path) -> None:
        reference = _find_image(folder, 1)
        if reference is None:
            self.skipped.append(Skipped(folder.name, "no image 1"))
            return
        others, missing = [], []
        for number in _FULL_SEQUENCE[1:]:
            image = _find_image(folder, number)
            if image is None:
                missing.append(str(number))
                continue
            homography = _read_homography(folder / f"H_1_{number}")
            if isinstance(homography, str):
                self.skipped.append(Skipped(f"{folder.name} 1-{number}", homography))
            else:
                others.append((number, image, homography))
        if missing:
            self.skipped.append(Skipped(folder.name, f"no image {', '.join(missing)}"))
        if others:
            self.sequences.append(_Sequence(folder.name, reference, tuple(others)))

    def __len__(self) -> int:
        return sum(len(sequence.others) for sequence in self.sequences)

    def __iter__(self) -> Iterator[ImagePair]:
        for sequence in self.sequences:
            reference = read_grey(sequence.reference)
            for number, path, homography in sequence.others:
                yield ImagePair(
                    name=f"{sequence.name} 1-{number}",
                    sequence=sequence.name,
                    kind=_KIND.get(sequence.name[:2], "other"),
                    images=(reference, read_grey(path)),
                    h_0to1=homography,
                    keys=(f"{sequence.name} 1", f"{sequence.name} {number}"),
                )


def read_grey(path: Path) -> Array:
    """Read an image as (H, W) uint8, upright.

    Raises:
        PictureError: If it cannot be read, or only in part.
    """
    return read_picture(path, grey=True)


def _find_image(folder: Path, number: int) -> Path | None:
    candidates = (folder / f"{number}{suffix}" for suffix in _IMAGE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _read_homography(path: Path) -> Array | str:
    """A (3, 3) float64 homography, or what is wrong with the file."""
    if not path.is_file():
        return f"no {path.name}"
    try:
        homography = np.array(
            [float(word) for word in path.read_text(encoding="utf-8").split()]
        ).reshape(3, 3)
    except ValueError:
        return f"{path.name} is not nine numbers"
    if not np.isfinite(homography).all() or abs(np.linalg.det(homography)) < 1e-12:
        return f"{path.name} cannot be inverted"
    return homography
