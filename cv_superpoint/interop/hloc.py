"""HDF5 files of features and matches in the layout of hloc (Hierarchical-Localization).

Convention:
    A group for each image, named by its path relative to the image folder: ``keypoints`` (N, 2)
    with (0, 0) the centre of the top-left pixel, ``descriptors`` (D, N), ``scores`` (N,),
    ``image_size`` (width, height). hloc adds the half pixel of COLMAP's origin itself. Keypoints
    stay float32, where hloc's own extraction writes float16: that loses the sub-pixel digits
    above 1024 pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cv_superpoint.decoding.descriptors import KINDS, Kind
from cv_superpoint.detector.features import CELL_DIAMETER, Features, float_rows
from cv_superpoint.errors import require
from cv_superpoint.files import WriteError, replacing
from cv_superpoint.files.sink import Sink
from cv_superpoint.interop.checks import (
    Matches,
    Pair,
    check_features,
    check_matches,
    check_name,
)
from cv_superpoint.interop.checks import StoreError as StoreError

_FEATURES = {"keypoints", "descriptors", "scores", "image_size"}
_KIND = "descriptor_kind"
"""Attribute of descriptors that are bytes: "uint8" or "binary"; hloc passes over it."""
_MATCHES = {"matches0", "matching_scores0"}


def write_features(
    path: str | os.PathLike[str],
    features: Mapping[str, Features] | Iterable[tuple[str, Features]],
    *,
    descriptor_dtype: DTypeLike = np.float32,
) -> None:
    """Write a feature file; an older one is replaced in one step.

    Args:
        path: File to write, such as ``features.h5``.
        features: Features by image name, or pairs of name and features, for more than fit into
            memory.
        descriptor_dtype: Type of the descriptors. float16 halves the file; hloc reads both. uint8
            keeps bytes and bits as they are, which :func:`read_features` reads and hloc does not.

    Raises:
        FeatureError: If descriptors are bits and are not to be kept as they are.
        StoreError: If the file cannot be written, a name is given twice or collides with
            another, or features are not finite.
    """
    items = features.items() if isinstance(features, Mapping) else features
    with _replacing(path) as file:
        for name, each in items:
            put_features(file, name, each, descriptor_dtype)


def put_features(
    file: Any, name: str, features: Features, descriptor_dtype: DTypeLike = np.float32
) -> None:
    """Add the group of one image to an open ``h5py.File``.

    Raises:
        StoreError: If :func:`write_features` would raise it.
    """
    check_features(name, features)
    group = _new_group(file, name, _FEATURES, f"image {name!r}")
    height, width = features.image_size
    group.create_dataset("keypoints", data=features.keypoints.astype(np.float32, copy=False))
    descriptors = _rows_as(name, features, np.dtype(descriptor_dtype))
    stored = group.create_dataset("descriptors", data=np.ascontiguousarray(descriptors.T))
    if descriptors.dtype == np.uint8:
        stored.attrs[_KIND] = np.bytes_(features.descriptor_kind)
    group.create_dataset("scores", data=features.scores.astype(np.float32, copy=False))
    group.create_dataset("image_size", data=np.array((width, height), np.int64))


def _rows_as(name: str, features: Features, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Descriptors as they are written: bytes as they are, or as floats."""
    if dtype != np.uint8:
        return float_rows(features, "hloc").astype(dtype, copy=False)
    if features.descriptor_kind == "float32":
        raise StoreError(
            f"{name!r}: descriptors are float32; write them as float16 or float32, or make bytes "
            "of them with descriptorFormat='uint8'"
        )
    return features.descriptors


