"""The parts around the network are timed on what the network gave."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from benchmarks.contenders import our_variants, ours
from benchmarks.measure import photographs
from benchmarks.parts import (
    AGAIN,
    PARTS,
    REST,
    SIFT,
    WHOLE,
    Replay,
    measure_parts,
    parts_markdown,
    summary,
)
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.pictures.arrays import pad, to_channels

SIZE = (75, 90)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [cv2.cvtColor(one, cv2.COLOR_GRAY2BGR) for one in photographs(None, SIZE, 2)]


@pytest.mark.parametrize("backend", ["ncnn", "openvino", "onnxruntime", "torch"])
def test_recorded_outputs_give_the_keypoints_of_the_network(
    backend: str, images: list[np.ndarray]
) -> None:
    feature = ours(backend, "float32", "cpu", 40, 1)
    expected = [feature.extract(image) for image in images]
    with Replay(feature._detector.backend) as replay:
        for image, one in zip(images, expected, strict=True):
            replay.run(pad(to_channels(image, 1)))
            # Whatever the image is, the network gives what it gave before.
            found = feature.extract(np.zeros_like(image))
            np.testing.assert_array_equal(found.keypoints, one.keypoints)
            np.testing.assert_array_equal(found.descriptors, one.descriptors)
    blank = feature.extract(np.zeros_like(images[0]))
    assert not np.array_equal(blank.keypoints, expected[0].keypoints)


def test_the_parts_of_every_backend_make_up_its_whole_call(images: list[np.ndarray]) -> None:
    seconds = measure_parts(images, count=40, threads=1, rounds=2)
    backends = dict.fromkeys(name for name, _ in our_variants("cpu"))
    assert list(seconds) == list(backends)
    for found in seconds.values():
        assert list(found) == [*PARTS, REST, WHOLE, AGAIN, SIFT]
        assert all(len(one) == 4 and min(one) > 0 for one in found.values())
        parts = np.sum([found[part] for part in (*PARTS, REST)], axis=0)
        np.testing.assert_allclose(parts, found[WHOLE])
    result = {
        "machine": {"cores": "1"},
        "size": SIZE,
        "keypoints": 40,
        "photographs": 2,
        "calls": 4,
        "milliseconds": {"1": summary(seconds)},
    }
    lines = parts_markdown(json.loads(json.dumps(result))).splitlines()
    assert "4 calls of each" in lines[0]
    assert lines[2].split("|")[1:-1] == [" 1 thread, ms ", *(f" {name} " for name in backends)]
    rows = [line.split("|")[1].strip() for line in lines[4:]]
    assert rows == [*PARTS, REST, WHOLE, AGAIN, SIFT, "share of SIFT's time"]
    # What was timed is as it was.
    assert decode.refine.__module__ == "cv_superpoint.decoding.arrays"
