"""Recorded functions: their memory, their turns, what goes wrong, on the CPU as well."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from cv_superpoint.backends.cuda_graphs import MOST_GRAPHS, GraphCache, Recording
from cv_superpoint.backends.torch import TorchBackend, _without_tf32
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.errors import FeatureError
from cv_superpoint.weights import LoadedWeights, load_weights

PHOTOGRAPH = skimage.data.camera()
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


class Recorder:
    """Keeps the promises of a CUDA graph on the CPU: it reads and writes memory that stays."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.memory: list[weakref.ref[Tensor]] = []
        self.busy = threading.Lock()

    def __call__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Recording:
        output = function(*inputs)
        self.recorded.append(tuple(inputs[0].shape))
        self.memory += [weakref.ref(tensor) for tensor in (*inputs, output)]
        addresses = [tensor.data_ptr() for tensor in (*inputs, output)]

        def replay() -> None:
            assert self.busy.acquire(blocking=False), "two replays at once"
            try:
                assert addresses == [tensor.data_ptr() for tensor in (*inputs, output)]
                output.copy_(function(*inputs))
            finally:
                self.busy.release()

        return Recording(inputs, output, replay)


def cache(device: str = "cpu") -> tuple[GraphCache, Recorder]:
    recorder = Recorder()
    return GraphCache(torch.device(device), recorder if device == "cpu" else None), recorder


def double(x: Tensor) -> Tensor:
    return 2 * x


def call(graphs: GraphCache, values: Tensor, work: Callable[..., Tensor] = double) -> list[float]:
    found: list[float] = graphs.start("work", work, (values,)).read(lambda x: x.tolist())
    return found


def test_a_shape_is_recorded_when_it_comes_again_and_the_oldest_goes() -> None:
    graphs, recorder = cache()
    for size in [*range(1, MOST_GRAPHS + 1)] * 2:
        assert call(graphs, torch.ones(size)) == [2.0] * size
    assert recorder.recorded == [(size,) for size in range(1, MOST_GRAPHS + 1)]
    call(graphs, torch.ones(1))
    call(graphs, torch.ones(MOST_GRAPHS + 1))  # in the place of 2: 1 was used since
    assert len(graphs) == MOST_GRAPHS - 1
    call(graphs, torch.ones(2))
    assert recorder.recorded[MOST_GRAPHS:] == []
    call(graphs, torch.ones(2))
    assert recorder.recorded[MOST_GRAPHS:] == [(2,)]


def test_images_that_all_differ_in_size_record_nothing() -> None:
    graphs, recorder = cache()
    for size in [*range(1, 2 * MOST_GRAPHS)] * 3:
        call(graphs, torch.ones(size))
    assert recorder.recorded == []


def test_what_is_forgotten_is_freed() -> None:
    graphs, recorder = cache()
    for _ in range(2):
        call(graphs, torch.ones(50))
    assert all(memory() is not None for memory in recorder.memory)
    for size in range(1, MOST_GRAPHS + 1):
        call(graphs, torch.ones(size))
    gc.collect()
    assert all(memory() is None for memory in recorder.memory)
    call(graphs, torch.ones(1))
    assert graphs.clear()
    assert not graphs.clear()
    assert len(graphs) == 0


@pytest.mark.parametrize("device", DEVICES)
def test_replays_see_new_values_and_results_outlive_the_next_call(device: str) -> None:
    graphs, _ = cache(device)
    found = [call(graphs, torch.full((3,), float(value))) for value in range(6)]
    assert found == [[2.0 * value] * 3 for value in range(6)]


@pytest.mark.parametrize("device", DEVICES)
def test_calls_that_were_begun_do_not_disturb_each_other(device: str) -> None:
    """Inputs may change at once, and answers are read in any order."""
    graphs, _ = cache(device)
    values = torch.zeros(1000)
    for _ in range(3):
        begun = []
        for value in range(4):
            values.fill_(value)
            begun.append(graphs.start("work", double, (values,)))
            values.fill_(-1)
        for value in (2, 0, 3, 1):
            assert set(begun[value].read(lambda x: x.tolist())) == {2.0 * value}


@pytest.mark.parametrize("device", DEVICES)
def test_memory_of_the_host_is_used_again(device: str) -> None:
    graphs, _ = cache(device)
    seen = set()
    for _ in range(20):
        pending = graphs.start("work", double, (torch.ones(100),))
        seen |= {tensor.data_ptr() for tensor in (pending._answer, *pending._staged)}
        assert pending._answer.is_pinned() == (device == "cuda")
        pending.read(lambda x: None)
    assert len(seen) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_threads_take_turns(device: str) -> None:
    graphs, _ = cache(device)
    problems = []

    def work(value: int) -> None:
        try:
            for size in (5, 500, 5, 50) * 5:
                assert call(graphs, torch.full((size,), float(value))) == [2.0 * value] * size
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_what_cannot_be_recorded_runs_as_it_is_with_one_warning() -> None:
    attempts = []

    def fail(function: Any, inputs: Any) -> Recording:
        attempts.append(function)
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = GraphCache(torch.device("cpu"), fail)
    assert call(graphs, torch.ones(3)) == [2.0] * 3
    with pytest.warns(RuntimeWarning, match="operation not permitted.*Please report"):
        assert call(graphs, torch.ones(3)) == [2.0] * 3
    for size in (3, 4, 4, 4):
        assert call(graphs, torch.ones(size)) == [2.0] * size
    assert (len(attempts), len(graphs)) == (1, 0)


