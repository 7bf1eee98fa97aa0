"""COLMAP databases through pycolmap (extra ``[sfm]``).

Convention:
    COLMAP puts (0.5, 0.5) at the centre of the top-left pixel: keypoints are written plus one half.
    Descriptors go in as the bytes of float32 rows, of the type UNDEFINED.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import require
from cv_superpoint.files import WriteError, replacing
from cv_superpoint.interop.checks import (
    Matches,
    Pair,
    StoreError,
    check_features,
    merge_directions,
)

ORIGIN = np.float32(0.5)
"""COLMAP's coordinates of the centre of the top-left pixel."""
FOCAL_LENGTH = 1.2
"""Guess for unknown cameras, in units of the longer side: COLMAP's own default."""
_IN_A_LIST = re.compile(r"(?!#)\S+").fullmatch
"""Names that COLMAP's lists of pairs, two names with a space between, can hold."""


def write_database(
    path: str | os.PathLike[str],
    features: Mapping[str, Features],
    matches: Mapping[Pair, Matches],
    *,
    cameras: Mapping[str, Any] | None = None,
) -> None:
    """Write features and matches into a database, a new one or one that COLMAP made.

    Images whose names the database has get the features; others are added, each with a camera of
    its own unless ``cameras`` names one. All is written or nothing.

    Args:
        path: Database, such as ``database.db``.
        features: Features by image name, which is the path relative to the image folder.
        matches: (M, 2) row numbers by pair of image names. COLMAP keeps a pair once: what is
            given as (a, b) and as (b, a) is put together, equal matches once.
        cameras: ``pycolmap.Camera`` by image name, in COLMAP's coordinates, for images that the
            database does not have; without one a SIMPLE_RADIAL camera is guessed, as COLMAP does.

    Raises:
        StoreError: If features are not finite, matches name keypoints that are not there, or a
            camera is of another size than the features' image; if the database is of a newer
            COLMAP, locked, no database, or has keypoints of one of the images.
        ImportError: If pycolmap is not installed.
    """
    pycolmap = require("pycolmap", "sfm")
    for name, each in features.items():
        check_features(name, each)
    merged = merge_directions(matches, features)
    with _explained(path), _replacing(Path(path)) as part, _opened(part) as database:
        ids = {
            name: _write_image(pycolmap, database, name, each, (cameras or {}).get(name))
            for name, each in features.items()
        }
        for (name0, name1), rows in merged.items():
            if database.exists_matches(ids[name0], ids[name1]):
                raise StoreError(
                    f"the database already has matches of {name0!r} and {name1!r}; write to "
                    "another file, or remove them with pycolmap's Database.delete_matches"
                )
            database.write_matches(ids[name0], ids[name1], rows.astype(np.uint32))


def verify_database(path: str | os.PathLike[str], pairs: Iterable[Pair]) -> None:
    """Run COLMAP's geometric verification on pairs whose matches were written.

    The same matches give the same geometry.

    Args:
        path: Path of the database.
        pairs: Pairs of image names, or a mapping by such pairs.

    Raises:
        StoreError: If there is no such database, image or pair of matches.
        ImportError: If pycolmap is not installed.
    """
    require("pycolmap", "sfm")
    path, pairs = Path(path), list(pairs)
    with _explained(path):
        _check_pairs(path, pairs)
        if all(_IN_A_LIST(name) for pair in pairs for name in pair):
            _verify(path, pairs)
            return
    with _explained(path), _replacing(path) as part:
        aliases = _rename_images(part)
        _verify(part, [(aliases[one], aliases[other]) for one, other in pairs])
        _rename_images(part, {alias: name for name, alias in aliases.items()})


