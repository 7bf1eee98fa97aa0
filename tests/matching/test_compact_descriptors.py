"""Bytes and bits in our matchers: what cv2.BFMatcher finds, and the same meaning of limits."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import PINNED
from test_nearest import features, unit_rows

from cv_superpoint import FeatureError, SuperPointFeature2D, guided_matches, match_pair
from cv_superpoint.decoding.descriptors import from_bytes, to_bytes
from cv_superpoint.matching.matchers import OpenCVMatcher, build_matcher
from cv_superpoint.matching.nearest import cosines, mutual_nearest, nearest_features
from cv_superpoint.matching.tracking import Tracker


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.integers(1, 32))
def test_bits_match_as_hammings_distance_says(seed, count0, count1, size):
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 256, (n, size), np.uint8) for n in (count0, count1))
    pairs, found = mutual_nearest(first, second, binary=True)
    distances = np.unpackbits(first[:, None] ^ second[None], axis=2).sum(axis=2)
    for (row, column), cosine in zip(pairs, found, strict=True):
        distance = distances[row, column]
        assert distance == distances[row].min() == distances[:, column].min()
        assert np.isclose(cosine, np.cos(np.pi * distance / (8 * size)), atol=1e-5)
    assert len(np.unique(pairs[:, 1])) == len(pairs)
    # Where nothing is equally far, OpenCV finds the same.
    if all(len(np.unique(row)) == len(row) for row in (*distances, *distances.T)):
        matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
        assert {(m.queryIdx, m.trainIdx) for m in matches} == {tuple(p) for p in pairs.tolist()}


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_bytes_match_as_the_rows_that_they_stand_for(seed, count0, count1):
    first, second = unit_rows(seed, count0, 64), unit_rows(seed + 1, count1, 64)
    rows = to_bytes(first), to_bytes(second)
    pairs, found = mutual_nearest(*rows)
    assert np.allclose(found, (first[pairs[:, 0]] * second[pairs[:, 1]]).sum(axis=1), atol=0.02)
    distances = np.linalg.norm(rows[0][:, None].astype(float) - rows[1], axis=2)
    # Rounding makes lengths differ, of 200 by 4 at most: by so much cv2.BFMatcher may judge
    # otherwise, which takes the bytes as they are.
    for row, column in pairs:
        nearest = max(distances[row].min(), distances[:, column].min())
        assert nearest - 1e-9 <= distances[row, column] <= nearest + 8
    both = from_bytes(rows[0]) @ from_bytes(rows[1]).T
    for (row, column), cosine in zip(pairs, found, strict=True):
        assert abs(cosine - both[row].max()) < 1e-5
        assert abs(cosine - both[:, column].max()) < 1e-5


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_limits_mean_the_same_of_bits(device):
    rng = np.random.default_rng(0)
    first = unit_rows(1, 400, 64)
    noise = rng.uniform(0, 0.1, (400, 1)) * rng.normal(size=first.shape)
    second = first + noise.astype(np.float32)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    planes = rng.normal(size=(1024, 64)).astype(np.float32)
    bits = [np.packbits(rows @ planes.T > 0, axis=1) for rows in (first, second)]
    exact = mutual_nearest(first, second, device=device)[1]
    pairs, estimated = mutual_nearest(*bits, binary=True, device=device)
    assert len(pairs) == len(exact) == 400
    assert np.abs(estimated - exact).max() < 0.2
    for limit in ({"max_ratio": 0.4}, {"max_distance": 0.4}):
        share = len(mutual_nearest(first, second, **limit)[0]) / 400
        assert 0.1 < share < 0.9
        assert abs(len(mutual_nearest(*bits, binary=True, **limit)[0]) / 400 - share) < 0.1
    alone = mutual_nearest(bits[0], bits[1][:1], binary=True, max_ratio=1)[0]
    assert alone.tolist() == [[0, 0]]


def test_what_is_none_of_it_is_refused():
    numbers, bits = to_bytes(unit_rows(0, 5, 64)), np.full((5, 32), 255, np.uint8)
    for wrong in (bits, np.full((5, 64), 128, np.uint8)):
        with pytest.raises(FeatureError, match="binary=True"):
            mutual_nearest(wrong, wrong)
    with pytest.raises(FeatureError, match="uint8 rows of bits"):
        mutual_nearest(unit_rows(0, 5), unit_rows(0, 5), binary=True)
    first = features(np.zeros((5, 2)), numbers)
    second = replace(first, descriptors=bits, descriptor_kind="binary")
    for call in (nearest_features, lambda *both: guided_matches(*both, homography=np.eye(3))):
        with pytest.raises(FeatureError, match="of one kind, got uint8 and binary"):
            call(replace(first, descriptor_kind="uint8"), second)
    assert len(mutual_nearest(None, bits, binary=True)[0]) == 0


@pytest.mark.parametrize("kind", ["float32", "uint8", "binary"])
def test_a_pair_matches_in_every_format(bgr, kind):
    turn = cv2.getRotationMatrix2D((160, 120), 12, 0.95)
    second = cv2.warpAffine(bgr, turn, (320, 240))
    detector = SuperPointFeature2D.create(
        200, weights="superpoint-lite", descriptorFormat=kind, **PINNED
    )
    result = match_pair(bgr, second, detector)
    assert result.reliable
    assert result.inliers.sum() > 40
    assert np.abs(result.homography[:2] - turn).max() < 2
    guided, similarity = guided_matches(
        result.features0, result.features1, homography=result.homography
    )
    assert len(guided) > result.inliers.sum() - 5
    assert similarity.max() <= 1 + 1e-5
    tracker = Tracker(reach=60)
    assert tracker.update(result.features0) == 0
    assert tracker.update(result.features1) > 30


def test_opencvs_matchers_take_bytes_as_numbers_and_refuse_bits_where_they_cannot(bgr):
    detector = SuperPointFeature2D.create(150, weights="superpoint-lite", **PINNED)
    floats = detector.extract(bgr)
    detector.setDescriptorFormat("uint8")
    numbers = detector.extract(bgr)
    detector.setDescriptorFormat("binary")
    bits = detector.extract(bgr)
    for each in (floats, numbers):
        assert len(build_matcher("flann")(each, each)[0]) > 0.9 * len(each)
        assert len(OpenCVMatcher(cv2.BFMatcher(cv2.NORM_L2))(each, each)[0]) == len(each)
    assert len(OpenCVMatcher(cv2.BFMatcher(cv2.NORM_HAMMING))(bits, bits)[0]) == len(bits)
    with pytest.raises(FeatureError, match="does not take binary descriptors"):
        build_matcher("flann")(bits, bits)
    # Of another matcher's rows the cosines are those of the descriptors all the same.
    rows, similarity = nearest_features(bits, bits)
    assert np.allclose(cosines(bits, bits, rows), similarity)
    assert np.allclose(cosines(numbers, numbers, rows), 1, atol=1e-5)
