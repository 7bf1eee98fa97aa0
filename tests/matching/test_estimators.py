"""Models of matches of which some are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint import FeatureError
from cv_superpoint.geometry import HomographyConfig, corner_error, sample_homography, warp_points
from cv_superpoint.matching.estimators import (
    ESTIMATORS,
    KEYPOINT_DEVIATION,
    find_model,
    fit_homography,
    misses,
)

SIZE = (480, 640)


def matches(seed: int, count: int, noise: float, wrong: float) -> tuple[Any, Any, Any]:
    """Points of both images, and the homography between them."""
    rng = np.random.default_rng(seed)
    truth = sample_homography(rng, SIZE, HomographyConfig())
    points0 = rng.uniform((0, 0), (639, 479), (count, 2))
    # A normal distribution with the tails that keypoints have.
    points1 = warp_points(truth, points0) + noise * rng.standard_t(2, (count, 2))
    astray = rng.random(count) < wrong
    points1[astray] = rng.uniform((0, 0), (639, 479), (int(astray.sum()), 2))
    return points0.astype(np.float32), points1.astype(np.float32), truth


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), wrong=st.floats(0, 0.4))
def test_a_fit_is_the_truth_of_exact_matches(seed: int, wrong: float) -> None:
    points0, points1, truth = matches(seed, 80, 0.0, wrong)
    start = truth + np.random.default_rng(seed).normal(
        0, [[1e-3] * 2 + [0.3]] * 2 + [[1e-6] * 2 + [0]]
    )
    fitted = fit_homography(points0, points1, start, reach=8)
    assert corner_error(fitted, truth, SIZE) < 0.05


def test_least_squares_are_closer_to_the_truth_than_samples() -> None:
    errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for seed in range(30):
        points0, points1, truth = matches(seed, 150, 0.4, 0.3)
        for name in ESTIMATORS:
            found, inliers = find_model(points0, points1, estimator=name)
            assert inliers.shape == (150,)
            errors[name].append(corner_error(found, truth, SIZE))
    medians = {name: np.median(each) for name, each in errors.items()}
    assert medians["least-squares"] < 0.9 * min(medians["magsac"], medians["ransac"])
    assert max(errors["least-squares"]) < 2


def test_what_is_known_of_a_match_counts() -> None:
    """Half of the matches are known to a tenth of a pixel, half to a pixel."""
    gains = []
    for seed in range(20):
        points0, points1, truth = matches(seed, 60, 0.0, 0.0)
        deviation = np.where(np.arange(60) % 2, 0.1, 1.0)
        points1 = points1 + np.random.default_rng(seed).normal(0, deviation[:, None], (60, 2))
        each = [
            corner_error(fit_homography(points0, points1, truth, reach=8, deviation=d), truth, SIZE)
            for d in (deviation, None)
        ]
        gains.append(each[0] / each[1])
    assert np.median(gains) < 0.9
    assert KEYPOINT_DEVIATION < 1


def test_what_has_no_model_has_none() -> None:
    for count in (0, 3):
        matrix, inliers = find_model(np.zeros((count, 2)), np.zeros((count, 2)))
        assert matrix is None
        assert inliers.shape == (count,)
    line = np.stack([np.arange(50.0), np.arange(50.0)], axis=1)
    for name in ESTIMATORS:
        matrix, inliers = find_model(line, line, estimator=name)
        assert matrix is None or np.isfinite(matrix).all()
        assert inliers.shape == (50,)
    fitted = fit_homography(line, line, np.eye(3), reach=8)
    np.testing.assert_allclose(fitted, np.eye(3))
    few = fit_homography(line[:5], line[:5], np.eye(3), reach=8)
    np.testing.assert_array_equal(few, np.eye(3))


def test_a_point_on_the_horizon_misses_by_infinity() -> None:
    horizon = np.array([[1, 0, 0], [0, 1, 0], [1.0, 0, -5]])
    assert np.isinf(misses(horizon, np.array([[5.0, 5.0]]), np.zeros((1, 2)))).all()


def test_the_same_matches_give_the_same_model() -> None:
    points0, points1, _ = matches(1, 200, 0.5, 0.3)
    for name in ESTIMATORS:
        one, other = (find_model(points0, points1, estimator=name)[0] for _ in range(2))
        np.testing.assert_array_equal(one, other)


def test_wrong_estimators_are_told() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (20, 2))
    with pytest.raises(FeatureError, match="estimator must be one of least-squares"):
        find_model(points, points, estimator="lmeds")  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match="needs model='homography'"):
        find_model(points, points, model="fundamental", estimator="least-squares")
    matrix, inliers = find_model(points, points, model="fundamental", estimator="ransac")
    assert matrix is None or inliers.any()
