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
from cv_superpoint.matching.refining import FARTHEST, refine_matches

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
    """From keypoints a pixel off, by a homography that is a pixel off."""
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
    with pytest.raises(FeatureError, match="refine needs model='homography'"):
        match_pair(PHOTOGRAPH, other, detector, model="fundamental", refine=True)


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
