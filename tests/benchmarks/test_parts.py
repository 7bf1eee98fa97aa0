"""The parts around the network are timed on what the network gave."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from benchmarks.contenders import our_variants, ours
from benchmarks.measure import photographs
from benchmarks.parts import SIFT, WHOLE, Replay, measure_parts, parts_markdown
from cv_superpoint.image import pad, to_channels

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
    inputs = [pad(to_channels(image, 1))[None, ..., None] for image in images]
    with Replay(feature._detector.backend, inputs) as replay:
        for replay.current in (1, 0):
            # Whatever the image is, the network gives what it gave for the current one.
            found = feature.extract(np.zeros_like(images[0]))
            one = expected[replay.current]
            np.testing.assert_array_equal(found.keypoints, one.keypoints)
            np.testing.assert_array_equal(found.descriptors, one.descriptors)
    blank = feature.extract(np.zeros_like(images[0]))
    assert not np.array_equal(blank.keypoints, expected[0].keypoints)


def test_every_part_of_every_backend_is_in_the_table(images: list[np.ndarray]) -> None:
    timings = measure_parts(images, count=40, threads=1, rounds=2)
    backends = dict.fromkeys(name for name, _ in our_variants("cpu"))
    assert list(timings) == list(backends)
    assert all(one.calls == 4 for of in timings.values() for one in of.values())
    assert all(of[WHOLE].median > of["descriptors"].median for of in timings.values())
    result = {
        "machine": {"cores": "1"},
        "size": SIZE,
        "keypoints": 40,
        "photographs": 2,
        "threads": {
            "1": {
                name: {part: vars(timing) for part, timing in of.items()}
                for name, of in timings.items()
            }
        },
    }
    lines = parts_markdown(json.loads(json.dumps(result))).splitlines()
    assert lines[2].split("|")[1:-1] == [" 1 thread, ms ", *(f" {name} " for name in backends)]
    rows = [line.split("|")[1].strip() for line in lines[4:]]
    assert rows[-3:] == [WHOLE, SIFT, "share of SIFT's time"]
    assert len(rows) == len(next(iter(timings.values()))) + 1