def holds(
    path: str | os.PathLike[str],
    features: Mapping[str, Features],
    matches: Mapping[Pair, Matches],
) -> bool:
    """Whether a database has these keypoints and matches already, all of them.

    Returns:
        False also where there is no database, or none of these keypoints are in it.

    Raises:
        StoreError: If it has some of them, or others for these images.
        ImportError: If pycolmap is not installed.
    """
    require("pycolmap", "sfm")
    path = Path(path)
    if not path.exists():
        return False
    _check(path)
    with _explained(path), _opened(path) as database:
        images = {name: database.read_image_with_name(name) for name in features}
        found = {
            name: image.image_id
            for name, image in images.items()
            if image is not None and database.exists_keypoints(image.image_id)
        }
        if not found:
            return False
        same = (
            len(found) == len(images)
            and all(
                np.array_equal(database.read_keypoints(found[name])[:, :2], each.keypoints + ORIGIN)
                for name, each in features.items()
            )
            and all(
                _has_matches(database, found[one], found[other], rows)
                for (one, other), rows in matches.items()
            )
        )
    if not same:
        raise StoreError(
            f"{path} has other images, keypoints or matches than these; delete it and run the same "
            "command again, or name another file"
        )
    return True


def _has_matches(database: Any, one: int, other: int, rows: Matches) -> bool:
    if not database.exists_matches(one, other):
        return False
    stored = database.read_matches(one, other)
    # Verification empties pairs of which too few matches agree.
    emptied = len(stored) == 0 and database.exists_two_view_geometry(one, other)
    return emptied or np.array_equal(stored, rows)


