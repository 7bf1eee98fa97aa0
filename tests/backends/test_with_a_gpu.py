"""What only a GPU can show: graphs are recorded, nothing waits, float32 is float32, two devices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends.torch import TorchBackend
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.weights import LoadedWeights, available_weights, load_weights
from train.data.on_device import to_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PHOTOGRAPH = skimage.data.camera()
DECODING = Decoding(max_keypoints=200, score_threshold=0.01)


@contextmanager
def no_waiting() -> Iterator[None]:
    """torch raises where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def frames(count: int, height: int, width: int) -> np.ndarray:
    return np.array([[height, width, 4, 4, height - 4, width - 4]] * count, np.int32)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", available_weights())
def test_a_graph_is_recorded_and_gives_what_ran_before_it(name: str, precision: str) -> None:
    weights = load_weights(name)
    backend = TorchBackend(weights, device="cuda", precision=precision)
    images = np.stack([PHOTOGRAPH[k : k + 240, :320] for k in (0, 100, 200)])[..., None]
    calls = [
        backend.start_decoding(images, frames(3, 240, 320), None, DECODING)() for _ in range(4)
    ]
    assert len(backend._graphs) == 1
    for later in calls[1:]:
        for one, two in zip(calls[0], later, strict=True):
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_call_is_begun_without_waiting() -> None:
    backend = TorchBackend(load_weights(), device="cuda", precision="float16")
    images = PHOTOGRAPH[None, :240, :320, None].copy()
    for _ in range(3):
        backend.start_decoding(images, frames(1, 240, 320), None, DECODING)()
    with no_waiting():
        finish = backend.start_decoding(images, frames(1, 240, 320), None, DECODING)
    assert len(finish()[0][0]) > 10


def test_arrays_go_up_without_waiting() -> None:
    with no_waiting():
        found = to_device(np.arange(5.0), torch.device("cuda"))
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_float32_is_float32_whatever_the_caller_s_setting() -> None:
    """cuDNN would convolve with TF32 by default, which has 10 bits."""
    weights = load_weights()
    images = PHOTOGRAPH[None, :240, :320, None].copy()
    expected = TorchBackend(weights, device="cpu").run(images)
    found = TorchBackend(weights, device="cuda").run(images)
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one[0], two[0], atol=2e-4)


def detector(weights: LoadedWeights, device: str) -> Detector:
    backend = TorchBackend(weights, device=device)
    return Detector(backend, weights.config, DetectorConfig(decoding=DECODING))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_record_at_once_and_stay_apart() -> None:
    weights = load_weights()
    detectors = [detector(weights, f"cuda:{index}") for index in (0, 1)]
    expected = detector(weights, "cpu").extract(PHOTOGRAPH)
    problems: list[Exception] = []

    def work(one: Detector) -> None:
        try:
            for _ in range(5):
                found = one.extract(PHOTOGRAPH)
                np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-2)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in detectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_device_stays_whatever_the_current_one_becomes() -> None:
    face = SuperPointFeature2D.create(50, device="cuda")
    expected = face.extract(PHOTOGRAPH)
    with torch.cuda.device(1):
        np.testing.assert_array_equal(face.extract(PHOTOGRAPH).keypoints, expected.keypoints)


@pytest.mark.parametrize(("visible", "device"), [("0", "cuda"), ("", "cpu")])
def test_hidden_devices_are_not_taken(visible: str, device: str) -> None:
    script = "from cv_superpoint import SuperPointFeature2D as S; print(S.create().info())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert f"on {device}" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_make_its_own() -> None:
    script = """
import os, sys
import numpy as np
from cv_superpoint import SuperPointFeature2D
detector = SuperPointFeature2D.create(50, device="cuda")
detector.detect(np.zeros((64, 64), np.uint8))
if os.fork() == 0:
    try:
        detector.detect(np.zeros((64, 64), np.uint8))
    except ValueError as error:
        print("told" if "spawn" in str(error) else error, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "told\n", done.stderr
