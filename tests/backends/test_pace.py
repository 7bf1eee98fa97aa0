"""The choice of the way that is faster now, and OpenVINO's two ways."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import skimage.data

from cv_superpoint.backends import choose, make_backend
from cv_superpoint.backends.openvino import has_bfloat16
from cv_superpoint.backends.pace import AGAIN, MOST_KEYS, Pace
from cv_superpoint.weights import load_weights

PHOTOGRAPH = skimage.data.camera()


def calls(pace: Pace, seconds: tuple[float, ...], count: int, key: object = "size") -> list[int]:
    """The ways that so many calls take, each of its own time."""
    taken = []
    for _ in range(count):
        way = pace.choose(key)
        pace.report(key, way, seconds[way])
        taken.append(way)
    return taken


def test_each_way_is_tried_twice_and_then_the_fastest_taken() -> None:
    for seconds, best in (((1.0, 2.0), 0), ((2.0, 1.0), 1)):
        taken = calls(Pace(2), seconds, 10 * AGAIN)
        assert taken[:4] == [0, 0, 1, 1]
        assert taken.count(1 - best) == 2 + 9
        assert all(way == best for call, way in enumerate(taken[4:], 4) if call % AGAIN)


def test_the_first_call_of_a_way_does_not_count() -> None:
    """It made kernels for this size."""
    pace = Pace(2)
    for way, seconds in ((0, 9.0), (0, 1.0), (1, 2.0), (1, 2.0)):
        assert pace.choose("size") == way
        pace.report("size", way, seconds)
    assert pace.choose("size") == 0


def test_a_machine_that_becomes_busy_and_idle_again_is_noticed() -> None:
    pace = Pace(2)
    assert calls(pace, (1.0, 1.2), 50)[-1] == 0
    assert calls(pace, (5.0, 2.0), 5)[-1] == 1
    assert calls(pace, (1.0, 1.2), 20 * AGAIN)[-1] == 0


def test_sizes_are_kept_apart_and_few_are_kept() -> None:
    pace = Pace(2)
    assert calls(pace, (1.0, 2.0), 20, "small")[-1] == 0
    assert calls(pace, (2.0, 1.0), 20, "large")[-1] == 1
    assert calls(pace, (1.0, 2.0), 5, "small")[-1] == 0
    for size in range(3 * MOST_KEYS):
        calls(pace, (1.0, 2.0), 1, size)
    assert len(pace._records) == MOST_KEYS
    pace.report("small", 0, 1.0)  # its record is gone


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param(
            "bfloat16",
            marks=pytest.mark.skipif(not has_bfloat16(), reason="needs AMX or AVX512-BF16"),
        ),
    ],
)
@pytest.mark.parametrize("name", ["superpoint", "superpoint-lite"])
def test_bands_give_the_bits_of_the_whole(name: str, precision: str) -> None:
    """Bands give the same bits in both precisions, on one thread and on three; a low image has
    none."""
    weights = load_weights(name)
    choice = choose(backend="openvino", device="cpu", precision=precision)
    alone, three = (make_backend(weights, choice, threads=threads) for threads in (1, 3))
    for height, count in ((256, 3), (72, 0)):
        images = np.ascontiguousarray(PHOTOGRAPH[None, :height, :64, None])
        expected = alone._network(images)  # type: ignore[attr-defined]
        if count:
            found = three._run_bands(images, count)  # type: ignore[attr-defined]
            for one, two in zip(expected, found, strict=True):
                np.testing.assert_array_equal(one, two)
        for _ in range(6):  # as the pace has it
            for one, two in zip(alone.run(images), three.run(images), strict=True):
                np.testing.assert_array_equal(one[0], two[0])
    assert three._verified  # type: ignore[attr-defined]
    assert three._may_band  # type: ignore[attr-defined]


def test_bands_are_for_several_threads_at_once_too() -> None:
    weights = load_weights("superpoint-lite")
    choice = choose(backend="openvino", device="cpu", precision="float32")
    backend = make_backend(weights, choice, threads=2)
    images = [
        np.ascontiguousarray(PHOTOGRAPH[None, top : top + 240, :96, None]) for top in (0, 200)
    ]
    expected = [backend.run(image) for image in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(12):
            for one, two in zip(backend.run(images[index]), expected[index], strict=True):
                if not np.array_equal(one[0], two[0]):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(k % 2,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
