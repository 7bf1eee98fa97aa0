"""What SuperPointFeature2D promises beyond the forms of cv2's calls."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D, WeightsError


def make(**parameters: Any) -> SuperPointFeature2D:
    return SuperPointFeature2D.create(**{**PINNED, **parameters})


def positions(keypoints: Any) -> np.ndarray:
    return np.array([keypoint.pt for keypoint in keypoints]).reshape(-1, 2)


def test_keypoints_are_sorted_by_score_with_the_documented_fields(
    detector: SuperPointFeature2D, grey: np.ndarray
) -> None:
    keypoints, descriptors = detector.detectAndCompute(grey)
    responses = np.array([keypoint.response for keypoint in keypoints])
    assert len(keypoints) > 50
    assert np.all(np.diff(responses) <= 0)
    assert 0.5 < responses.max() < 1.5
    assert responses.min() > detector.getScoreThreshold()
    assert {(k.size, k.angle, k.octave, k.class_id) for k in keypoints} == {(8.0, -1.0, 0, -1)}
    assert descriptors.shape == (len(keypoints), detector.descriptorSize())
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)


def test_detect_and_compute_agree_with_detect_and_compute(
    detector: SuperPointFeature2D, bgr: np.ndarray
) -> None:
    keypoints, descriptors = detector.detectAndCompute(bgr, None)
    detected = detector.detect(bgr)
    kept, computed = detector.compute(bgr, keypoints)
    np.testing.assert_array_equal(positions(keypoints), positions(detected))
    np.testing.assert_array_equal(positions(keypoints), positions(kept))
    np.testing.assert_allclose(descriptors, computed, atol=1e-5)


@pytest.mark.parametrize("count", [1, 17, 60])
def test_max_keypoints_gives_exactly_the_best(
    detector: SuperPointFeature2D, grey: np.ndarray, count: int
) -> None:
    everything = detector.extract(grey)
    best = make(maxKeypoints=count).extract(grey)
    assert len(everything) > count
    np.testing.assert_array_equal(best.keypoints, everything.keypoints[:count])
    np.testing.assert_array_equal(best.scores, everything.scores[:count])
    np.testing.assert_array_equal(best.descriptors, everything.descriptors[:count])


def test_the_mask_acts_before_the_quota(detector: SuperPointFeature2D, grey: np.ndarray) -> None:
    mask = np.zeros_like(grey)
    mask[100:, 130:250] = 255
    inside = detector.extract(grey, mask)
    everything = detector.extract(grey)
    x, y = np.rint(everything.keypoints).astype(int).T
    np.testing.assert_array_equal(inside.keypoints, everything.keypoints[mask[y, x] > 0])
    assert 20 < len(inside) < len(everything)
    assert len(make(maxKeypoints=20).extract(grey, mask)) == 20


def test_compute_keeps_order_and_drops_what_lies_outside(
    detector: SuperPointFeature2D, grey: np.ndarray
) -> None:
    found = detector.detect(grey)[:20]
    outside = [cv2.KeyPoint(-0.6, 5, 8), cv2.KeyPoint(319.6, 5, 8), cv2.KeyPoint(1e30, 0, 8)]
    mixed = [found[7], outside[0], found[2], outside[1], found[11], outside[2], found[0]]
    kept, descriptors = detector.compute(grey, mixed)
    assert kept == (mixed[0], mixed[2], mixed[4], mixed[6])
    expected = detector.compute(grey, found)[1][[7, 2, 11, 0]]
    np.testing.assert_allclose(descriptors, expected, atol=1e-5)


def test_compute_on_the_outermost_pixels(detector: SuperPointFeature2D, grey: np.ndarray) -> None:
    corners = [(-0.5, -0.5), (319.5, -0.5), (-0.5, 239.5), (319.5, 239.5), (0, 239), (319, 0)]
    kept, descriptors = detector.compute(grey, [cv2.KeyPoint(x, y, 8) for x, y in corners])
    assert len(kept) == len(descriptors) == len(corners)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)


def test_provided_keypoints(detector: SuperPointFeature2D, grey: np.ndarray) -> None:
    keypoints = cv2.SIFT_create(30).detect(grey)
    kept, descriptors = detector.detectAndCompute(grey, None, None, True, keypoints=keypoints)
    assert kept == tuple(keypoints)
    np.testing.assert_array_equal(descriptors, detector.compute(grey, keypoints)[1])
    with pytest.warns(UserWarning, match="useProvidedKeypoints=True"):
        detector.detectAndCompute(grey, None, keypoints=keypoints)


@pytest.mark.parametrize("suffix", [".yml", ".json", ".xml", ".yml.gz"])
def test_parameters_survive_a_file(tmp_path: Any, grey: np.ndarray, suffix: str) -> None:
    saved = make(
        maxKeypoints=33,
        scoreThreshold=0.02,
        nmsRadius=3,
        subpixel=False,
        scales=(1.0, 0.5),
        scoreRadius=1,
    )
    path = str(tmp_path / f"detector{suffix}")
    saved.save(path)
    read = make()
    read.read(path)
    assert repr(read) == repr(saved)
    np.testing.assert_array_equal(read.extract(grey).keypoints, saved.extract(grey).keypoints)


def test_parameters_survive_a_node_beside_other_nodes(tmp_path: Any) -> None:
    path = str(tmp_path / "all.yml")
    saved = make(borderMargin=9)
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_WRITE)
    cv2.SIFT_create().write(storage, "sift")
    saved.write(storage, "superpoint")
    storage.release()
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
    read = make()
    read.read(storage.getNode("superpoint"))
    assert read.getBorderMargin() == 9
    with pytest.raises(FeatureError, match=r"Feature2D\.SIFT"):
        read.read(storage.getNode("sift"))
    with pytest.raises(FeatureError, match="must hold the parameters"):
        read.read(storage.getNode("nothing"))


def test_unreadable_files_are_named(tmp_path: Any) -> None:
    with pytest.raises(FeatureError, match="no file"):
        make().read(str(tmp_path / "missing.yml"))
    with pytest.raises(FeatureError, match="for writing"):
        make().write(str(tmp_path / "no" / "folder.yml"))
    with pytest.raises(FeatureError, match="file name"):
        make().write(3)


def test_every_parameter_has_a_getter_and_a_setter(grey: np.ndarray) -> None:
    changed: dict[str, Any] = {
        "MaxKeypoints": 5,
        "ScoreThreshold": 0.25,
        "NmsRadius": 7,
        "ScoreRadius": 1,
        "BorderMargin": 11,
        "Subpixel": False,
        "Scales": (1.0, 0.5),
        "TileSize": 256,
    }
    detector = make()
    for name, value in changed.items():
        assert getattr(detector, f"get{name}")() != value
        others = (0.25,) if name == "ScoreRadius" else ()
        getattr(detector, f"set{name}")(value, *others)
        assert getattr(detector, f"get{name}")() == value
    assert len(detector.detect(grey)) == 5
    assert make(tileSize=256).getTileSize() == 256


def test_a_threshold_belongs_to_its_radius() -> None:
    detector = make()
    recommended = detector.getScoreThreshold()
    with pytest.raises(FeatureError, match="threshold for the radius 1 too"):
        detector.setScoreRadius(1)
    assert (detector.getScoreThreshold(), detector.getScoreRadius()) == (recommended, 2)
    detector.setScoreRadius(1, 0.25)
    assert (detector.getScoreThreshold(), detector.getScoreRadius()) == (0.25, 1)
    detector.setScoreRadius(1)
    assert detector.getScoreThreshold() == 0.25
    with pytest.raises(FeatureError, match="threshold for the radius 1 too"):
        detector.setScoreThreshold(None)
    detector.setScoreRadius(None)
    assert (detector.getScoreThreshold(), detector.getScoreRadius()) == (recommended, 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"maxKeypoints": -2}, "max_keypoints"),
        ({"scoreThreshold": 1.5}, "score_threshold"),
        ({"scoreThreshold": float("nan")}, "score_threshold"),
        ({"nmsRadius": -1}, "nms_radius"),
        ({"scoreRadius": -1, "scoreThreshold": 0.1}, "score_radius"),
        ({"scoreRadius": 33, "scoreThreshold": 0.1}, "score_radius must be at most 32"),
        ({"scoreRadius": 9}, "threshold for the radius 9 too"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 1.0)}, "scales"),
        ({"precision": "int4"}, "precision"),
        ({"backend": "caffe"}, "backend"),
        ({"device": "abacus"}, "device"),
        ({"weights": "no-such-weights"}, "no-such-weights"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuperPointFeature2D.create(**parameters)


def test_missing_cuda_is_said() -> None:
    with pytest.raises(ValueError, match="CUDA devices found"):
        SuperPointFeature2D.create(device="cuda:63")


def test_weights_error_is_a_value_error() -> None:
    assert issubclass(WeightsError, ValueError)


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_threads_give_the_result_of_one_call(
    detector: SuperPointFeature2D, threads: int
) -> None:
    images = [
        skimage.data.camera()[:200, :301],
        skimage.data.coffee()[:120, :160],
        skimage.data.chelsea()[:200, :301],
        skimage.data.camera()[100:237, 5:118],
    ] * 2
    alone = [detector.extract(image) for image in images]
    other = make(threads=threads)
    batch = other.extractBatch(images)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(other.extract, images))
    for expected, *others in zip(alone, batch, together, strict=True):
        for other in others:
            np.testing.assert_array_equal(other.keypoints, expected.keypoints)
            np.testing.assert_array_equal(other.scores, expected.scores)
            np.testing.assert_array_equal(other.descriptors, expected.descriptors)


def test_a_list_gives_what_single_calls_give(detector: SuperPointFeature2D, bgr: Any) -> None:
    images = [bgr, bgr[:100, :130]]
    masks = [None, np.eye(100, 130, dtype=np.uint8) * 0 + 1]
    lists = detector.detect(images, masks)
    for image, keypoints in zip(images, lists, strict=True):
        np.testing.assert_array_equal(positions(keypoints), positions(detector.detect(image)))
    sets, rows = detector.compute(images, lists)
    assert [len(keypoints) for keypoints in sets] == [len(row) for row in rows]
    with pytest.raises(FeatureError, match="2 masks and 1 images"):
        detector.extractBatch([bgr], [None, None])


def test_results_feed_opencv_matching_and_homography(
    detector: SuperPointFeature2D, bgr: np.ndarray
) -> None:
    truth = np.array([[0.96, 0.12, 8.0], [-0.1, 0.97, 22.0], [1e-4, -5e-5, 1.0]])
    other = cv2.warpPerspective(bgr, truth, (320, 240))
    keypoints0, descriptors0 = detector.detectAndCompute(bgr, None)
    keypoints1, descriptors1 = detector.detectAndCompute(other, None)
    matches = cv2.BFMatcher(detector.defaultNorm(), crossCheck=True).match(
        descriptors0, descriptors1
    )
    source = cv2.KeyPoint.convert(keypoints0, [match.queryIdx for match in matches])
    target = cv2.KeyPoint.convert(keypoints1, [match.trainIdx for match in matches])
    estimate, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0)
    corners = np.array([[[0.0, 0.0]], [[319.0, 0.0]], [[319.0, 239.0]], [[0.0, 239.0]]])
    error = cv2.perspectiveTransform(corners, truth) - cv2.perspectiveTransform(corners, estimate)
    assert inliers.sum() > 30
    assert np.linalg.norm(error, axis=2).mean() < 2.0
    flann = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 32})
    assert len(flann.knnMatch(descriptors0, descriptors1, k=2)) == len(keypoints0)
    assert cv2.drawKeypoints(bgr, keypoints0, None).shape == bgr.shape


def test_scales_tell_their_level(detector: SuperPointFeature2D, bgr: np.ndarray) -> None:
    pyramid = make(scales=(1.0, 0.5, 2.0))
    features = pyramid.extract(bgr)
    assert set(features.octaves.tolist()) == {0, 1, 2}
    levels = {(octave, size) for octave, size in zip(features.octaves, features.sizes, strict=True)}
    assert levels == {(0, 8.0), (1, 16.0), (2, 4.0)}
    assert np.all(np.diff(features.scores) <= 0)
    assert features.keypoints.min() >= 0
    assert np.all(features.keypoints <= (319, 239))
    first = features[features.octaves == 0]
    np.testing.assert_array_equal(first.keypoints, detector.extract(bgr).keypoints)
    # compute() finds the level again by the keypoint's size.
    kept, described = pyramid.compute(bgr, features.to_keypoints())
    assert len(kept) == len(features)
    np.testing.assert_allclose(described, features.descriptors, atol=1e-3)
    assert len(make(scales=(1.0, 0.5), maxKeypoints=40).extract(bgr)) == 40


def test_scales_make_a_smaller_copy_match(bgr: np.ndarray) -> None:
    """Matches of a third of the size against a pyramid are right in the image's own pixels."""
    photograph = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    small = cv2.resize(photograph, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
    correct = {}
    for scales in [(1.0,), (1.0, 0.5, 1 / 3)]:
        large_features = make(scales=scales).extract(photograph)
        small_features = make().extract(small)
        similarity = small_features.descriptors @ large_features.descriptors.T
        nearest = similarity.argmax(axis=1)
        expected = (small_features.keypoints + 0.5) * (512 / small.shape[0]) - 0.5
        error = np.linalg.norm(large_features.keypoints[nearest] - expected, axis=1)
        correct[scales] = int((error < 6).sum())
    assert correct[(1.0, 0.5, 1 / 3)] > 2 * correct[(1.0,)]
    assert correct[(1.0, 0.5, 1 / 3)] > 20


def test_no_warnings_on_the_usual_path(grey: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().detectAndCompute(grey, None)


def test_info_says_what_runs(detector: SuperPointFeature2D) -> None:
    text = detector.info()
    with pytest.warns(DeprecationWarning, match=r"describe\(\) is info\(\) now"):
        assert detector.describe() == text
    assert "ncnn" in text
    assert "cpu" in text
    assert "float32" in text
