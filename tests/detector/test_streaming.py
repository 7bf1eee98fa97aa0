"""Features of a sequence of images while the next ones are being computed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D

PHOTOGRAPH = skimage.data.camera()


@pytest.fixture(scope="module")
def detector() -> SuperPointFeature2D:
    return SuperPointFeature2D.create(50, **PINNED)


def frames() -> Iterator[np.ndarray]:
    """A camera that moves along the photograph for ever."""
    for shift in itertools.count(step=9):
        yield PHOTOGRAPH[100:196, shift % 300 : shift % 300 + 128]


def test_same_features_in_the_same_order(detector: SuperPointFeature2D) -> None:
    images = list(itertools.islice(frames(), 9))
    streamed = list(detector.extractStream(images, ahead=3))
    assert len(streamed) == len(images)
    for image, (seen, features) in zip(images, streamed, strict=True):
        assert seen is image
        alone = detector.extract(image)
        np.testing.assert_array_equal(features.keypoints, alone.keypoints)
        np.testing.assert_array_equal(features.descriptors, alone.descriptors)


def test_reads_no_further_than_asked(detector: SuperPointFeature2D) -> None:
    read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal read
        for image in frames():
            read += 1
            yield image

    before = threading.active_count()
    stream = detector.extractStream(counted(), ahead=2)
    assert read == 0
    for given, _ in enumerate(itertools.islice(stream, 4), 1):
        assert read == given + 2
    stream.close()
    assert threading.active_count() == before


def test_bad_image_is_refused_at_its_turn(detector: SuperPointFeature2D) -> None:
    images = [*itertools.islice(frames(), 2), np.zeros((40, 40), np.float64)]
    stream = detector.extractStream(images)
    assert len(list(itertools.islice(stream, 2))) == 2
    with pytest.raises(FeatureError):
        next(stream)


def test_nothing_gives_nothing(detector: SuperPointFeature2D) -> None:
    assert list(detector.extractStream([])) == []


def test_impossible_distance_is_refused(detector: SuperPointFeature2D) -> None:
    with pytest.raises(FeatureError, match="ahead must be a whole number, at least 1, got 0"):
        detector.extractStream([], ahead=0)


def test_parameters_are_those_of_the_start(detector: SuperPointFeature2D) -> None:
    other = SuperPointFeature2D.create(50, **PINNED)
    stream = other.extractStream(frames())
    next(stream)
    other.setMaxKeypoints(3)
    assert len(next(stream)[1]) == len(detector.extract(next(itertools.islice(frames(), 1, 2))))
    stream.close()