def read_features(path: str | os.PathLike[str], name: str) -> Features:
    """The features of one image; sizes and octaves, which the layout has no place for, are 8 and 0.

    Raises:
        StoreError: If the file cannot be read or has no such image.
    """
    with reading(path) as file:
        if name not in file:
            raise StoreError(f"{path} has no image {name!r}; it has {_some(image_names(path))}")
        group = file[name]
        missing = _FEATURES - set(group)
        if missing:
            raise StoreError(f"{path}: {name!r} lacks {', '.join(sorted(missing))}")
        keypoints = group["keypoints"][()].astype(np.float32)
        width, height = group["image_size"][()].tolist()
        stored = group["descriptors"]
        # Bytes without a kind are those of another program, and numbers.
        kind = _kind_of(stored, f"{path}: {name!r}")
        dtype = np.float32 if kind == "float32" else np.uint8
        rows = np.ascontiguousarray(stored[()].T.astype(dtype))
        return Features(
            keypoints=keypoints,
            scores=group["scores"][()].astype(np.float32),
            descriptors=rows,
            sizes=np.full(len(keypoints), CELL_DIAMETER, np.float32),
            octaves=np.zeros(len(keypoints), np.int32),
            image_size=(int(height), int(width)),
            descriptor_kind=kind,
        )


def _kind_of(stored: Any, where: str) -> Kind:
    kind = stored.attrs.get(_KIND, b"float32").decode()
    if kind not in KINDS:
        raise StoreError(f"{where} has descriptors of an unknown kind, {kind!r}; make it again")
    found: Kind = kind
    return found


def image_names(path: str | os.PathLike[str]) -> list[str]:
    """The images in a feature file, sorted."""
    names = []
    with reading(path) as file:

        def visit(name: str, item: Any) -> None:
            if name.endswith("/keypoints"):
                names.append(name.removesuffix("/keypoints"))

        file.visititems(visit)
    return sorted(names)


def write_matches(
    path: str | os.PathLike[str],
    matches: Mapping[Pair, tuple[Matches, NDArray[np.floating[Any]], int]],
) -> None:
    """Write a match file; an older one is replaced in one step.

    Args:
        path: File to write, such as ``matches.h5``.
        matches: (M, 2) row numbers, (M,) scores and the number of keypoints of the first image, by
            pair of image names.

    Raises:
        StoreError: If the file cannot be written, two pairs have one name in hloc's layout, or
            the rows are none of a keypoint's one match.
    """
    with _replacing(path) as file:
        written: dict[str, Pair] = {}
        for pair, (given, given_scores, count) in matches.items():
            name = pair_name(*pair)
            if name in written:
                raise StoreError(
                    f"the pairs {written[name]} and {pair} are both {name!r} in hloc's layout, "
                    "which writes '-' for '/'; rename a folder or an image"
                )
            written[name] = pair
            put_matches(file, pair, given, given_scores, count)


def put_matches(
    file: Any, pair: Pair, matches: Matches, scores: NDArray[np.floating[Any]], count: int
) -> Any:
    """Add the group of one pair to an open ``h5py.File``; returns it.

    Args:
        file: Open for writing.
        pair: Names of both images.
        matches: (M, 2) row numbers.
        scores: (M,).
        count: Number of keypoints of the first image.

    Raises:
        StoreError: If :func:`write_matches` would raise it.
    """
    rows, values = _one_to_one(pair, matches, scores, count)
    # hloc keeps int16; where that is too small a wider type reads the same.
    kind = np.int16 if len(rows) == 0 or rows.max() < 2**15 else np.int32
    matches0 = np.full(count, -1, kind)
    matches0[rows[:, 0]] = rows[:, 1]
    scores0 = np.zeros(count, np.float32)
    scores0[rows[:, 0]] = values
    group = _new_group(file, pair_name(*pair), _MATCHES, f"pair {pair}")
    group.create_dataset("matches0", data=matches0)
    group.create_dataset("matching_scores0", data=scores0)
    return group


