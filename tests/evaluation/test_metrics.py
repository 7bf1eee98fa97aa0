"""Metric functions on hand-made points whose answers are known."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cv_superpoint.evaluation import metrics, statistics
from cv_superpoint.geometry import corner_error, inside, warp_points

IDENTITY = np.eye(3)
SHIFT = np.array([[1, 0, 10], [0, 1, -5], [0, 0, 1.0]])

coordinates = st.floats(0, 300, width=32)
point_sets = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=coordinates)


@st.composite
def homographies(draw):
    a, b, c, d = (draw(st.floats(-0.3, 0.3)) for _ in range(4))
    p, q = (draw(st.floats(-3e-4, 3e-4)) for _ in range(2))
    x, y = (draw(st.floats(-50, 50)) for _ in range(2))
    return np.array([[1 + a, b, x], [c, 1 + d, y], [p, q, 1]])


def test_warp_points_translates_and_keeps_infinity():
    np.testing.assert_allclose(warp_points(SHIFT, np.array([[1, 2]])), [[11, -3]])
    to_infinity = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.0]])
    warped = warp_points(to_infinity, np.array([[0, 3], [0, 0]]))
    assert np.isinf(warped).all()
    assert warp_points(SHIFT, np.zeros((0, 2))).shape == (0, 2)


@given(point_sets, homographies(), st.floats(0.1, 10), st.booleans())
def test_warp_points_ignores_the_scale_of_the_homography(points, homography, scale, negative):
    expected = warp_points(homography, points)
    scaled = warp_points(homography * (-scale if negative else scale), points)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-9)


def test_inside_reaches_from_the_first_to_the_last_pixel_centre():
    points = np.array([[0, 0], [9, 4], [9.1, 4], [9, 4.1], [-0.1, 0]])
    assert inside(points, (5, 10)).tolist() == [True, True, False, False, False]


def test_shared_view_of_a_translation():
    points = np.array([[0.0, 10], [12, 3], [12, 12]])
    keep0, keep1 = metrics.shared_view(points, points, SHIFT, (20, 20), (20, 20))
    assert keep0.tolist() == [True, False, False]
    assert keep1.tolist() == [False, True, True]


def test_suppression_keeps_the_strongest_of_neighbours():
    points = np.array([[10, 10], [14, 10], [15, 10], [10, 15.4], [12, 12]])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.95])
    assert metrics.suppress_neighbours(points, scores, 4).tolist() == [4]
    assert metrics.suppress_neighbours(points[:4], scores[:4], 4).tolist() == [0, 2, 3]
    assert metrics.suppress_neighbours(points[:0], scores[:0], 4).size == 0


@given(point_sets, st.randoms(use_true_random=False))
def test_suppressed_points_are_apart_and_cover_the_rest(points, random):
    scores = np.array([random.random() for _ in points])
    kept = np.rint(points[metrics.suppress_neighbours(points, scores, 4)])
    apart = np.abs(kept[:, None] - kept[None]).max(axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (apart > 4).all()
    near = np.abs(np.rint(points)[:, None] - kept[None]).max(axis=-1)
    assert (near.min(axis=1) <= 4).all()


def test_repeatability_counts_by_hand():
    points0 = np.array([[50.0, 50], [80, 50], [20, 90]])
    points1 = np.array([[60.0, 45], [92, 45], [200, 200], [92.5, 45]])
    # Warped points of image 0: (60, 45), (90, 45), (30, 85): two repeat, at 0 and 2 px; of image
    # 1 three of four repeat, at 0, 2 and 2.5 px.
    rate, error = metrics.repeatability(points0, points1, SHIFT)
    assert rate == pytest.approx(5 / 7)
    assert error == pytest.approx((0 + 2 + 0 + 2 + 2.5) / 5)
    rate, error = metrics.repeatability(points0, points1, SHIFT, pooled=False)
    assert rate == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert error == pytest.approx((1 + 1.5) / 2)


def test_repeatability_of_nothing():
    empty = np.zeros((0, 2))
    for points0, points1 in ((empty, empty), (empty, np.ones((3, 2)))):
        rate, error = metrics.repeatability(points0, points1, IDENTITY)
        assert rate == 0
        assert math.isnan(error)
    rate, error = metrics.repeatability(np.zeros((1, 2)), np.full((1, 2), 50.0), IDENTITY)
    assert rate == 0
    assert math.isnan(error)


@given(point_sets, point_sets, homographies(), st.booleans())
@settings(max_examples=50)
def test_repeatability_is_the_same_with_the_images_swapped(points0, points1, homography, pooled):
    assume(abs(np.linalg.det(homography)) > 0.1)
    forward = metrics.repeatability(points0, points1, homography, pooled=pooled)
    backward = metrics.repeatability(points1, points0, np.linalg.inv(homography), pooled=pooled)
    scaled = metrics.repeatability(points0, points1, homography * -3, pooled=pooled)
    # Rounding may move a distance across the threshold, by one point of at least two.
    assert forward == pytest.approx(backward, nan_ok=True, abs=1e-6)
    assert forward == pytest.approx(scaled, nan_ok=True, abs=1e-6)


@given(point_sets, homographies())
def test_warped_points_repeat_without_error(points, homography):
    assume(abs(np.linalg.det(homography)) > 0.1)
    warped = warp_points(homography, points)
    assume(np.isfinite(warped).all() and np.abs(warped).max() < 1e4)
    rate, error = metrics.repeatability(points, warped, homography)
    assert rate == 1
    assert error == pytest.approx(0, abs=1e-6)


def test_each_corner_is_found_once_by_the_strongest():
    points = np.array([[10.0, 10], [11, 10], [30, 30], [53, 50]])
    scores = np.array([0.5, 0.9, 0.8, 0.7])
    corners = np.array([[10.0, 10], [50, 50]])
    distances = metrics.match_detections(points, scores, corners)
    assert distances.tolist() == [math.inf, 1, math.inf, 3]
    assert np.isinf(metrics.match_detections(points, scores, np.zeros((0, 2)))).all()


def test_corners_that_suppression_cannot_tell_apart_count_as_one():
    corners = np.array([[10.0, 10], [13, 12], [50, 50], [55, 50]])
    groups = metrics.group_corners(corners, 4)
    assert groups.tolist() == [0, 0, 2, 3]
    points = np.array([[13.0, 12], [9, 10], [50, 51], [90, 90]])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    # The second corner is found; the first, of the same group, is neither right nor false then.
    np.testing.assert_array_equal(
        metrics.match_detections(points, scores, corners, groups=groups), [0, np.nan, 1, np.inf]
    )
    assert metrics.group_corners(np.zeros((0, 2)), 4).tolist() == []


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(0, 60)))
def test_perfect_detections_after_suppression_find_every_group(corners):
    groups = metrics.group_corners(corners, 4)
    scores = -np.arange(len(corners), dtype=float)
    kept = metrics.suppress_neighbours(corners, scores, 4)
    distances = metrics.match_detections(corners[kept], scores[kept], corners, 4.0, groups)
    assert (distances == 0).all()
    assert len(kept) == len(np.unique(groups))


def test_descriptor_distances_against_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(4, 8))
    expected = np.linalg.norm(a[:, None] - b[None], axis=-1)
    np.testing.assert_allclose(metrics.descriptor_distances(a, b, binary=False), expected, 1e-5)
    bits = np.array([[0b1010, 255]], np.uint8)
    other = np.array([[0b0110, 255], [0b1010, 0]], np.uint8)
    assert metrics.descriptor_distances(bits, other, binary=True).tolist() == [[2, 8]]


def test_mutual_matches():
    distances = np.array([[1, 5, 9], [2, 9, 9], [9, 3, 4]])
    assert metrics.mutual_matches(distances).tolist() == [[0, 0], [2, 1]]
    assert metrics.mutual_matches(np.zeros((0, 4))).shape == (0, 2)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        unique=True,
        elements=st.floats(0, 1),
    )
)
def test_mutual_matches_do_not_depend_on_the_direction(distances):
    forward = {tuple(pair) for pair in metrics.mutual_matches(distances).tolist()}
    backward = {(j, i) for i, j in metrics.mutual_matches(distances.T).tolist()}
    assert forward == backward
    assert forward  # The smallest distance of all is always mutual.


def test_precision_and_matching_score():
    points0 = np.array([[0.0, 10], [20, 20], [30, 30]])
    points1 = np.array([[10.0, 5], [30, 19], [90, 90], [0, 0]])
    errors = metrics.match_errors(points0, points1, np.array([[0, 0], [1, 1], [2, 2]]), SHIFT)
    np.testing.assert_allclose(errors, [0, 4, np.hypot(50, 65)])
    assert metrics.match_precision(errors) == pytest.approx(1 / 3)
    assert metrics.matching_score(errors, 3, 4) == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert metrics.matching_score(errors, 3, 4, of_smaller=True) == pytest.approx(1 / 3)
    assert metrics.match_precision(errors[:0]) == 0
    assert metrics.matching_score(errors[:0], 0, 4) == 0


def test_average_precision_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, False, True, False])
    assert metrics.average_precision(scores, correct) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(scores, correct, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert metrics.average_precision(scores, np.zeros(4, bool)) == 0
    assert metrics.average_precision(scores, np.ones(4, bool)) == 1


@given(st.permutations(range(6)))
def test_average_precision_does_not_depend_on_the_order_of_ties(order):
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1, 0.1])[order]
    correct = np.array([True, True, False, False, True, False])[order]
    expected = (1 + 2 / 4 + 3 / 6) / 3
    assert metrics.average_precision(scores, correct) == pytest.approx(expected)


def test_nearest_neighbour_map_ranks_both_directions():
    points = np.array([[10.0, 10], [50, 50], [90, 90]])
    distances = np.array([[0.1, 1, 1], [1, 0.2, 1], [1, 1, 0.3]])
    assert metrics.nearest_neighbour_map(distances, points, points, IDENTITY) == 1
    # The closest neighbour of all is wrong, the other two are right, in both directions.
    wrong = np.array([[1, 1, 0.1], [1, 0.2, 1], [0.3, 1, 1]])
    moved = points[[2, 1, 2]]
    value = metrics.nearest_neighbour_map(wrong, points, moved, IDENTITY)
    assert value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.nearest_neighbour_map(np.zeros((0, 3)), points[:0], points, IDENTITY) == 0


def test_corner_error_is_the_mean_over_corners():
    assert corner_error(SHIFT, IDENTITY, (48, 64)) == pytest.approx(math.hypot(10, 5))
    assert corner_error(SHIFT * -2, SHIFT, (48, 64)) == pytest.approx(0)
    assert corner_error(None, SHIFT, (48, 64)) == math.inf
    stretch = np.diag([2.0, 1, 1])
    assert corner_error(stretch, IDENTITY, (11, 21)) == pytest.approx(10)


def test_accuracy_and_area_under_the_curve():
    errors = np.array([0.5, 2.0, math.inf])
    assert statistics.accuracy(errors, 2.0) == pytest.approx(2 / 3)
    # Up to 1 px, recall rises along a line to 1/3 at 0.5 and stays.
    expected = (0.5 * (1 / 3) / 2 + 0.5 / 3) / 1
    assert statistics.area_under_curve(errors, 1.0) == pytest.approx(expected)
    assert statistics.area_under_curve(np.zeros(4), 3.0) == 1
    assert statistics.area_under_curve(np.full(4, math.inf), 3.0) == 0
    assert statistics.area_under_curve(np.zeros(0), 3.0) == 0


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 20)))
def test_area_lies_near_the_exact_one(errors):
    area = statistics.area_under_curve(errors, 5.0)
    exact = 1 - (np.minimum(errors, 5) / 5).mean()
    assert exact - 1e-9 <= area <= exact + 1 / (2 * len(errors)) + 1e-9


def test_bootstrap_resamples_whole_groups():
    values = np.array([0.0, 0, 0, 1, 1, 1])
    groups = ["a"] * 3 + ["b"] * 3
    interval = statistics.bootstrap_interval(values, groups, statistics.finite_mean)
    # Two groups: every resample's mean is 0, 0.5 or 1.
    assert interval == (0, 1)
    one = statistics.bootstrap_interval(values, ["a"] * 6, statistics.finite_mean)
    assert math.isnan(one.low)


def test_bootstrap_covers_the_mean_of_many_groups():
    values = np.random.default_rng(0).normal(5, 1, 400)
    groups = [str(i) for i in range(400)]
    low, high = statistics.bootstrap_interval(values, groups, statistics.finite_mean)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert low < 5 < high
    again = statistics.bootstrap_interval(values, groups, statistics.finite_mean)
    assert (low, high) == again


def test_paired_differences_leave_out_what_both_sides_share():
    rng = np.random.default_rng(0)
    groups = [f"photograph {index // 8}" for index in range(512)]
    hard = rng.normal(0.7, 0.2, 512)  # 0.2 between pairs, 0.01 between the two sides
    before, after = hard + rng.normal(0, 0.01, (2, 512))
    found = statistics.paired_difference(after - 0.005, before, groups)
    assert found.value == pytest.approx((after - 0.005 - before).mean())
    assert found.low < found.value < found.high < 0
    assert found.high - found.low < 0.004
    one_side = statistics.estimate(before, groups)
    assert one_side.high - one_side.low > 5 * (found.high - found.low)
    after[::2] = math.nan
    assert statistics.paired_difference(after, before, groups).count == 256


def test_mcnemar_counts_the_pairs_that_changed():
    before, after = np.zeros(20, bool), np.zeros(20, bool)
    assert statistics.mcnemar(before, after) == (0, 0, 1.0)
    before[:9] = True
    after[8:10] = True
    # 8 lost against 1 gained: 2 * (1 + 9) / 2 ** 9.
    assert statistics.mcnemar(before, after) == (1, 8, pytest.approx(20 / 512))
    assert statistics.mcnemar(after, before) == (8, 1, pytest.approx(20 / 512))


@given(hnp.arrays(bool, (2, 40)))
def test_mcnemar_is_the_binomial_test_of_what_changed(sides):
    gained, lost, probability = statistics.mcnemar(*sides)
    assert gained - lost == sides[1].sum() - sides[0].sum()
    assert gained + lost == (sides[0] != sides[1]).sum()
    if gained + lost:
        exact = scipy.stats.binomtest(gained, gained + lost).pvalue
        assert probability == pytest.approx(exact)


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_exact_interval_is_that_of_clopper_and_pearson(counts):
    hits, count = counts
    expected = scipy.stats.binomtest(hits, count).proportion_ci(method="exact")
    assert statistics.exact_interval(hits, count) == pytest.approx(tuple(expected), abs=1e-12)


def test_an_interval_of_nothing_is_refused():
    for hits, count in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="between 0 and count"):
            statistics.exact_interval(hits, count)


def test_estimate_leaves_out_what_was_not_measured():
    estimate = statistics.estimate(np.array([1.0, math.nan, 3.0]), ["a", "b", "c"], resamples=50)
    assert estimate.value == 2
    assert estimate.count == 2
    assert math.isnan(statistics.estimate(np.array([math.nan]), ["a"]).value)
