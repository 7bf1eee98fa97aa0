"""Ratio and distance tests, the torch path, guided matching and drawing."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint import (
    FeatureError,
    Features,
    guided_matches,
    match_pair,
    mutual_nearest,
)
from cv_superpoint.matching import nearest
from cv_superpoint.matching.drawing import draw_keypoints, draw_matches, draw_overlay


def unit_rows(seed: int, count: int, length: int = 16) -> Any:
    rows = np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def features(points: Any, descriptors: Any) -> Features:
    count = len(points)
    return Features(
        keypoints=np.asarray(points, np.float32).reshape(-1, 2),
        scores=np.linspace(1, 0.5, count).astype(np.float32),
        descriptors=descriptors,
        sizes=np.full(count, 8, np.float32),
        octaves=np.zeros(count, np.int32),
        image_size=(200, 300),
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 60), st.floats(0.3, 1))
def test_ratio_test_is_lowes(seed: int, count0: int, count1: int, ratio: float) -> None:
    first, second = unit_rows(seed, count0), unit_rows(seed + 1, count1)
    pairs, _ = mutual_nearest(first, second, max_ratio=ratio)
    mutual = {tuple(pair) for pair in mutual_nearest(first, second)[0].tolist()}
    expected, unsure = set(), set()
    for best, runner_up in cv2.BFMatcher(cv2.NORM_L2).knnMatch(first, second, 2):
        pair, share = (best.queryIdx, best.trainIdx), best.distance / runner_up.distance
        if pair in mutual and abs(share - ratio) < 1e-4:
            unsure.add(pair)
        elif pair in mutual and share <= ratio:
            expected.add(pair)
    assert expected <= {tuple(pair) for pair in pairs.tolist()} <= expected | unsure


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 50), st.integers(1, 500))
def test_torch_finds_the_same(seed: int, count0: int, count1: int, block: int) -> None:
    first, second = unit_rows(seed, count0), unit_rows(seed + 1, count1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "BLOCK_ELEMENTS", block)
        for options in ({}, {"max_ratio": 0.9}, {"max_distance": 1.0}):
            ours = mutual_nearest(first, second, **options)
            torchs = mutual_nearest(first, second, device="cpu:0", **options)
            np.testing.assert_array_equal(ours[0], torchs[0])
            np.testing.assert_allclose(ours[1], torchs[1], atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_finds_the_same() -> None:
    first, second = unit_rows(0, 3000, 256), unit_rows(1, 2500, 256)
    ours, cudas = mutual_nearest(first, second), mutual_nearest(first, second, device="cuda")
    agree = {tuple(pair) for pair in ours[0].tolist()} & {tuple(pair) for pair in cudas[0].tolist()}
    assert len(agree) > 0.99 * len(ours[0])


def test_distance_test() -> None:
    first, second = unit_rows(0, 50), unit_rows(1, 50)
    everything, similarity = mutual_nearest(first, second)
    distance = np.linalg.norm(first[everything[:, 0]] - second[everything[:, 1]], axis=1)
    limit = float(np.median(distance))
    pairs, kept = mutual_nearest(first, second, max_distance=limit)
    np.testing.assert_array_equal(pairs, everything[distance <= limit])
    np.testing.assert_array_equal(kept, similarity[distance <= limit])


def test_one_candidate_passes_the_ratio_test() -> None:
    rows = unit_rows(0, 1)
    assert mutual_nearest(rows, rows, max_ratio=0.5)[0].tolist() == [[0, 0]]
    assert mutual_nearest(rows, rows, max_ratio=0.5, device="cpu:0")[0].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_ratio": 0.0}, r"max_ratio must lie in \(0, 1\]"),
        ({"max_ratio": float("nan")}, "max_ratio"),
        ({"max_distance": 3}, "max_distance must lie in"),
        ({"device": "abacus"}, "device must be 'auto' or a torch device"),
    ],
)
def test_limits_out_of_range(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mutual_nearest(unit_rows(0, 3), unit_rows(1, 3), **options)


# ---- guided ----


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["homography", "fundamental"]))
def test_guided_is_brute_force_among_the_allowed(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    one = features(random.uniform(0, 200, (30, 2)), unit_rows(seed, 30))
    other = features(random.uniform(0, 200, (25, 2)), unit_rows(seed + 1, 25))
    matrix = np.eye(3) + random.normal(size=(3, 3)) * [
        [0.1, 0.1, 9],
        [0.1, 0.1, 9],
        [1e-4, 1e-4, 0],
    ]
    points0 = np.c_[one.keypoints.astype(np.float64), np.ones(30)] @ matrix.T
    points1 = np.c_[other.keypoints.astype(np.float64), np.ones(25)]
    if kind == "homography":
        places = points0[:, None, :2] / points0[:, None, 2:]
        error = np.linalg.norm(places - points1[None, :, :2], axis=2)
    else:
        error = np.abs(points0 @ points1.T) / np.hypot(points0[:, :1], points0[:, 1:2])
    cosines = np.where(error <= 40, one.descriptors @ other.descriptors.T, -np.inf)
    expected = [
        [row, column]
        for row, column in enumerate(cosines.argmax(axis=1))
        if cosines[row, column] >= 0.1 and cosines[:, column].argmax() == row
    ]
    found, similarity = guided_matches(
        one, other, **{kind: matrix}, threshold=40, min_similarity=0.1
    )
    assert found.tolist() == expected
    np.testing.assert_allclose(similarity, cosines[tuple(found.T)] if len(found) else [], atol=1e-6)


def test_guided_finds_what_look_alikes_hid() -> None:
    rows = unit_rows(0, 10)
    points = np.arange(20).reshape(10, 2) * 9.0
    one = features(points, rows)
    seen = rows + 0.1 * unit_rows(1, 10)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    twins = features(np.r_[points[::-1] + 100, points], np.r_[rows, seen])
    assert (mutual_nearest(rows, twins.descriptors)[0][:, 1] < 10).all()  # the wrong twins
    found, _ = guided_matches(one, twins, homography=np.eye(3))
    assert found.tolist() == [[index, 10 + index] for index in range(10)]


def test_guided_refuses() -> None:
    some = features(np.zeros((2, 2)), unit_rows(0, 2))
    for wrong, says in (
        ({}, "either a homography or a fundamental matrix"),
        ({"homography": np.eye(3), "fundamental": np.eye(3)}, "either"),
        ({"homography": np.eye(2)}, r"homography must be a finite \(3, 3\) matrix"),
        ({"fundamental": np.full((3, 3), np.nan)}, "fundamental must be a finite"),
        ({"homography": np.eye(3), "threshold": 0}, "threshold must be a positive"),
    ):
        with pytest.raises(FeatureError, match=says):
            guided_matches(some, some, **wrong)
    none = features(np.empty((0, 2)), np.empty((0, 16), np.float32))
    assert guided_matches(some, none, homography=np.eye(3))[0].shape == (0, 2)


def test_match_pair_passes_the_tests_on() -> None:
    class Stub:
        def extract(self, image: Any, mask: Any = None) -> Features:
            return features(
                np.random.default_rng(int(image[0, 0])).uniform(0, 90, (60, 2)),
                unit_rows(int(image[0, 0]), 60),
            )

    images = np.zeros((100, 100), np.uint8), np.ones((100, 100), np.uint8)
    counts = [
        len(match_pair(*images, Stub(), **options))
        for options in ({}, {"max_ratio": 0.9}, {"max_distance": 0.8})
    ]
    assert counts[0] > counts[1] > 0
    assert counts[0] > counts[2] > 0


# ---- drawing ----


def test_keypoints_are_drawn_where_they_are() -> None:
    some = features([[20.5, 30.25], [200, 100]], unit_rows(0, 2))
    picture = draw_keypoints(np.zeros((200, 300), np.uint8), some)
    rows, columns = np.nonzero(picture.any(axis=2))
    near = (columns < 100).nonzero()
    assert rows[near].mean() == pytest.approx(30.25, abs=0.3)
    assert columns[near].mean() == pytest.approx(20.5, abs=0.3)
    assert columns[near].max() - columns[near].min() == pytest.approx(8, abs=2)
    assert picture[:, :100, 2].max() > 100 > picture[:, :100, 0].max()  # the surest is red
    none = features(np.empty((0, 2)), np.empty((0, 16), np.float32))
    assert not draw_keypoints(np.zeros((200, 300, 4), np.uint8), none).any()


def test_outliers_are_red() -> None:
    image = np.zeros((50, 60), np.uint8)
    points = np.array([[10, 10], [10, 40]])
    inliers = np.array([True, False])
    plain = draw_matches(image, image, points, points, inliers=inliers)
    both = draw_matches(image, image, points, points, inliers=inliers, outliers=True)
    assert plain[10, 40, 1] > 150
    assert not plain[40].any()
    assert both[40, 40, 2] > 150
    np.testing.assert_array_equal(both[:30], plain[:30])


def test_overlay_is_grey_where_the_pictures_agree() -> None:
    image = skimage.data.camera()[::4, ::4]
    shift = np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])
    moved = np.roll(image, 10, axis=1)
    right, wrong = (draw_overlay(image, moved, matrix) for matrix in (shift, np.eye(3)))
    colour = [np.ptp(picture[:, 10:].astype(int), axis=2).mean() for picture in (right, wrong)]
    assert colour[0] < 3 < 10 < colour[1]
    assert right[:, :9].max() <= 255 // 3  # dim where only one is
    with pytest.raises(FeatureError, match="homography must be"):
        draw_overlay(image, image, np.eye(2))
