"""Mutual nearest neighbours, the search over quarter turns, and the way back to the image."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import PINNED

from cv_superpoint import FeatureError, Features, SuperPointFeature2D
from cv_superpoint.matching import MatchResult, match_pair, nearest
from cv_superpoint.matching.nearest import mutual_nearest
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.weights import save_weights


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SuperPointFeature2D:
    """Random weights: these tests are about coordinates, not about quality."""
    path: Path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_weights(SuperPointNet(), path, score_threshold=0.0155)
    return SuperPointFeature2D.create(maxKeypoints=200, weights=path, **PINNED)


@pytest.fixture(scope="module")
def photograph() -> Any:
    # Neither square nor a multiple of the network's cell: a wrong axis would show.
    return np.ascontiguousarray(skimage.data.camera()[60:193, 160:341])


def unit_rows(seed: int, count: int, length: int = 32) -> Any:
    rows = np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned_back(points: Any, turns: int, size: tuple[int, int]) -> Any:
    """True positions, looked up in turned grids of coordinates."""
    y, x = np.mgrid[: size[0], : size[1]]
    column, row = np.rint(points).astype(int).T
    return np.stack([np.rot90(x, turns)[row, column], np.rot90(y, turns)[row, column]], axis=1)


class Stub:
    """A detector whose keypoints and descriptors the test chooses."""

    def __init__(self, *sets: Features) -> None:
        self.sets = list(sets)
        self.calls: list[tuple[Any, Any]] = []

    def extract(self, image: Any, mask: Any = None) -> Features:
        self.calls.append((image, mask))
        return self.sets[min(len(self.calls), len(self.sets)) - 1]


def features(points: Any, descriptors: Any) -> Features:
    count = len(points)
    return Features(
        keypoints=np.asarray(points, np.float32).reshape(-1, 2),
        scores=np.ones(count, np.float32),
        descriptors=descriptors,
        sizes=np.full(count, 8, np.float32),
        octaves=np.zeros(count, np.int32),
        image_size=(100, 100),
    )


# ---- mutual_nearest ----


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 80), st.integers(1, 4000))
def test_mutual_nearest_is_cross_checked_brute_force(
    seed: int, count0: int, count1: int, block: int
) -> None:
    first, second = unit_rows(seed, count0), unit_rows(seed + 1, count1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "BLOCK_ELEMENTS", block)
        pairs, similarity = mutual_nearest(first, second)
    expected = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(first, second)
    assert pairs.tolist() == sorted([match.queryIdx, match.trainIdx] for match in expected)
    cosines = np.einsum("nd,nd->n", first[pairs[:, 0]], second[pairs[:, 1]])
    np.testing.assert_allclose(similarity, cosines, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_mutual_nearest_is_one_to_one_even_with_equal_rows(
    seed: int, count0: int, count1: int
) -> None:
    few = unit_rows(seed, 5)
    random = np.random.default_rng(seed)
    first, second = few[random.integers(0, 5, count0)], few[random.integers(0, 5, count1)]
    pairs, similarity = mutual_nearest(first, second)
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs) > 0
    np.testing.assert_allclose(similarity, (first @ second.T).max(axis=1)[pairs[:, 0]])


def test_mutual_nearest_of_nothing() -> None:
    some = unit_rows(0, 3)
    for first, second in [(None, some), (some, None), (some[:0], some), (None, None)]:
        pairs, similarity = mutual_nearest(first, second)
        assert pairs.shape == (0, 2)
        assert similarity.shape == (0,)


def test_mutual_nearest_bounds_its_memory() -> None:
    rows = unit_rows(0, 5000)
    tracemalloc.start()
    pairs, _ = mutual_nearest(rows, rows[::-1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 5000
    assert peak < 50e6  # all the similarities at once would take 100 MB


def test_mutual_nearest_takes_other_float_types() -> None:
    rows = unit_rows(0, 30)
    pairs, _ = mutual_nearest(rows.astype(np.float16), rows.astype(np.float64)[::-1])
    assert pairs.tolist() == [[index, 29 - index] for index in range(30)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (unit_rows(0, 3) * 512, "unit length, got length 512 in row 0"),
        (np.full((2, 32), np.nan, np.float32), "unit length, got length nan"),
        (unit_rows(0, 3, 16), "of one length"),
        (unit_rows(0, 3)[0], r"\(N, D\) array, got \(32,\)"),
        ([1.0, 2.0], r"\(N, D\) array"),
    ],
)
def test_mutual_nearest_refuses(wrong: Any, says: str) -> None:
    with pytest.raises(FeatureError, match=says):
        mutual_nearest(unit_rows(0, 3), wrong)


# ---- match_pair ----


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("subpixel", [False, True])
def test_a_turned_photograph_maps_exactly_back(
    detector: SuperPointFeature2D, photograph: Any, turns: int, subpixel: bool
) -> None:
    detector.setSubpixel(subpixel)
    turned = np.rot90(photograph, turns)
    result = match_pair(photograph, turned, detector, rotations=(0, 90, 180, 270))
    assert result.rotation == (360 - 90 * turns) % 360
    # Random weights confuse some descriptors, but a wrong match is 4 px or more away: no inlier.
    assert result.inliers.sum() > 50
    points0, points1 = result.points0[result.inliers], result.points1[result.inliers]
    back = turned_back(points1, turns, photograph.shape)
    if subpixel:
        assert np.abs(back - points0).max() <= 1  # the grids hold whole pixels only
        corners = np.array([[[0, 0], [180, 0], [180, 132], [0, 132]]], np.float64)
        mapped = cv2.perspectiveTransform(corners, result.homography)[0]
        expected = turned_back(mapped, turns, photograph.shape)
        np.testing.assert_array_equal(expected, corners[0])
    else:
        np.testing.assert_array_equal(back, points0)
    assert result.features1.image_size == turned.shape


@pytest.mark.parametrize("degrees", [70, 90, 120, 200])
def test_what_is_turned_by_any_angle_is_matched(degrees: int) -> None:
    image = skimage.data.camera()[100:420, 100:420]
    turn = np.vstack([cv2.getRotationMatrix2D((159.5, 159.5), degrees, 1), [0, 0, 1]])
    turned = cv2.warpPerspective(image, turn, (320, 320))
    detector = SuperPointFeature2D.create(300, **PINNED)
    result = match_pair(image, turned, detector)
    # Against the picture itself, in which everything is found again.
    assert result.inliers.sum() > 0.4 * match_pair(image, image.copy(), detector).inliers.sum()
    corners = np.array([[[60, 60], [260, 60], [260, 260], [60, 260]]], np.float64)
    assert result.homography is not None
    off = cv2.perspectiveTransform(corners, result.homography)
    off -= cv2.perspectiveTransform(corners, turn)
    assert np.linalg.norm(off, axis=2).max() < 2


def test_masks_turn_with_their_image(detector: SuperPointFeature2D, photograph: Any) -> None:
    turned = np.rot90(photograph, 1)
    mask = np.zeros(turned.shape, np.uint8)
    mask[20:140, 30:100] = 255
    for rotation in (90, 180, 270):
        result = match_pair(photograph, turned, detector, mask1=mask, rotations=(rotation,))
        column, row = np.rint(result.features1.keypoints).astype(int).T
        assert len(row) > 20
        assert mask[row, column].all()


def test_mask_of_the_first_image(detector: SuperPointFeature2D, photograph: Any) -> None:
    mask = np.zeros(photograph.shape, bool)
    mask[:, :120] = True
    result = match_pair(photograph, photograph, detector, mask0=mask)
    assert len(result.features0) > 20
    assert result.features0.keypoints[:, 0].max() < 120


def test_finds_the_homography(detector: SuperPointFeature2D) -> None:
    rows = unit_rows(1, 200)
    points = np.random.default_rng(2).uniform(0, 400, (200, 2))
    truth = np.array([[0.9, -0.2, 30], [0.15, 1.1, -12], [2e-4, -1e-4, 1]])
    moved = cv2.perspectiveTransform(points[None], truth)[0]
    moved[:60] += 50 + np.arange(60)[:, None]
    order = np.random.default_rng(3).permutation(200)
    stub = Stub(features(points, rows), features(moved[order], rows[order]))
    image = np.zeros((500, 500), np.uint8)
    result = match_pair(image, image, stub)
    assert result.homography is not None
    assert result.homography.dtype == np.float64
    np.testing.assert_allclose(result.homography / result.homography[2, 2], truth, atol=1e-3)
    np.testing.assert_array_equal(result.inliers, np.arange(200) >= 60)
    np.testing.assert_allclose(result.points1, moved, atol=1e-4)
    assert result.fundamental is None


def test_finds_the_epipolar_geometry() -> None:
    random = np.random.default_rng(0)
    world = np.c_[random.uniform(-1, 1, (200, 2)), random.uniform(3, 6, 200)]
    camera = np.array([[400.0, 0, 200], [0, 400, 200], [0, 0, 1]])
    turn = cv2.Rodrigues(np.array([0.02, 0.1, 0.03]))[0]
    both = [world @ camera.T, (world @ turn.T + [0.4, 0.05, 0.1]) @ camera.T]
    first, second = [points[:, :2] / points[:, 2:] for points in both]
    second[:40] = random.uniform(0, 400, (40, 2))
    rows = unit_rows(1, 200)
    stub = Stub(features(first, rows), features(second, rows))
    image = np.zeros((400, 400), np.uint8)
    result = match_pair(image, image, stub, model="fundamental", threshold=1.0)
    assert result.homography is None
    assert result.fundamental is not None
    assert result.inliers[40:].mean() > 0.95
    assert result.inliers[:40].mean() < 0.2
    lines = np.c_[first, np.ones(200)] @ result.fundamental.T
    distance = np.abs(np.sum(np.c_[second, np.ones(200)] * lines, axis=1))
    assert (distance / np.hypot(lines[:, 0], lines[:, 1]))[40:].max() < 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_give_no_homography(count: int) -> None:
    stub = Stub(features(np.eye(count, 2), unit_rows(0, count)))
    image = np.zeros((50, 60, 3), np.uint8)
    result = match_pair(image, image, stub, rotations=(90, 180))
    assert len(result) == count
    assert result.homography is None
    assert not result.inliers.any()
    assert result.rotation == 90  # none is better: the first
    assert result.draw(image, image).shape == (50, 120, 3)


def test_a_flat_image_matches_nothing(detector: SuperPointFeature2D, photograph: Any) -> None:
    detector.setScoreThreshold(0.5)
    result = match_pair(photograph, np.zeros((5, 3), np.uint8), detector)
    detector.setScoreThreshold(None)
    assert len(result) == 0
    assert result.homography is None


def test_degenerate_matches_give_no_homography() -> None:
    line = np.stack([np.arange(20), np.arange(20)], axis=1)
    stub = Stub(features(line, unit_rows(0, 20)))
    image = np.zeros((50, 60), np.uint8)
    result = match_pair(image, image, stub)
    assert len(result) == 20
    assert result.homography is None
    assert not result.inliers.any()


def test_skipped_turns_would_not_have_won() -> None:
    rows = unit_rows(0, 40)
    points = np.random.default_rng(0).uniform(0, 100, (40, 2))
    sets = [features(points[:k], rows[:k]) for k in (40, 10, 30, 30, 20)]
    image = np.zeros((101, 101), np.uint8)
    stub = Stub(*sets)
    result = match_pair(image, image, stub, rotations=(270, 0, 90, 180))
    # Equal counts at 0 and 90 degrees: the earlier one.
    assert (result.rotation, int(result.inliers.sum())) == (0, 30)
    assert len(stub.calls) == 5


def test_the_same_again(detector: SuperPointFeature2D, photograph: Any) -> None:
    other = np.rot90(photograph[5:, 9:], 1)
    runs = [match_pair(photograph, other, detector, rotations=(0, 270)) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].matches, runs[1].matches)
    np.testing.assert_array_equal(runs[0].inliers, runs[1].inliers)
    assert runs[0].homography is not None
    np.testing.assert_array_equal(runs[0].homography, runs[1].homography)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rotations": ()}, "rotations"),
        ({"rotations": (0, 45)}, "rotations"),
        ({"rotations": (0, 0)}, "each once"),
        ({"model": "affine"}, "model must be one of homography, fundamental, got 'affine'"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"mask1": np.ones((3, 3), np.uint8)}, "mask must have the image's size"),
        ({"mask0": np.ones((3, 3), np.uint8)}, "mask must have the image's size"),
    ],
)
def test_match_pair_refuses(
    detector: SuperPointFeature2D, photograph: Any, options: dict[str, Any], says: str
) -> None:
    for kind in (cv2.error, ValueError):
        with pytest.raises(kind, match=says) as caught:
            match_pair(photograph, photograph, detector, **options)
        assert isinstance(caught.value, FeatureError)


@pytest.mark.parametrize("wrong", [None, "photo.jpg", np.zeros((4, 4), np.float32)])
def test_match_pair_refuses_what_is_no_image(detector: SuperPointFeature2D, wrong: Any) -> None:
    image = np.zeros((20, 20), np.uint8)
    with pytest.raises(FeatureError, match="image must be"):
        match_pair(image, wrong, detector)
    with pytest.raises(FeatureError, match="image must be"):
        match_pair(wrong, image, detector)


# ---- draw ----


def test_draw_joins_inliers_only() -> None:
    points = np.array([[10, 10], [50, 10], [50, 40], [10, 40], [30, 30]], np.float32)
    found = features(points, unit_rows(0, 5))
    result = MatchResult(
        features0=found,
        features1=found,
        matches=np.stack([np.arange(5)] * 2, axis=1),
        similarity=np.ones(5, np.float32),
        scores=np.ones(5, np.float32),
        inliers=np.array([True, True, True, True, False]),
        homography=np.eye(3),
        fundamental=None,
        rotation=0,
    )
    grey, colour = np.zeros((60, 70), np.uint8), np.zeros((50, 70, 4), np.uint8)
    picture = result.draw(grey, colour)
    assert picture.shape == (60, 140, 3)
    assert picture.dtype == np.uint8
    green = (picture[..., 1] > 100) & (picture[..., 2] < 100)
    assert green[10, 30:80].all()  # the line from (10, 10) to (70 + 10, 10)
    assert not green[30, 60:80].any()
    assert not result.draw(grey, colour, limit=0)[:50].any()
    assert (result.draw(grey, colour, limit=2) != picture).any()
    np.testing.assert_array_equal(result.draw(grey, colour, limit=-1), picture)


def test_matches_as_opencv_s() -> None:
    photograph = skimage.data.astronaut()[:300, 100:400].copy()
    turned = np.ascontiguousarray(photograph[20:, 30:])
    found = match_pair(photograph, turned, SuperPointFeature2D.create(300, **PINNED))
    rows = found.features0.descriptors, found.features1.descriptors
    expected = {
        (one.queryIdx, one.trainIdx): one.distance
        for one in cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*rows)
    }
    ours = found.to_dmatches()
    assert [(one.queryIdx, one.trainIdx) for one in ours] == [*map(tuple, found.matches.tolist())]
    np.testing.assert_allclose(
        [one.distance for one in ours],
        [expected[one.queryIdx, one.trainIdx] for one in ours],
        atol=1e-3,
    )
    agreeing = found.to_dmatches(inliers=True)
    assert 50 < len(agreeing) == found.inliers.sum() < len(ours)
    keypoints = found.features0.to_keypoints(), found.features1.to_keypoints()
    drawn = cv2.drawMatches(photograph, keypoints[0], turned, keypoints[1], agreeing, None)
    assert drawn.shape[1] == photograph.shape[1] + turned.shape[1]