def read_matches(
    path: str | os.PathLike[str], name0: str, name1: str
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(M, 2) row numbers and (M,) scores of a pair, in whichever order it was written.

    Raises:
        StoreError: If the file cannot be read or has no such pair.
    """
    with reading(path) as file:
        for name, step in ((pair_name(name0, name1), 1), (pair_name(name1, name0), -1)):
            if name in file:
                matches0 = file[name]["matches0"][()].astype(np.intp)
                scores = file[name]["matching_scores0"][()].astype(np.float32)
                rows = np.flatnonzero(matches0 >= 0)
                return np.stack([rows, matches0[rows]], axis=1)[:, ::step], scores[rows]
    raise StoreError(f"{path} has no matches of {name0!r} and {name1!r}")


def pair_name(name0: str, name1: str) -> str:
    """The group of a pair: hloc writes "-" for the "/" of folders."""
    for name in (name0, name1):
        check_name(name)
    return f"{name0.replace('/', '-')}/{name1.replace('/', '-')}"


def _one_to_one(
    pair: Pair, given: Any, given_scores: Any, count: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Checked rows and scores; the layout has room for one match of each first keypoint."""
    rows = check_matches(pair, given, (count, np.iinfo(np.int32).max))
    scores = np.asarray(given_scores, np.float32)
    if scores.shape != (len(rows),) or not np.isfinite(scores).all():
        raise StoreError(
            f"matches of {pair[0]!r} and {pair[1]!r} need a finite score each: {len(rows)} rows, "
            f"scores {scores.shape}"
        )
    numbers, counts = np.unique(rows[:, 0], return_counts=True)
    if (counts > 1).any():
        raise StoreError(
            f"matches of {pair[0]!r} and {pair[1]!r} name keypoint {numbers[counts > 1][0]} of the "
            "first more than once, and hloc's layout keeps one; keep the best of them"
        )
    return rows, scores


def _new_group(file: Any, name: str, datasets: set[str], what: str) -> Any:
    """The group of a name; it may be there as the folder of another."""
    if not name.strip("/."):
        raise StoreError(f"{what} cannot be stored: in HDF5 it is the file itself; rename it")
    try:
        group = file.require_group(name)
    except (TypeError, ValueError) as error:
        taken = name.rpartition("/")[2] in datasets
        why = f"{name.rpartition('/')[0]!r} has data of this name" if taken else str(error)
        raise StoreError(f"{what} cannot be stored: {why}; rename it") from error
    there = sorted(datasets & set(group))
    if there and all(hasattr(group[each], "dtype") for each in there):
        raise StoreError(f"{what} is in the file already; give it once, or write to another file")
    if there:
        inner = f"{name}/{there[0]}"
        raise StoreError(f"{what} and {inner!r} cannot be in one file; rename one of them")
    return group


@contextmanager
def opened(path: str | os.PathLike[str], mode: str = "r") -> Iterator[Any]:
    """An ``h5py.File``; a file that cannot be opened is an error of one line.

    Raises:
        StoreError: If there is no such file, or it is cut short, locked or no HDF5.
    """
    h5py = require("h5py", "sfm")
    try:
        sink = Sink(path) if mode == "w" else None
        file = h5py.File(os.fspath(path) if sink is None else sink, mode)
    except OSError as error:
        raise StoreError(_why(path, error)) from error
    try:
        yield file
    finally:
        if sink is not None:
            sink.keeps_errors = True
        with suppress(OSError, RuntimeError):
            file.close()
        if sink is not None:
            sink.close()


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open ``h5py.File`` to read from; damage that shows only then is an error of one line, too.

    Raises:
        StoreError: If :func:`opened` raises it, or what is read in the block is damaged.
    """
    with opened(path) as file:
        try:
            yield file
        except StoreError:
            raise
        except Exception as error:  # of h5py and numpy, for bytes that are anything
            raise StoreError(
                f"{os.fspath(path)} is damaged ({' '.join(str(error).split())}); make it again"
            ) from error


def _why(path: str | os.PathLike[str], error: OSError) -> str:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        folder = Path(path).parent
        if not folder.is_dir():
            return f"there is no folder {folder}; make it first"
        return f"there is no file {os.fspath(path)}"
    if "truncated" in text:
        return f"{os.fspath(path)} is cut short: a copy or a program was stopped; make it again"
    if "unable to lock" in text:
        return f"{os.fspath(path)} is locked: another program writes it; wait until it ends"
    if "signature" in text:
        return f"{os.fspath(path)} is no HDF5 file"
    return f"cannot open {os.fspath(path)}: {text}"


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A new file that takes the place of ``path`` when all is written."""
    try:
        with replacing(path, large=True) as part, opened(part, "w") as file:
            yield file
    except WriteError as error:
        raise StoreError(str(error)) from error
    except OSError as error:  # of the HDF5 library
        raise StoreError(
            f"cannot write {os.fspath(path)}: {error}; is there room on the disk?"
        ) from error


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(map(repr, names[:3])) or "none") + more
