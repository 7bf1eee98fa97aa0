"""Levels and images side by side give what they give one after the other."""

from typing import cast

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from cv_superpoint import Features, SuperPointFeature2D
from cv_superpoint.backends import Outputs
from cv_superpoint.detector import Detector
from cv_superpoint.detector.lanes import LARGEST, WAIT, LanesBackend, are_even
from cv_superpoint.pictures.arrays import ByteArray

PHOTOGRAPH = cv2.resize(cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY), (320, 240))


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=8), st.integers(1, 8))
def test_even_means_that_no_thread_waits_long(areas: list[int], lanes: int) -> None:
    share = sum(areas) / lanes
    if are_even(areas, lanes):
        assert len(areas) > 1
        assert max(areas) <= WAIT * share
    elif len(areas) > 1:
        # The last to end begins no later than when all are busy.
        assert share + max(areas) > WAIT * share


def test_levels_of_a_pyramid_are_even_on_two_threads_only_if_they_are_several() -> None:
    assert are_even([307200, 150528, 76800], 2)
    assert not are_even([307200, 76800], 2)
    assert not are_even([307200, 150528, 76800], 8)
    assert not are_even([LARGEST + 1] * 4, 2)


def same(first: Features, second: Features) -> None:
    for name in ("keypoints", "scores", "descriptors", "sizes", "octaves"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture
def detector() -> Detector:
    """Three levels on two threads, in float32."""
    pytest.importorskip("openvino")
    return SuperPointFeature2D.create(
        weights="superpoint-lite", backend="openvino", precision="float32", threads=2,
        scales=(1.0, 0.7, 0.5),
    ).detector  # fmt: skip


def run_both_ways(detector: Detector) -> LanesBackend:
    """The detector's backend, when calls have shown that both ways give the same bits."""
    for _ in range(4):
        detector.extract(PHOTOGRAPH)
    if detector.backend.lanes == 1:
        pytest.skip("this CPU's OpenVINO does not give the same bits on one thread")
    return cast(LanesBackend, detector.backend)


def test_a_pyramid_and_a_batch_are_the_same_side_by_side(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros(PHOTOGRAPH.shape, np.uint8)
    mask[:, 100:250] = 255
    images = [PHOTOGRAPH, PHOTOGRAPH[:200], PHOTOGRAPH[:, :300], PHOTOGRAPH[::-1]]
    masks = [None, None, None, mask]
    before = detector.extract_batch(images, masks)
    backend = run_both_ways(detector)
    calls = []
    run_alone = backend.run_alone

    def counted(images: ByteArray) -> Outputs:
        calls.append(images.shape)
        return run_alone(images)

    monkeypatch.setattr(backend, "run_alone", counted)
    after = detector.extract_batch(images, masks)
    for first, second in zip(before, after, strict=True):
        same(first, second)
    assert calls


def test_a_refusal_of_one_level_is_raised(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = run_both_ways(detector)

    def no_memory(images: np.ndarray) -> None:
        raise MemoryError(str(images.shape))

    monkeypatch.setattr(backend, "run_alone", no_memory)
    with pytest.raises(MemoryError):
        detector.extract(PHOTOGRAPH)