def unverified(path: str | os.PathLike[str], pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs that :func:`verify_database` has still to see.

    Raises:
        StoreError: If there is no such database or image.
        ImportError: If pycolmap is not installed.
    """
    path = Path(path)
    _check(path)
    with _explained(path), _opened(path) as database:
        return [
            (one, other)
            for one, other in pairs
            if not database.exists_two_view_geometry(
                *(_image(database, path, name).image_id for name in (one, other))
            )
        ]


def read_keypoints(path: str | os.PathLike[str], name: str) -> NDArray[np.float32]:
    """(N, 2) keypoints of an image; (0, 0) is the centre of the first pixel.

    Raises:
        StoreError: If there is no such database or image, or it has no keypoints.
        ImportError: If pycolmap is not installed.
    """
    _check(Path(path))
    with _explained(path), _opened(Path(path)) as database:
        image = _image(database, path, name)
        if not database.exists_keypoints(image.image_id):
            raise StoreError(f"{path} has no keypoints of {name!r}")
        points: NDArray[np.float32] = database.read_keypoints(image.image_id)[:, :2] - ORIGIN
        return points


def _image(database: Any, path: str | os.PathLike[str], name: str) -> Any:
    image = database.read_image_with_name(name)
    if image is None:
        raise StoreError(f"{path} has no image {name!r}")
    return image


def _check_pairs(path: Path, pairs: list[Pair]) -> None:
    """COLMAP passes over what it does not find."""
    _check(path)
    with _opened(path) as database:
        for one, other in pairs:
            ids = [_image(database, path, name).image_id for name in (one, other)]
            if ids[0] == ids[1] or not database.exists_matches(*ids):
                raise StoreError(f"{path} has no matches of {one!r} and {other!r}")


def _verify(path: Path, pairs: list[Pair]) -> None:
    pycolmap = require("pycolmap", "sfm")
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pairs.txt"
        listed.write_text("".join(f"{one} {other}\n" for one, other in pairs), encoding="utf-8")
        options = pycolmap.TwoViewGeometryOptions()
        options.ransac.random_seed = 0  # COLMAP's own default is another one in every call
        pycolmap.verify_matches(path, listed, options)


def _rename_images(path: Path, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the images other names, numbers without any; returns the new names by the old ones."""
    with closing(sqlite3.connect(path)) as database, database:
        known = database.execute("SELECT image_id, name FROM images").fetchall()
        renamed = {name: str(number) if names is None else names[name] for number, name in known}
        # Through names that no image has: they are unique at any moment.
        database.execute("UPDATE images SET name = 'renamed/' || image_id")
        for number, name in known:
            values = renamed[name], number
            database.execute("UPDATE images SET name = ? WHERE image_id = ?", values)
    return renamed


def _write_image(pycolmap: Any, database: Any, name: str, features: Features, camera: Any) -> int:
    known = database.read_image_with_name(name)
    if known is not None:
        camera = database.read_camera(known.camera_id)
    if camera is not None:
        _check_camera(name, camera, features.image_size)
    if known is None:
        number = _add_image(pycolmap, database, name, features, camera)
    else:
        number = int(known.image_id)
    for kind in ("keypoints", "descriptors"):
        if getattr(database, f"exists_{kind}")(number):
            raise StoreError(
                f"the database already has {kind} of {name!r}; write to another file, or remove "
                f"them with pycolmap's Database.clear_{kind}"
            )
    database.write_keypoints(number, features.keypoints + ORIGIN)
    # Their kind is unknown to COLMAP, so it takes them as bytes, whatever they are.
    rows = np.ascontiguousarray(features.descriptors).view(np.uint8)
    undefined = pycolmap.FeatureExtractorType.UNDEFINED
    database.write_descriptors(number, pycolmap.FeatureDescriptors(undefined, rows))
    return number


def _check_camera(name: str, camera: Any, image_size: tuple[int, int]) -> None:
    height, width = image_size
    size = int(camera.width), int(camera.height)
    if size == (width, height):
        return
    remedy = "extract from the picture at the camera's size"
    if size == (height, width):
        remedy = "COLMAP does not turn pictures by their EXIF: extract without turning them"
    raise StoreError(
        f"the camera of {name!r} is {size[0]} x {size[1]} (width x height), its features are of a "
        f"picture of {width} x {height}; {remedy}, or give a camera of the features' size"
    )


def _add_image(pycolmap: Any, database: Any, name: str, features: Features, camera: Any) -> int:
    """A camera, a rig of this camera alone, the image, and a frame of this image alone."""
    height, width = features.image_size
    if camera is None:
        focal = FOCAL_LENGTH * max(width, height)
        create = pycolmap.Camera.create_from_model_name
        camera = create(0, "SIMPLE_RADIAL", focal, width, height)
    camera_id = database.write_camera(camera)
    sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(sensor)
    frame = pycolmap.Frame()
    frame.rig_id = database.write_rig(rig)
    number = database.write_image(pycolmap.Image(name=name, camera_id=camera_id))
    frame.add_data_id(pycolmap.data_t(sensor, number))
    database.write_frame(frame)
    return int(number)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pycolmap = require("pycolmap", "sfm")
    with pycolmap.Database.open(path) as database:
        yield database


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """What pycolmap and SQLite say of damaged databases, in one line that names the file."""
    try:
        yield
    except StoreError:
        raise
    except (RuntimeError, IndexError, ValueError, MemoryError, sqlite3.Error) as error:
        raise StoreError(
            f"{os.fspath(path)} is no database of COLMAP, or a damaged one "
            f"({' '.join(str(error).split())}); name another file"
        ) from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A copy of the database, or a new one, that takes its place when all is written."""
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "is to be in a folder that is not there"
        raise StoreError(f"{path} {what}; name a file in a folder that is")
    try:
        with replacing(path, large=True) as part:
            if path.exists():
                _copy(path, part)
            yield part
    except WriteError as error:
        raise StoreError(str(error)) from error


def _check(path: Path) -> None:
    """Check that a database can be read; pycolmap makes missing ones and waits for locked ones."""
    if not path.is_file():
        raise StoreError(f"there is no database {path}")
    with _readable(path):
        pass


def _copy(path: Path, part: Path) -> None:
    """A copy by SQLite, with what is still in its write-ahead log."""
    with _readable(path) as source:
        source.execute("BEGIN IMMEDIATE")
        source.rollback()
        with closing(sqlite3.connect(part)) as target:
            source.backup(target)


@contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    newest = _version_of_a_new_database()
    try:
        with closing(sqlite3.connect(path, timeout=1)) as source:
            version = source.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise StoreError(
                    f"{path} was made by a newer COLMAP (version {version}, this pycolmap writes "
                    f"{newest}); upgrade with: pip install --upgrade pycolmap"
                )
            # pycolmap ends the process over some damage.
            source.text_factory = lambda data: data.decode(errors="replace")
            found = source.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StoreError(f"the database {path} is damaged ({' '.join(found.split())})")
            yield source
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the second, of the first's message
        remedy = "close the program that uses it" if "locked" in str(error) else "name another file"
        raise StoreError(f"cannot open the database {path}: {error}; {remedy}") from error


def _version_of_a_new_database() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        with _opened(path):
            pass
        with closing(sqlite3.connect(path)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
