"""COLMAP databases through pycolmap (extra ``[sfm]``).

Convention:
    COLMAP puts (0.5, 0.5) at the centre of the top-left pixel: keypoints are written plus one half.
    Descriptors go in as the bytes of float32 rows, of the type UNDEFINED.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import require
from cv_superpoint.features import Features
from cv_superpoint.interop.hloc import Matches, StoreError

ORIGIN = np.float32(0.5)
"""COLMAP's coordinates of the centre of the top-left pixel."""
FOCAL_LENGTH = 1.2
"""Guess for unknown cameras, in units of the longer side: COLMAP's own default."""


def write_database(
    path: str | os.PathLike[str],
    features: Mapping[str, Features],
    matches: Mapping[tuple[str, str], Matches],
    *,
    cameras: Mapping[str, Any] | None = None,
) -> None:
    """Write features and matches into a database, a new one or one that COLMAP made.

    Images that the database knows by their names get the features; others are added, each with a
    camera of its own unless ``cameras`` names one. All is written or nothing.

    Args:
        path: Such as ``database.db``.
        features: By image name, the path relative to the image folder.
        matches: By pair of image names: (M, 2) row numbers.
        cameras: ``pycolmap.Camera`` by image name, in COLMAP's coordinates; for others a
            SIMPLE_RADIAL camera is guessed, as COLMAP does.

    Raises:
        StoreError: If the database is of a newer COLMAP, locked, no database, or has keypoints
            of one of the images.
        ImportError: If pycolmap is not installed.
    """
    pycolmap = require("pycolmap", "sfm")
    unknown = {name for pair in matches for name in pair} - set(features)
    if unknown:
        raise StoreError(f"there are matches, but no features, of {', '.join(sorted(unknown))}")
    with _replacing(Path(path)) as part, _opened(part) as database:
        ids = {
            name: _write_image(pycolmap, database, name, each, (cameras or {}).get(name))
            for name, each in features.items()
        }
        for (name0, name1), rows in matches.items():
            database.write_matches(ids[name0], ids[name1], np.asarray(rows, np.uint32))


def verify_database(
    path: str | os.PathLike[str], pairs: Mapping[tuple[str, str], Any] | list[tuple[str, str]]
) -> None:
    """COLMAP's geometric verification of pairs whose matches were written; names without spaces.

    Raises:
        StoreError: If the database is not there.
    """
    pycolmap = require("pycolmap", "sfm")
    if not Path(path).exists():
        raise StoreError(f"there is no database {path}")
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pairs.txt"
        listed.write_text("".join(f"{one} {other}\n" for one, other in pairs), encoding="utf-8")
        pycolmap.verify_matches(path, listed)


def read_keypoints(path: str | os.PathLike[str], name: str) -> NDArray[np.float32]:
    """(N, 2) keypoints of an image in our coordinates: (0, 0) the centre of the first pixel."""
    with _opened(Path(path)) as database:
        image = database.read_image_with_name(name)
        if image is None:
            raise StoreError(f"{path} has no image {name!r}")
        points: NDArray[np.float32] = database.read_keypoints(image.image_id)[:, :2] - ORIGIN
        return points


def _write_image(pycolmap: Any, database: Any, name: str, features: Features, camera: Any) -> int:
    known = database.read_image_with_name(name)
    if known is None:
        number = _add_image(pycolmap, database, name, features, camera)
    else:
        number = int(known.image_id)
    if database.exists_keypoints(number):
        raise StoreError(
            f"the database already has keypoints of {name!r}; write to another file, or remove "
            "them with pycolmap's Database.clear_keypoints"
        )
    database.write_keypoints(number, features.keypoints + ORIGIN)
    rows = np.ascontiguousarray(features.descriptors, np.float32).view(np.uint8)
    kind = pycolmap.FeatureExtractorType.UNDEFINED
    database.write_descriptors(number, pycolmap.FeatureDescriptors(kind, rows))
    return number


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
def _replacing(path: Path) -> Iterator[Path]:
    """A copy of the database, or a new one, that takes its place when all is written."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        if path.exists():
            _copy(path, part)
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _copy(path: Path, part: Path) -> None:
    """As SQLite copies, with what is still in its write-ahead log."""
    newest = _version_of_a_new_database()
    try:
        with closing(sqlite3.connect(path, timeout=1)) as source:
            source.execute("BEGIN IMMEDIATE")
            source.rollback()
            version = source.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise StoreError(
                    f"{path} was made by a newer COLMAP (version {version}, this pycolmap writes "
                    f"{newest}); upgrade with: pip install --upgrade pycolmap"
                )
            with closing(sqlite3.connect(part)) as target:
                source.backup(target)
    except sqlite3.DatabaseError as error:
        remedy = "close the program that uses it" if "locked" in str(error) else "name another file"
        raise StoreError(f"cannot open the database {path}: {error}; {remedy}") from error


def _version_of_a_new_database() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        with _opened(path):
            pass
        with closing(sqlite3.connect(path)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
