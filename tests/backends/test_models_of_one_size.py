"""A small network gets a model of each size that comes often; float32, one and two threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from cv_superpoint.network.architecture import NetworkConfig, multiplications
from cv_superpoint.weights import load_weights

openvino = pytest.importorskip("cv_superpoint.backends.openvino")

IMAGE: NDArray[np.uint8] = skimage.data.camera()[:, :, None]
SIZES = ((160, 208), (80, 104), (96, 96))


def backend(name: str = "superpoint-lite", threads: int = 1) -> Any:
    return openvino.OpenVinoBackend(load_weights(name), threads=threads)


def run(one: Any, size: tuple[int, int]) -> list[NDArray[np.float32]]:
    logits, dense = one.run(IMAGE[None, : size[0], : size[1]].copy())
    return [logits[0].copy(), dense[0].copy()]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_of_one_size_gives_the_same_bits(threads: int) -> None:
    one = backend(threads=threads)
    first = {size: run(one, size) for size in SIZES}
    for _ in range(openvino.OFTEN + 3):  # in turn, as the levels of a pyramid come
        for size in SIZES:
            for found, expected in zip(run(one, size), first[size], strict=True):
                np.testing.assert_array_equal(found, expected)
    assert set(one._of_size) == set(SIZES)


def test_only_the_first_sizes_have_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "OFTEN", 0)
    monkeypatch.setattr(openvino, "MOST_SIZES", 2)
    one = backend()
    expected = [run(one, size)[0] for size in SIZES]
    kept = dict(one._of_size)
    assert list(kept) == list(SIZES[:2])
    for size, logits in zip(SIZES, expected, strict=True):
        np.testing.assert_array_equal(run(one, size)[0], logits)
    assert one._of_size == kept


def test_a_large_network_and_another_result_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "OFTEN", 0)
    monkeypatch.setattr(openvino, "SMALL", 1e6)
    large = backend()
    run(large, SIZES[0])
    assert not large._of_size
    monkeypatch.undo()
    monkeypatch.setattr(openvino, "OFTEN", 0)
    other = backend()
    infer = openvino._Model.infer

    def wrong(model: Any, images: NDArray[np.uint8]) -> Any:
        logits, dense = infer(model, images)
        return (logits, dense) if model is other._model else (logits + 1, dense)

    expected = run(backend(), SIZES[1])
    monkeypatch.setattr(openvino._Model, "infer", wrong)
    for _ in range(3):
        np.testing.assert_array_equal(run(other, SIZES[1])[0], expected[0])
    assert not other._of_size


def test_threads_share_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "OFTEN", 1)
    one = backend()
    expected = {size: run(one, size) for size in SIZES}
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(6):
            for size in SIZES:
                found = run(one, size)
                if not all(map(np.array_equal, found, expected[size])):
                    wrong.append(size)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_multiplications_are_those_of_the_paper() -> None:
    # 26.1 GMAC, the figure of the paper's network at 480 x 640.
    assert multiplications(NetworkConfig(), (480, 640)) == pytest.approx(26.05e9, rel=1e-3)
    assert multiplications(load_weights("superpoint-lite").config, (480, 640)) < openvino.SMALL