def test_a_graph_that_does_not_fit_into_memory_is_not_tried_again() -> None:
    attempts = []

    def fail(function: Any, inputs: tuple[Tensor, ...]) -> Recording:
        attempts.append(len(inputs[0]))
        if len(inputs[0]) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Recorder()(function, inputs)

    graphs = GraphCache(torch.device("cpu"), fail)
    for size in (20, 20, 20, 5, 5, 20, 5):
        assert call(graphs, torch.ones(size)) == [2.0] * size
    assert attempts == [20, 5]


def test_an_error_of_the_function_leaves_the_cache_sound() -> None:
    graphs, _ = cache()

    def work(x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("below 0")
        return 2 * x

    for value in (1.0, 1.0, -1.0, 1.0, -1.0, 2.0):
        if value > 0:
            assert call(graphs, torch.full((3,), value), work) == [2 * value] * 3
        else:
            with pytest.raises(ValueError, match="below 0"):
                call(graphs, torch.full((3,), value), work)


@pytest.mark.parametrize("asked", ["none", "tf32", "ieee"])
def test_float32_leaves_the_caller_s_setting(asked: str) -> None:
    convolution: Any = getattr(torch.backends.cudnn, "conv", None)
    if convolution is None:
        pytest.skip("this torch has one setting for all of cuDNN")
    first = convolution.fp32_precision
    try:
        convolution.fp32_precision = asked
        before = convolution.fp32_precision
        with _without_tf32():
            assert convolution.fp32_precision == "ieee"
        assert convolution.fp32_precision == before
    finally:
        convolution.fp32_precision = first


# The backend: little memory, many keypoints.


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return load_weights("superpoint-lite")


def detector_of(
    weights: LoadedWeights, *, count: int = 30, batch: int = 8
) -> tuple[Detector, TorchBackend, list[int]]:
    """A detector that decodes with torch, and the batches that its network saw."""
    backend = TorchBackend(weights, device="cpu", threads=1)
    backend.decodes, backend.batch = True, batch
    decoding = Decoding(max_keypoints=count, score_threshold=1e-4, score_radius=0, nms_radius=1)
    seen: list[int] = []
    backend._net.encoder[0].register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    return Detector(backend, weights.config, DetectorConfig(decoding=decoding)), backend, seen


def limit_memory(backend: TorchBackend, pixels: int) -> None:
    """Limit the backend's memory, as on a GPU with room for so many pixels at once."""

    def check(_: Any, inputs: tuple[Tensor]) -> None:
        if inputs[0].numel() > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore")

    backend._net.encoder[0].register_forward_pre_hook(check)


def test_where_memory_is_little_batches_become_halves(weights: LoadedWeights) -> None:
    images = [np.ascontiguousarray(PHOTOGRAPH[8 * k : 8 * k + 64, :96]) for k in range(11)]
    detector, backend, _ = detector_of(weights)
    expected = detector.extract_batch(images)
    limit_memory(backend, 3 * 64 * 96)
    found = detector.extract_batch(images)
    assert backend.batch == 2
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.keypoints, two.keypoints, atol=1e-4)
        np.testing.assert_allclose(one.descriptors, two.descriptors, atol=1e-4)
    logits, dense = backend.run(np.stack(images)[..., None])
    assert (len(logits), len(dense)) == (11, 11)


def test_an_image_that_does_not_fit_is_named_with_a_remedy(weights: LoadedWeights) -> None:
    detector, backend, _ = detector_of(weights)
    limit_memory(backend, 64 * 96 - 1)
    message = re.escape(
        "an image of 64 x 96 pixels does not fit into the memory of cpu in float32; make tileSize "
        "smaller, take precision='float16', or device='cpu' (CUDA out of memory."
    )
    image = np.ascontiguousarray(PHOTOGRAPH[:64, :96])
    with pytest.raises(FeatureError, match=message):
        detector.extract(image)
    with pytest.raises(FeatureError, match=message):
        backend.run(image[None, ..., None])
    assert len(detector.extract(PHOTOGRAPH[:32, :32].copy())) > 0


def test_room_for_keypoints_grows_once(weights: LoadedWeights) -> None:
    detector, backend, seen = detector_of(weights, count=-1)
    image = np.ascontiguousarray(PHOTOGRAPH[:240, :320])
    host = Detector(TorchBackend(weights, device="cpu", threads=1), weights.config, detector.config)
    expected = host.extract(image)
    backend._room = 64
    assert len(expected) > 500
    for runs in (2, 3):
        found = detector.extract(image)
        assert len(seen) == runs
        np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
