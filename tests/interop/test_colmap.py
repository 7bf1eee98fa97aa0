"""COLMAP's own library writes, verifies and reads back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from made import made_features

from cv_superpoint import Features, MatchResult
from cv_superpoint.interop import colmap
from cv_superpoint.interop.hloc import StoreError

FOCAL, CENTRE_X, CENTRE_Y, SHIFT = 994.978, 311.193, 254.877, 31.086
"""The pair's calibration, in pixels; the second camera's centre lies SHIFT further right."""


def camera(centre_x: float) -> Any:
    made = pycolmap.Camera(
        model="SIMPLE_PINHOLE",
        width=741,
        height=500,
        params=[FOCAL, centre_x + 0.5, CENTRE_Y + 0.5],
    )
    made.has_prior_focal_length = True
    return made


def test_a_real_pair_is_verified(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    names = ("left.png", "right.png")
    colmap.write_database(
        path,
        {"left.png": pair.features0, "right.png": pair.features1},
        {names: pair.matches},
        cameras={"left.png": camera(CENTRE_X), "right.png": camera(CENTRE_X + SHIFT)},
    )
    colmap.verify_database(path, [names])
    with pycolmap.Database.open(path) as database:
        one, other = (database.read_image_with_name(name).image_id for name in names)
        assert database.num_frames() == database.num_rigs() == 2
        geometry = database.read_two_view_geometry(one, other)
        np.testing.assert_array_equal(database.read_matches(one, other), pair.matches)
    assert len(geometry.inlier_matches) > 0.8 * pair.inliers.sum()
    points0 = pair.features0.keypoints[geometry.inlier_matches[:, 0]]
    points1 = pair.features1.keypoints[geometry.inlier_matches[:, 1]]
    assert np.median(np.abs(points0[:, 1] - points1[:, 1])) < 0.5  # the pair is rectified
    assert geometry.config == int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
    # COLMAP's own choice of the direction's sign is drawn at random, and wrong one time in four.
    places0 = (points0.astype(np.float64) - (CENTRE_X, CENTRE_Y)) / FOCAL
    places1 = (points1.astype(np.float64) - (CENTRE_X + SHIFT, CENTRE_Y)) / FOCAL
    _, rotation, direction, _ = cv2.recoverPose(geometry.E, places0, places1, np.eye(3))
    assert np.linalg.norm(cv2.Rodrigues(rotation)[0]) < np.deg2rad(1.5)
    assert direction[0] < -0.95  # the second camera stands to the right


def test_keypoints_come_back(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    colmap.write_database(path, {"a.png": pair.features0}, {})
    with pycolmap.Database.open(path) as database:
        stored = database.read_keypoints(1)
        described = database.read_descriptors(1)
    np.testing.assert_allclose(stored, pair.features0.keypoints + 0.5, atol=1e-4)
    np.testing.assert_array_equal(described.data.view(np.float32), pair.features0.descriptors)
    np.testing.assert_allclose(
        colmap.read_keypoints(path, "a.png"), pair.features0.keypoints, atol=1e-4
    )


def test_the_middle_of_the_image_is_the_middle_of_the_camera(tmp_path: Path) -> None:
    size = (480, 640)
    middle = made_features([[(640 - 1) / 2, (480 - 1) / 2]], size)
    path = tmp_path / "database.db"
    colmap.write_database(path, {"a.png": middle}, {})
    with pycolmap.Database.open(path) as database:
        guessed = database.read_camera(1)
        ray = guessed.cam_from_img(database.read_keypoints(1)[:, :2].astype(np.float64))
    assert guessed.focal_length == pytest.approx(1.2 * 640)
    np.testing.assert_allclose(ray * guessed.focal_length, 0, atol=0.01)


def test_a_doubled_image_has_no_offset_in_colmap(tmp_path: Path) -> None:
    # Doubling an image moves pixel centres by half a pixel in OpenCV's coordinates, and by
    # nothing in COLMAP's. A wrong origin would show as 0.5 px in the homography's translation.
    points = np.random.default_rng(0).uniform(5, 230, (200, 2))
    features = {
        "small.png": made_features(points, (240, 240)),
        "large.png": made_features((points + 0.5) * 2 - 0.5, (480, 480)),
    }
    rows = np.stack([np.arange(200)] * 2, axis=1)
    path, names = tmp_path / "database.db", ("small.png", "large.png")
    colmap.write_database(path, features, {names: rows})
    pycolmap.set_random_seed(0)
    colmap.verify_database(path, [names])
    with pycolmap.Database.open(path) as database:
        ids = [database.read_image_with_name(name).image_id for name in names]
        geometry = database.read_two_view_geometry(*ids)
    assert len(geometry.inlier_matches) == 200
    homography = geometry.H / geometry.H[2, 2]
    np.testing.assert_allclose(homography @ [0, 0, 1], [0, 0, 1], atol=0.01)
    np.testing.assert_allclose(homography @ [240, 240, 1], [480, 480, 1], atol=0.02)


def test_images_that_colmap_knows_get_the_features(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with pycolmap.Database.open(path) as database:
        number = database.write_camera(camera(CENTRE_X))
        database.write_image(pycolmap.Image(name="left.png", camera_id=number))
    colmap.write_database(path, {"left.png": pair.features0, "right.png": pair.features1}, {})
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == 2
        assert database.num_keypoints_for_image(1) == len(pair.features0)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"already has keypoints of 'left\.png'"):
        colmap.write_database(path, {"new.png": pair.features1, "left.png": pair.features0}, {})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["database.db"]


def test_databases_that_cannot_be_used(
    pair: MatchResult, empty: Features, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "database.db"
    colmap.write_database(path, {"flat.png": empty}, {})
    more = {"left.png": pair.features0}
    with pytest.raises(StoreError, match=r"no features, of other\.png"):
        colmap.write_database(path, more, {("left.png", "other.png"): np.zeros((0, 2), np.intp)})
    with pytest.raises(StoreError, match=r"has no image 'left\.png'"):
        colmap.read_keypoints(path, "left.png")
    with pytest.raises(StoreError, match="there is no database"):
        colmap.verify_database(tmp_path / "none.db", [])
    busy = sqlite3.connect(path)
    busy.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="database is locked; close the program"):
        colmap.write_database(path, more, {})
    busy.close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99990000")
    newer.close()
    with pytest.raises(StoreError, match=r"newer COLMAP .*pip install --upgrade pycolmap"):
        colmap.write_database(path, more, {})
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database; name another file"):
        colmap.write_database(path, more, {})
