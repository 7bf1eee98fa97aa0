"""The number of false alarms: its formula, what it must not depend on, and real pairs."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import FLOAT32

from cv_superpoint import Features, SuperPointFeature2D, match_features, match_pair
from cv_superpoint.cli import main
from cv_superpoint.matching import verdict
from cv_superpoint.matching.estimators import robust_model
from cv_superpoint.matching.verdict import LIMIT, log_false_alarms

SIZE = (480, 640)
TRUTH = np.array([[0.9, -0.2, 30], [0.15, 1.1, -12], [2e-4, -1e-4, 1]])


def features(points: Any, seed: int = 0, size: tuple[int, int] = SIZE) -> Features:
    count = len(points)
    rows = np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32)
    return Features(
        keypoints=np.asarray(points, np.float32),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        sizes=np.full(count, 8, np.float32),
        octaves=np.zeros(count, np.int32),
        image_size=size,
    )


def scattered(random: np.random.Generator, count: int) -> Any:
    return random.uniform((0, 0), (SIZE[1] - 1, SIZE[0] - 1), (count, 2))


def agreeing(count: int, right: int, *, seed: int = 0, noise: float = 0.5) -> tuple[Any, Any, Any]:
    """Features of two images and their matches, of which so many agree with the homography."""
    random = np.random.default_rng(seed)
    first = scattered(random, count)
    ahead = np.c_[first, np.ones(count)] @ TRUTH.T
    second = ahead[:, :2] / ahead[:, 2:] + random.normal(0, noise, first.shape)
    second[right:] = scattered(random, count - right)
    return features(first), features(second), np.stack([np.arange(count)] * 2, axis=1)


# ---- the formula ----


@pytest.mark.parametrize(
    ("kind", "sample", "solutions"),
    [("homography", 4, 1), ("fundamental", 7, 3), ("essential", 5, 10)],
)
def test_it_is_the_formula_of_the_papers(kind: Any, sample: int, solutions: int) -> None:
    # With points spread evenly the density is 1 / area, and every error is the same.
    y, x = np.mgrid[20:460:40, 20:620:40]
    first = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    count, error = len(first), 2.0
    if kind == "homography":
        matrix, chance = np.eye(3), math.pi * error**2 / (SIZE[0] * SIZE[1])
        second = first + np.array([error, 0])
    else:
        # A sideways motion: lines are rows.
        matrix = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]])
        second = first + np.array([7, error])
        diagonal = math.hypot(*np.ptp(first, axis=0))
        chance = 2 * error * diagonal / (SIZE[0] * SIZE[1])
    rows = np.stack([np.arange(count)] * 2, axis=1)
    expected = math.log10(3 * solutions * (count - sample))
    expected += math.log10(math.comb(count, sample)) + (count - sample) * math.log10(chance)
    found = log_false_alarms(features(first), features(second), rows, matrix, kind, tries=3)
    # The grid's neighbours stand 40 px apart, which the density within 35 px cannot see.
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_best_number_of_inliers_is_taken() -> None:
    one, other, rows = agreeing(60, 20)
    errors = np.linalg.norm(
        cv2.perspectiveTransform(one.keypoints[None].astype(float), TRUTH)[0] - other.keypoints,
        axis=1,
    )
    back = cv2.perspectiveTransform(other.keypoints[None].astype(float), np.linalg.inv(TRUTH))[0]
    errors = np.sort(np.maximum(errors, np.linalg.norm(back - one.keypoints, axis=1)))
    density = max(verdict._density(one), verdict._density(other))
    values = [
        math.log10(56 * math.comb(60, k) * math.comb(k, 4))
        + (k - 4) * math.log10(min(1, math.pi * density * max(errors[k - 1], 0.5) ** 2))
        for k in range(5, 61)
    ]
    found = log_false_alarms(one, other, rows, TRUTH, "homography")
    assert found == pytest.approx(min(values), abs=1e-6)
    assert np.argmin(values) + 5 in range(18, 23)


# ---- what it must and must not depend on ----


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(5, 120),
    share=st.floats(0, 1),
    scale=st.sampled_from([1e-6, 1.0, -3.0, 1e8]),
)
def test_order_direction_and_scale_do_not_matter(
    seed: int, count: int, share: float, scale: float
) -> None:
    one, other, rows = agreeing(count, int(share * count), seed=seed)
    found = log_false_alarms(one, other, rows, TRUTH, "homography")
    shuffled = np.random.default_rng(seed).permutation(rows)
    again = log_false_alarms(one, other, shuffled, TRUTH * scale, "homography")
    assert again == pytest.approx(found, abs=1e-6)
    back = log_false_alarms(other, one, rows[:, ::-1], np.linalg.inv(TRUTH), "homography")
    assert back == pytest.approx(found, abs=1e-6)
    assert log_false_alarms(one, other, rows, TRUTH, "homography", tries=4) == pytest.approx(
        found + math.log10(4), abs=1e-6
    )


def test_more_inliers_are_better_and_wrong_matches_worse() -> None:
    by_right = [
        log_false_alarms(*agreeing(80, right), TRUTH, "homography") for right in (5, 8, 12, 20, 80)
    ]
    assert by_right == sorted(by_right, reverse=True)
    assert by_right[0] > LIMIT > by_right[2]
    by_wrong = [
        log_false_alarms(*agreeing(count, 10), TRUTH, "homography") for count in (10, 40, 200, 800)
    ]
    assert by_wrong == sorted(by_wrong)


def test_a_model_that_maps_everything_to_one_spot_is_no_evidence() -> None:
    random = np.random.default_rng(0)
    first = scattered(random, 200)
    second = np.concatenate([random.normal((320, 240), 1, (100, 2)), scattered(random, 100)])
    collapse = np.array([[1e-6, 0, 320], [0, 1e-6, 240], [0, 0, 1]])
    rows = np.stack([np.arange(200)] * 2, axis=1)
    assert log_false_alarms(features(first), features(second), rows, collapse, "homography") > 0
    singular = np.array([[0.0, 0, 320], [0, 0, 240], [0, 0, 1]])
    assert log_false_alarms(features(first), features(second), rows, singular, "homography") > 0


def test_the_same_point_twice_is_one_observation() -> None:
    one, other, rows = agreeing(40, 7)
    alone = log_false_alarms(one, other, rows, TRUTH, "homography")
    repeated = np.concatenate([rows, rows[:7], rows[:7]])
    assert log_false_alarms(one, other, repeated, TRUTH, "homography") == pytest.approx(alone)


def test_points_that_crowd_together_agree_by_chance() -> None:
    random = np.random.default_rng(1)
    rows = np.stack([np.arange(30)] * 2, axis=1)
    wide = agreeing(30, 9)
    crowd = random.uniform(200, 260, (30, 2))
    second = crowd + random.normal(0, 0.5, crowd.shape)
    second[9:] = random.uniform(200, 260, (21, 2))
    crowded = log_false_alarms(features(crowd), features(second), rows, np.eye(3), "homography")
    assert crowded > log_false_alarms(*wide, TRUTH, "homography") + 4


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_too_few_matches_are_no_evidence(count: int) -> None:
    one, other, rows = agreeing(count, count)
    kind: Any = "fundamental" if count == 7 else "homography"
    assert log_false_alarms(one, other, rows, np.eye(3), kind) == math.inf


def test_chance_is_what_it_says_it_is() -> None:
    # Of 300 sets of random matches at most the limit's share and a little may pass.
    passed = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        one, other = (
            features(scattered(random, 60), seed),
            features(scattered(random, 60), -seed % 97),
        )
        rows = np.stack([np.arange(60)] * 2, axis=1)
        best = min(
            log_false_alarms(
                one,
                other,
                rows,
                cv2.getPerspectiveTransform(one.keypoints[list(four)], other.keypoints[list(four)]),
                "homography",
            )
            for four in list(combinations(range(8), 4))[::7]
        )
        passed += best <= LIMIT
    assert passed <= 3


# ---- in match_pair ----


@pytest.fixture(scope="module")
def found() -> dict[str, Features]:
    detector = SuperPointFeature2D.create(600, **FLOAT32)
    images = {
        "coffee": skimage.data.coffee(),
        "astronaut": skimage.data.astronaut(),
        "cat": skimage.data.chelsea(),
        "rocket": skimage.data.rocket(),
        "motorcycle": skimage.data.stereo_motorcycle()[0],
        "other eye": skimage.data.stereo_motorcycle()[1],
        "camera": skimage.data.camera(),
        "brick": skimage.data.brick(),
        "page": skimage.data.page(),
    }
    turn = cv2.getRotationMatrix2D((300, 200), 25, 0.7)
    images["coffee again"] = cv2.warpAffine(images["coffee"], turn, (600, 400))
    return {name: detector.extract(np.ascontiguousarray(image)) for name, image in images.items()}


RELATED = {("coffee", "coffee again"), ("motorcycle", "other eye")}


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_related_photographs_are_told_from_unrelated_ones(
    model: Any, found: dict[str, Features]
) -> None:
    called = {
        pair
        for pair in combinations(sorted(found), 2)
        if match_features(found[pair[0]], found[pair[1]], model=model).reliable
    }
    assert called == RELATED


def test_match_pair_counts_its_tries(found: dict[str, Features]) -> None:
    class Given:
        def extract(self, image: Any, mask: Any = None) -> Features:
            return found["coffee" if image[0, 0] == 0 else "coffee again"]

    zeros, ones = np.zeros((400, 600), np.uint8), np.ones((400, 600), np.uint8)
    once = match_pair(zeros, ones, Given())
    assert once.reliable
    assert (
        once.log_false_alarms
        == match_features(found["coffee"], found["coffee again"]).log_false_alarms
    )
    twice = match_pair(zeros, ones, Given(), rotations=(0, 180))
    assert twice.log_false_alarms - once.log_false_alarms == pytest.approx(math.log10(2))


def test_without_a_model_nothing_is_reliable(found: dict[str, Features]) -> None:
    result = match_features(found["cat"][:3], found["cat"][:3])
    assert result.log_false_alarms == math.inf
    assert not result.reliable


def test_matches_on_which_opencvs_magsac_asserts() -> None:
    random = np.random.default_rng(206)
    first = random.uniform(0, 400, (9, 2))
    second = cv2.perspectiveTransform(first[None], TRUTH)[0] + random.normal(0, 0.3, (9, 2))
    second[0] += 60
    points = first.astype(np.float32), second.astype(np.float32)

    def find(method: int) -> Any:
        return cv2.findFundamentalMat(*points, method, 1.0, 0.9999, 10_000)

    # OpenCV 4.14 and 5.0 end with an assertion of their local optimisation here.
    matrix, inliers = robust_model(find)
    assert matrix is not None
    assert inliers.sum() >= 7
    rows = np.eye(9, 64, dtype=np.float32)
    sets = [features(each) for each in points]
    result = match_features(
        *(Features(**{**vars(each), "descriptors": rows}) for each in sets),
        model="fundamental",
        threshold=1.0,
    )
    assert result.fundamental is not None


# ---- in the command ----


@pytest.mark.parametrize("model", ["homography", "fundamental", "essential"])
def test_the_command_tells_and_its_exit_code_too(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left, right, _ = skimage.data.stereo_motorcycle()
    for name, image in (
        ("left", left[:400]),
        ("right", right[:400]),
        ("cat", skimage.data.chelsea()),
    ):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)

    def match(one: str, other: str, *more: str) -> tuple[int, str, str]:
        paths = [str(tmp_path / f"{name}.png") for name in (one, other)]
        code = main(
            ["match", *paths, "-o", str(tmp_path / "out"), "--model", model, "-k", "400", *more]
        )
        said = capfd.readouterr()
        return code, said.out, said.err

    code, out, _ = match("left", "right", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["reliable"] is True
    assert report["log_false_alarms"] <= LIMIT
    code, out, error = match("left", "cat", "--json")
    assert code == 1
    report = json.loads(out)
    assert report["reliable"] is False
    assert model in report or report["log_false_alarms"] is None
    assert error.count("\n") == 1
    if model in report:
        assert report["log_false_alarms"] > LIMIT
        assert f"the {model} is not reliable" in error
    code, out, error = match("left", "cat")
    assert code == 1
    assert "not reliable" in error or "too few matches" in error
    assert (tmp_path / "out" / "matches.png").exists()
