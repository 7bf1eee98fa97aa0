"""Matches placed by pixels: known shifts and warps of photographs, and what cannot be placed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D, match_pair
from cv_superpoint.cli import main
from cv_superpoint.geometry import corner_error, warp_points
from cv_superpoint.matching.refining import FARTHEST, refine_homography, refine_matches

PHOTOGRAPH = np.ascontiguousarray(skimage.data.astronaut()[:360, 40:500, ::-1])
GREY = cv2.cvtColor(PHOTOGRAPH, cv2.COLOR_BGR2GRAY)
WARP = np.array([[0.96, -0.13, 40], [0.11, 1.02, -20], [1e-4, -6e-5, 1]])


def corners(count: int = 120) -> np.ndarray:
    """(N, 2) whole pixels with texture, away from the borders."""
    found = cv2.goodFeaturesToTrack(GREY[40:-40, 40:-40], count, 0.02, 9)
    return found.reshape(-1, 2) + np.float32(40)


def shifted(x: float, y: float) -> np.ndarray:
    """The photograph moved by (x, y) pixels, to the right and down.

    Not by OpenCV, whose cubic interpolation moves pictures by up to 0.045 pixels more.
    """
    moved = scipy.ndimage.shift(GREY.astype(np.float64), (y, x), order=5, mode="mirror")
    return moved.clip(0, 255).round().astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(x=st.floats(-1.5, 1.5), y=st.floats(-1.5, 1.5))
def test_known_shifts_are_found_to_a_twentieth_of_a_pixel(x: float, y: float) -> None:
    points = corners()
    found = refine_matches(GREY, shifted(x, y), points, points, np.eye(3))
    assert found.moved.mean() > 0.9
    missed = np.linalg.norm(found.points1 - points - (x, y), axis=1)[found.moved]
    assert np.percentile(missed, 90) < 0.05
    assert np.median(missed) < 0.025
    assert np.isfinite(found.deviation[found.moved]).all()
    assert np.isinf(found.deviation[~found.moved]).all()


def test_without_a_homography_the_matches_say_how_far_the_images_are_apart() -> None:
    points = corners()
    start = np.round(points + np.array((21.3, -17.8)))
    found = refine_matches(GREY, shifted(21.3, -17.8), points, start)
    missed = np.linalg.norm(found.points1 - points - (21.3, -17.8), axis=1)
    assert np.percentile(missed[found.moved], 90) < 0.05
    assert found.moved.mean() > 0.7


def warped(gain: float = 1.0, offset: float = 0.0, noise: float = 0.0) -> np.ndarray:
    image = cv2.warpPerspective(PHOTOGRAPH, WARP, (430, 400), flags=cv2.INTER_LANCZOS4)
    image = image * gain + offset + np.random.default_rng(0).normal(0, noise, image.shape)
    return image.clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, 0.05), ({"gain": 0.6, "offset": 50}, 0.05), ({"noise": 10}, 0.15)],
    ids=["clean", "other light", "noise"],
)
def test_warps_of_other_light_and_noise(change: dict[str, float], expected: float) -> None:
    """Keypoints are a pixel off, and so is the homography."""
    points = corners()
    truth = warp_points(WARP, points.astype(np.float64))
    seen = ((truth > 20) & (truth < (410, 380))).all(axis=1)
    points, truth = points[seen], truth[seen]
    start = truth + np.random.default_rng(1).uniform(-1, 1, truth.shape)
    about, _ = cv2.findHomography(points, truth + np.array((0.6, -0.5)))
    found = refine_matches(PHOTOGRAPH, warped(**change), points, start, about)
    assert found.moved.mean() > 0.7
    missed = np.linalg.norm(found.points1 - truth, axis=1)[found.moved]
    assert np.median(missed) < expected
    # Those that are expected to be better are.
    certain = np.argsort(found.deviation[found.moved])
    half = len(certain) // 2
    assert missed[certain[:half]].mean() < missed[certain[half:]].mean()


def test_what_cannot_be_placed_keeps_its_position() -> None:
    scene = GREY.copy()
    scene[100:200, 100:200] = 128  # flat
    other = np.roll(scene, 2, axis=1)
    points = np.array(
        [[150, 150], [2, 2], [-40, 7], [459, 359], [1e6, 3], [np.nan, 5], [240, 80]], np.float32
    )
    start = points + np.float32((2, 0))
    start[-1] += 30  # far from where it is
    found = refine_matches(scene, other, points, start, np.eye(3))
    assert not found.moved.any()
    np.testing.assert_array_equal(found.points1, start)
    nothing = refine_matches(scene, other, [], [])
    assert nothing.points1.shape == (0, 2)
    assert nothing.moved.shape == nothing.deviation.shape == (0,)
    # Pictures that share nothing.
    foreign = refine_matches(GREY, skimage.data.camera(), corners(), corners(), np.eye(3))
    assert foreign.moved.mean() < 0.1
    tiny = refine_matches(GREY[:8, :9], other, [[4, 4]], [[5, 4]], np.eye(3))
    assert not tiny.moved.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), window=st.sampled_from([5, 11, 21, 41]))
def test_no_point_moves_far_and_none_depends_on_the_others(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-20, 480, (60, 2)).astype(np.float32)
    start = points + rng.normal(0, 2, points.shape).astype(np.float32)
    about = np.eye(3) + rng.normal(0, [[1e-2, 1e-2, 1], [1e-2, 1e-2, 1], [1e-5, 1e-5, 0]])
    found = refine_matches(GREY, warped(), points, start, about, window=window)
    back = warp_points(np.linalg.inv(about), found.points1[found.moved].astype(np.float64))
    assert np.all(np.linalg.norm(back - points[found.moved], axis=1) <= FARTHEST + 1e-3)
    np.testing.assert_array_equal(found.points1[~found.moved], start[~found.moved])
    order = rng.permutation(60)[:25]
    fewer = refine_matches(GREY, warped(), points[order], start[order], about, window=window)
    np.testing.assert_array_equal(fewer.points1, found.points1[order])
    np.testing.assert_allclose(fewer.deviation, found.deviation[order], rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"points0": np.zeros((3, 2))}, "must match, got 3 and 4"),
        ({"points1": np.zeros(8)}, r"points1 must be \(M, 2\)"),
        ({"homography": np.zeros((3, 3))}, "invertible"),
        ({"homography": np.full((3, 3), np.nan)}, "invertible"),
        ({"homography": np.eye(2)}, "invertible"),
        ({"window": 8}, "odd number"),
        ({"farthest": 0}, "farthest"),
        ({"image0": GREY.astype(np.uint16)}, "uint8"),
        ({"image1": None}, "image"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told(changed: dict[str, Any], says: str) -> None:
    points = np.full((4, 2), 50.0)
    given = {"image0": GREY, "image1": GREY, "points0": points, "points1": points, **changed}
    with pytest.raises(FeatureError, match=says):
        refine_matches(**given)


def test_a_pair_is_placed_better_and_turns_with_its_image() -> None:
    detector = SuperPointFeature2D.create(400, **PINNED)
    other = warped(gain=0.8, offset=20, noise=4)
    size = PHOTOGRAPH.shape[0], PHOTOGRAPH.shape[1]
    plain = match_pair(PHOTOGRAPH, other, detector)
    exact = match_pair(PHOTOGRAPH, other, detector, refine=True)
    errors = [corner_error(one.homography, WARP, size) for one in (plain, exact)]
    assert errors[1] < min(0.3, errors[0])
    np.testing.assert_array_equal(plain.matches, exact.matches)
    np.testing.assert_array_equal(plain.inliers, exact.inliers)
    truth = warp_points(WARP, exact.points0.astype(np.float64))
    missed = [np.linalg.norm(one.points1 - truth, axis=1)[one.inliers] for one in (plain, exact)]
    assert np.median(missed[1]) < 0.15 < np.median(missed[0])
    turned = match_pair(
        PHOTOGRAPH, np.rot90(other), detector, rotations=(0, 90, 180, 270), refine=True
    )
    back = np.array([[0, 1, 0], [-1, 0, other.shape[1] - 1], [0, 0, 1.0]])
    assert turned.rotation == 270
    assert corner_error(turned.homography, back @ WARP, size) < 0.3


def test_a_wrong_homography_is_kept_rather_than_made_worse() -> None:
    """Pixels of the floor agree among themselves; the keypoints of the wall must not lose."""
    points = corners(200)
    part = points[:, 1] > 260  # a part that moved on its own
    truth = points + np.where(part[:, None], (6.0, 0.0), (0.0, 0.0)).astype(np.float32)
    other = GREY.copy()
    other[260:] = np.roll(GREY[260:], 6, axis=1)
    rng = np.random.default_rng(2)
    seen = truth + rng.normal(0, 0.5, truth.shape).astype(np.float32)
    found = refine_homography(GREY, other, points, seen, np.eye(3))
    size = GREY.shape[0], GREY.shape[1]
    assert found.accepted
    assert corner_error(found.homography, np.eye(3), size) < 0.3
    assert found.moved[~part].mean() > 0.7
    # Pictures that have nothing to do with each other say nothing about the matches.
    foreign = refine_homography(GREY, skimage.data.camera(), points, seen, np.eye(3))
    assert not foreign.accepted
    np.testing.assert_array_equal(foreign.points1, seen)
    np.testing.assert_array_equal(foreign.homography, np.eye(3))
    # A homography that the pixels of one corner alone suggest is refused.
    few = corners(200)[:30]
    bent = np.array([[1, 0.3, 0], [0.3, 1, 0], [1e-3, 1e-3, 1]])
    nothing = refine_homography(GREY, GREY, few, few, bent)
    assert not nothing.accepted


def test_beyond_one_plane_patches_move_as_their_neighbours_do() -> None:
    """Two halves of one picture, each moved and stretched on its own."""
    points = corners(250)
    other = np.zeros_like(GREY)
    middle = GREY.shape[1] // 2
    truth = np.empty(points.shape)
    for half, scale, move in ((np.s_[:, :middle], 1.0, 2.4), (np.s_[:, middle:], 1.15, -30.7)):
        matrix = np.array([[scale, 0.05, move], [0, 1, 1.3], [0, 0, 1]])
        flags = cv2.INTER_LANCZOS4
        moved = cv2.warpPerspective(GREY, matrix, GREY.shape[::-1], flags=flags)
        other[half] = moved[half]
        mine = (points[:, 0] < middle) == (half == np.s_[:, :middle])
        truth[mine] = warp_points(matrix, points[mine].astype(np.float64))
    seen = (np.abs(points[:, 0] - middle) > 30) & (np.abs(truth[:, 0] - middle) > 20)
    seen &= (
        (truth[:, 0] > 12)
        & (truth[:, 0] < 447)
        & ((points[:, 0] < middle) == (truth[:, 0] < middle))
    )
    points, truth = points[seen], truth[seen]
    start = truth + np.random.default_rng(3).normal(0, 0.6, truth.shape)
    local = refine_matches(GREY, other, points, start)
    missed = np.linalg.norm(local.points1 - truth, axis=1)
    assert local.moved.mean() > 0.7
    assert np.median(missed[local.moved]) < 0.06
    one, _ = cv2.findHomography(points, start.astype(np.float32), cv2.RANSAC, 3.0)
    plane = refine_matches(GREY, other, points, start, one)
    assert plane.moved.mean() < local.moved.mean()


def test_wrong_matches_among_the_neighbours_do_little_harm() -> None:
    points = corners(200)
    start = points + np.random.default_rng(4).normal(0, 0.5, points.shape).astype(np.float32)
    wrong = np.arange(len(points)) % 4 == 0
    start[wrong] = np.random.default_rng(5).permutation(points[wrong])
    found = refine_matches(GREY, shifted(0.4, -0.7), points, start)
    right = found.moved & ~wrong
    missed = np.linalg.norm(found.points1 - points - (0.4, -0.7), axis=1)
    assert right.sum() > 0.7 * (~wrong).sum()
    assert np.median(missed[right]) < 0.05
    assert found.moved[wrong].mean() < 0.1


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_a_stereo_pair_gets_no_worse(model: Any) -> None:
    """Rectified: the truth is the row, and the disparity that scikit-image has with the pair."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    detector = SuperPointFeature2D.create(700, **PINNED)
    images = left[..., ::-1].copy(), right[..., ::-1].copy()
    plain = match_pair(*images, detector, model=model)
    exact = match_pair(*images, detector, model=model, refine=True)
    kept = plain.inliers & exact.inliers
    columns, rows = np.rint(plain.points0).astype(int).T
    truth = plain.points0 - np.c_[disparity[rows, columns], np.zeros(len(rows))]
    known = kept & np.isfinite(truth).all(axis=1)
    missed = [np.linalg.norm(one.points1 - truth, axis=1)[known] for one in (plain, exact)]
    known_right = missed[0] < 3
    if model == "fundamental":
        assert np.median(missed[1][known_right]) < 0.95 * np.median(missed[0][known_right])
    else:
        assert np.median(missed[1][known_right]) <= np.median(missed[0][known_right]) + 0.02


def test_the_command_refines(tmp_path: Path) -> None:
    for name, image in (("a.png", PHOTOGRAPH), ("b.png", warped())):
        cv2.imwrite(str(tmp_path / name), image)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    missed = []
    for more in ([], ["--refine"]):
        out = tmp_path / f"out{len(more)}"
        assert main(["match", *paths, "-o", str(out), *more]) == 0
        with (out / "matches.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["inlier"] == "1"]
        points = np.array([[float(row[k]) for k in ("x0", "y0", "x1", "y1")] for row in rows])
        truth = warp_points(WARP, points[:, :2])
        missed.append(np.median(np.linalg.norm(points[:, 2:] - truth, axis=1)))
    assert missed[1] < 0.12 < missed[0]
