"""Whole protocols on pairs whose answers are known."""

import math
from functools import partial

import cv2
import numpy as np
import pytest

from cv_superpoint.evaluation import detectors, metrics
from cv_superpoint.evaluation.datasets import ImagePair
from cv_superpoint.evaluation.measure import evaluate_pairs, find_turned, fit_pair, measure
from cv_superpoint.evaluation.predictions import Detections, detect
from cv_superpoint.evaluation.protocols import PROTOCOLS, Fit
from cv_superpoint.evaluation.results import summarise
from cv_superpoint.geometry import inside, warp_points


class PerfectDetector:
    """Finds 400 world points in images of known origin, and describes each alike."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.world = rng.uniform(0, 512, (400, 2))
        self.scores = rng.permutation(400) / 400
        rows = rng.normal(size=(400, 32))
        self.rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.views = {}

    def tell(self, image, homography):
        self.views[image.tobytes()] = homography

    def tell_pair(self, pair, protocol):
        """Window 0 starts at (40, 60) of the world."""
        for step in protocol.passes:
            (image0, image1), h_0to1 = fit_pair(pair, step.fit)
            to_fitted = step.fit.apply(pair.images[0])[1]
            window = np.array([[1, 0, -40], [0, 1, -60], [0, 0, 1.0]])
            self.tell(image0, to_fitted @ window)
            self.tell(image1, h_0to1 @ to_fitted @ window)

    def detectAndCompute(self, image, mask):  # noqa: N802
        points = warp_points(self.views[image.tobytes()], self.world)
        seen = inside(points, image.shape)
        keypoints = tuple(
            cv2.KeyPoint(float(x), float(y), 1, -1, float(score))
            for (x, y), score in zip(points[seen], self.scores[seen], strict=True)
        )
        return keypoints, self.rows[seen]


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_perfect_detector_is_perfect_on_a_translation(shifted_pair, name):
    protocol, detector = PROTOCOLS[name], PerfectDetector()
    detector.tell_pair(shifted_pair, protocol)
    (result,) = evaluate_pairs([shifted_pair], partial(detect, detector), protocol)
    # The greedy suppression of `paper` picks the same points in both views, but at the borders.
    assert result.repeatability > 0.97 if name == "paper" else result.repeatability == 1
    assert result.localisation_error == pytest.approx(0, abs=0.02)
    # Points outside the shared view are matched too in all protocols but `paper`.
    assert result.match_precision > 0.9 if name != "paper" else result.match_precision == 1
    assert result.matching_score == 1
    assert result.corner_error == pytest.approx(0, abs=1e-2)
    assert result.inliers > 100


def test_repeatability_and_accuracy_of_the_summary(shifted_pair):
    protocol, detector = PROTOCOLS["plain"], PerfectDetector()
    detector.tell_pair(shifted_pair, protocol)
    results = list(evaluate_pairs([shifted_pair], partial(detect, detector), protocol))
    summary = summarise(results)
    assert set(summary) == {"all"}
    assert summary["all"]["accuracy_1"].value == 1
    assert summary["all"]["auc_5"].value == pytest.approx(1, abs=1e-2)
    assert math.isnan(summary["all"]["accuracy_1"].low), "one sequence allows no interval"


def test_sift_finds_an_integer_translation(shifted_pair):
    detector = detectors.build_detector("sift", quota=1000)
    (result,) = evaluate_pairs([shifted_pair], partial(detect, detector), PROTOCOLS["plain"])
    assert result.repeatability > 0.9
    assert result.localisation_error < 0.1
    assert result.corner_error < 0.1


def test_a_detector_that_finds_nothing_scores_nothing(shifted_pair):
    class Blind:
        def detectAndCompute(self, image, mask):  # noqa: N802
            return (), None

    for name in PROTOCOLS:
        (result,) = evaluate_pairs([shifted_pair], partial(detect, Blind()), PROTOCOLS[name])
        assert result.repeatability == 0
        assert math.isnan(result.localisation_error)
    assert summarise([result])["all"]["repeatability"].value == 0


def test_the_paper_counts_only_the_shared_view(shifted_pair):
    detector = detectors.build_detector("orb", quota=1000)
    step = PROTOCOLS["paper"].passes[1]
    (image0, image1), h_0to1 = fit_pair(shifted_pair, step.fit)
    found0, found1 = detect(detector, image0), detect(detector, image1)
    sizes = (image0.shape, image1.shape)
    counted = measure(found0, found1, h_0to1, sizes, step)["keypoints"]
    keep0, keep1 = metrics.shared_view(found0.points, found1.points, h_0to1, *sizes)
    assert counted == (keep0.sum() + keep1.sum()) / 2 < (len(found0) + len(found1)) / 2


def test_matches_of_another_matcher_can_be_measured(shifted_pair):
    detector = detectors.build_detector("sift", quota=1000)
    step = PROTOCOLS["plain"].passes[0]
    found0, found1 = (detect(detector, image) for image in shifted_pair.images)
    sizes = (shifted_pair.images[0].shape, shifted_pair.images[1].shape)
    distances = metrics.pixel_distances(
        warp_points(shifted_pair.h_0to1, found0.points), found1.points
    )
    true = metrics.mutual_matches(distances)
    true = true[distances[true[:, 0], true[:, 1]] < 1]
    measured = measure(found0, found1, shifted_pair.h_0to1, sizes, step, matches=true)
    assert measured["match_precision"] == 1
    assert measured["matches"] == measured["inliers"] == len(true)
    assert measured["corner_error"] < 0.1
    assert "nn_map" not in measured


def test_rotation_search_recovers_a_turned_image(photograph):
    image = np.ascontiguousarray(photograph[:300, :400])
    turned = np.ascontiguousarray(np.rot90(image))
    h_0to1 = np.array([[0, 1, 0], [-1, 0, 399], [0, 0, 1.0]])
    pair = ImagePair(
        name="v_turn 1-2",
        sequence="v_turn",
        kind="viewpoint",
        images=(image, turned),
        h_0to1=h_0to1,
        keys=("1", "2"),
    )
    # SIFT without orientation: every keypoint is described as if it were upright.
    sift = cv2.SIFT_create()

    class Upright:
        def detectAndCompute(self, image, mask):  # noqa: N802
            keypoints = [
                cv2.KeyPoint(*k.pt, k.size, 0, k.response, k.octave) for k in sift.detect(image)
            ]
            return sift.compute(image, keypoints)

    find = partial(detect, Upright())
    (plain,) = evaluate_pairs([pair], find, PROTOCOLS["plain"])
    (search,) = evaluate_pairs([pair], find, PROTOCOLS["plain"], rotations=(0, 90, 180, 270))
    assert search.rotation == 270
    assert search.match_precision > 0.9 > 0.3 > plain.match_precision
    assert search.corner_error < 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_points_of_a_turned_image_come_back(rotation):
    image = np.zeros((30, 50), np.uint8)
    image[7, 40] = 255

    def brightest(image):
        y, x = np.unravel_index(image.argmax(), image.shape)
        return Detections(
            points=np.array([[x, y]], np.float64),
            scores=np.ones(1),
            descriptors=np.ones((1, 4), np.float32),
            binary=False,
        )

    assert find_turned(brightest, image, rotation).points.tolist() == [[40, 7]]


@pytest.mark.parametrize(
    ("fit", "size"),
    [
        (Fit(rule="cover", size=(120, 160)), (120, 160)),
        (Fit(rule="cover", size=(480, 640)), (480, 640)),
        (Fit(rule="shorter", side=200), (200, 267)),
        (Fit(rule="longer", side=150, enlarge=False), (112, 150)),
        (Fit(rule="longer", side=900, enlarge=False), (300, 400)),
        (Fit(rule="keep"), (300, 400)),
    ],
)
def test_fitting_moves_content_where_its_matrix_says(fit, size):
    y, x = np.mgrid[:300, :400]
    spot = np.exp(-((x - 170.3) ** 2 + (y - 140.6) ** 2) / (2 * 12**2))
    fitted, matrix = fit.apply((spot * 255).astype(np.uint8))
    assert fitted.shape == size
    weights = np.maximum(fitted.astype(np.float64) - 20, 0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = [(weights * grid).sum() / weights.sum() for grid in (columns, rows)]
    np.testing.assert_allclose(
        centre, warp_points(matrix, np.array([[170.3, 140.6]]))[0], atol=0.05
    )


def test_harris_has_no_descriptors_and_is_not_matched(photograph, shifted_pair):
    detector = detectors.build_detector("harris", quota=100)
    found = detect(detector, photograph)
    assert len(found) > 100
    assert not found.described
    (result,) = evaluate_pairs([shifted_pair], partial(detect, detector), PROTOCOLS["plain"])
    assert result.repeatability > 0.9
    assert math.isnan(result.corner_error)
    assert math.isnan(summarise([result])["all"]["accuracy_1"].value)
