"""Every backend against torch in float32, the cache of converted models, threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from outputs import run_units
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D, backends
from cv_superpoint.backends import cache, choose, make_backend
from cv_superpoint.backends.torch import TorchBackend
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import LoadedWeights, load_weights, save_weights

pytestmark = pytest.mark.usefixtures("own_cache")

PHOTOGRAPH = skimage.data.camera()
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
)
OTHERS = ["ncnn", "openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return load_weights()


def backend_of(weights: LoadedWeights, name: str, **options: Any) -> backends.Backend:
    options = {"backend": name, **PINNED, **options}
    threads = options.pop("threads")
    return make_backend(weights, choose(**options), threads=threads)


def make_detector(backend: backends.Backend) -> Detector:
    decoding = Decoding(max_keypoints=200, score_threshold=0.015, score_radius=0)
    return Detector(backend, NetworkConfig(), DetectorConfig(decoding=decoding))


# The same numbers from all of them.


@pytest.mark.parametrize("name", OTHERS)
def test_outputs_are_those_of_torch(name: str, weights: LoadedWeights) -> None:
    reference, other = backend_of(weights, "torch"), backend_of(weights, name)
    # One cell, which is a strip of ncnn's; two; four; a large one; wide; tall.
    for height, width in [(8, 8), (16, 88), (32, 16), (136, 200), (24, 512), (320, 40)]:
        images = np.ascontiguousarray(PHOTOGRAPH[:height, :width, None])[None]
        expected, found = run_units(reference, images), run_units(other, images)
        for one, two in zip(expected, found, strict=True):
            assert one.shape == two.shape
            np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", OTHERS)
def test_an_image_gives_the_same_bits_alone_and_in_a_batch(
    name: str, threads: int, weights: LoadedWeights
) -> None:
    backend = backend_of(weights, name, threads=threads)
    for height, width in [(72, 96), (240, 320)]:
        views = [PHOTOGRAPH[top : top + height, top : top + width] for top in (0, 100, 190)]
        images = np.stack(views)[..., None]
        together = backend.run(images)
        for index in range(3):
            for one, many in zip(backend.run(images[index : index + 1]), together, strict=True):
                assert (len(one), len(many)) == (1, 3)
                np.testing.assert_array_equal(one[0], many[index])


@pytest.mark.parametrize("name", [*OTHERS, "torch"])
def test_outputs_outlive_the_next_call_and_the_backend(name: str, weights: LoadedWeights) -> None:
    """They are not copied out of the memory of what ran the network."""
    backend = backend_of(weights, name, threads=1)
    images = np.stack([PHOTOGRAPH[:64, :80], PHOTOGRAPH[200:264, 200:280]])[..., None]
    images.flags.writeable = False
    logits, dense = backend.run(images)
    before = [maps.copy() for maps in (*logits, *dense)]
    for _ in range(3):
        backend.run(images[::-1].copy())
    del backend
    gc.collect()
    for maps, copy in zip((*logits, *dense), before, strict=True):
        np.testing.assert_array_equal(maps, copy)


@pytest.mark.parametrize("norm", ["before_relu", "after_relu"])
@pytest.mark.parametrize("name", OTHERS)
def test_normalisations_and_colour(name: str, norm: str, tmp_path: Path) -> None:
    """Other releases' networks: a normalisation after the ReLU cannot be folded away."""
    torch.manual_seed(3)
    config = NetworkConfig(in_channels=3, channels=(8, 9, 10, 12), norm=norm, output_norm=True)
    net = SuperPointNet(config)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 2)
            for values in (module.bias.data, module.running_mean):
                values.uniform_(-0.5, 0.5)
    save_weights(net.eval(), tmp_path / "other.safetensors")
    loaded = load_weights(tmp_path / "other.safetensors")
    assert loaded.config.norm == ("none" if norm == "before_relu" else norm)
    images = skimage.data.astronaut()[None, :80, :64].copy()
    with torch.inference_mode():
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = [maps.permute(0, 2, 3, 1).numpy() for maps in net(tensor)]
    for one, two in zip(expected, run_units(backend_of(loaded, name), images), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize("length", [5, 12, 24, 48])
@pytest.mark.parametrize("name", [*OTHERS, "torch"])
def test_descriptors_come_cell_by_cell(name: str, length: int, tmp_path: Path) -> None:
    """Whether ncnn computes 1, 4, 8 or 16 channels at a time, as it does for these lengths."""
    torch.manual_seed(length)
    net = SuperPointNet(NetworkConfig(channels=(8, 8, 12, 16), descriptor_dim=length))
    save_weights(net.eval(), tmp_path / "other.safetensors")
    loaded = load_weights(tmp_path / "other.safetensors")
    images = np.ascontiguousarray(PHOTOGRAPH[:136, :80, None])[None]
    _, (dense,) = backend_of(loaded, name).run(images)
    assert dense.shape == (17, 10, length)
    assert dense.flags.c_contiguous
    expected = run_units(TorchBackend(loaded, device="cpu", threads=1), images)
    found = run_units(backend_of(loaded, name), images)
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_true_batches_of_mixed_sizes_give_single_results(
    device: str, weights: LoadedWeights
) -> None:
    """Equal padded sizes share a call on a GPU; the grouping must put every result in its place."""
    single = TorchBackend(weights, device="cpu")
    batched = TorchBackend(weights, device=device)
    batched.batch = 32
    images = [
        PHOTOGRAPH[:120, :160],
        PHOTOGRAPH[100:203, 50:250],
        PHOTOGRAPH[200:317, 200:359],  # pads to the first one's size
        PHOTOGRAPH[300:420, 100:260],
        PHOTOGRAPH[30:37, 30:40],
    ]
    masks = [None, np.ones((103, 200), np.uint8), None, np.eye(120, 160, dtype=np.uint8), None]
    expected = make_detector(single).extract_batch(images, masks)
    found = make_detector(batched).extract_batch(images, masks)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.01)
        np.testing.assert_allclose(one.descriptors, other.descriptors, atol=1e-3)
        assert one.image_size == other.image_size


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize(
    ("count", "options"),
    [
        (40, {}),
        (3000, {}),
        (-1, {}),  # more than there is room for
        (60, {"scales": (1.0, 0.5)}),
        (-1, {"scales": (0.7, 1.3)}),
        (60, {"tile_size": 64}),
        (-1, {"tile_size": 64, "scales": (1.0, 0.6)}),
    ],
)
def test_decoding_on_the_device_gives_the_host_s_keypoints(
    device: str, count: int, options: dict[str, Any], weights: LoadedWeights
) -> None:
    """What CUDA does, but for the recording of graphs, also runs on CPU tensors."""
    host = TorchBackend(weights, device="cpu")
    other = TorchBackend(weights, device=device)
    other.decodes, other.batch = True, 2
    decoding = Decoding(max_keypoints=count, score_threshold=1e-4, score_radius=0, nms_radius=2)
    config = DetectorConfig(decoding=decoding, **options)
    images = [
        PHOTOGRAPH[:117, :160],
        PHOTOGRAPH[200:260, 200:300],
        PHOTOGRAPH[100:217, 20:180],
        PHOTOGRAPH[100:220, 25:180],  # pads to the same size
        PHOTOGRAPH[:1, :1],
    ]
    mask = np.zeros((117, 160), np.uint8)
    mask[30:, 50:] = 1
    masks = [mask, None, None, None, None]
    expected = Detector(host, weights.config, config).extract_batch(images, masks)
    assert len(expected[1]) > 10
    for _ in range(3):  # run as it is, recorded, replayed
        found = Detector(other, weights.config, config).extract_batch(images, masks)
        for one, two in zip(expected, found, strict=True):
            assert len(one) == len(two)
            assert one.image_size == two.image_size
            np.testing.assert_allclose(one.keypoints, two.keypoints, atol=1e-3)
            np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
            np.testing.assert_allclose(one.descriptors, two.descriptors, atol=1e-4)
            np.testing.assert_array_equal(one.sizes, two.sizes)
            np.testing.assert_array_equal(one.octaves, two.octaves)
        if device == "cpu":
            break


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bfloat16"),
        pytest.param("cuda", "float16", marks=CUDA.marks),
        pytest.param("cuda", "bfloat16", marks=CUDA.marks),
    ],
)
def test_lower_precision_is_close(device: str, precision: str, weights: LoadedWeights) -> None:
    image = PHOTOGRAPH[None, 100:260, 100:340, None].copy()
    exact = run_units(TorchBackend(weights, device="cpu"), image)
    rough = run_units(TorchBackend(weights, device=device, precision=precision), image)
    cosine = (exact[1] * rough[1]).sum(axis=-1)
    assert np.median(cosine) > 0.99
    assert np.median(np.abs(exact[0] - rough[0])) < 0.2


# The model cache.


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_models_are_stored_and_damaged_ones_are_made_anew(
    name: str, weights: LoadedWeights, own_cache: Path
) -> None:
    image = np.ascontiguousarray(PHOTOGRAPH[None, :64, :64, None])
    first = backend_of(weights, name).run(image)
    [stored] = own_cache.iterdir()
    content = stored.read_bytes()
    assert len(content) > 4_000_000
    np.testing.assert_array_equal(backend_of(weights, name).run(image)[0], first[0])
    for damaged in (b"", content[: len(content) // 2], content[:-9] + b"nonsense!"):
        stored.write_bytes(damaged)
        np.testing.assert_array_equal(backend_of(weights, name).run(image)[0], first[0])
        assert [file.name for file in own_cache.iterdir()] == [stored.name]
        # Of the same size but for the names of layers, which OpenVINO numbers.
        assert len(stored.read_bytes()) == pytest.approx(len(content), rel=0.01)
        assert stored.read_bytes() != damaged


def test_the_cache_is_bounded_and_can_be_off(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(cache.MOST_FILES + 5):
        cache.CachedFile("test", str(index)).write(b"content")
    assert len(list(own_cache.iterdir())) == cache.MOST_FILES
    assert cache.CachedFile("test", "20").read() == b"content"
    monkeypatch.setenv(cache.ENVIRONMENT, "")
    cache.CachedFile("test", "20").write(b"other")
    assert cache.CachedFile("test", "20").read() is None
    monkeypatch.setenv(cache.ENVIRONMENT, "/proc/nowhere")  # cannot be written: no error
    cache.CachedFile("test", "20").write(b"other")
    assert cache.CachedFile("test", "20").read() is None


# Threads.


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_the_number_of_threads_is_not_seen_in_the_result(name: str, weights: LoadedWeights) -> None:
    images = np.ascontiguousarray(PHOTOGRAPH[:104, :128, None])[None]
    alone = backend_of(weights, name, threads=1).run(images)
    for threads in (2, 3):
        together = backend_of(weights, name, threads=threads).run(images)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other, atol=0 if name == "ncnn" else 1e-4, rtol=0)


@pytest.mark.parametrize("name", ["ncnn", "openvino", "onnxruntime", "torch"])
def test_threads_share_a_detector_and_have_their_own(name: str) -> None:
    """Two threads with one detector, and eight with one each: always the results of one alone."""
    images = [PHOTOGRAPH[:104, :128], PHOTOGRAPH[200:320, 100:300], PHOTOGRAPH[50:90, 60:120]]
    options = {"backend": name, **PINNED}
    shared = SuperPointFeature2D.create(200, 0.01, **{**options, "threads": 2})
    expected = [shared.extract(image) for image in images]
    problems: list[str] = []

    def work(detector: SuperPointFeature2D, start: int) -> None:
        for step in range(4):
            index = (start + step) % len(images)
            found = detector.extract(images[index])
            for field in ("keypoints", "scores", "descriptors"):
                one, two = getattr(found, field), getattr(expected[index], field)
                if one.shape != two.shape or not np.allclose(one, two, atol=1e-5):
                    problems.append(f"{field} of image {index}")

    own = [SuperPointFeature2D.create(200, 0.01, **options) for _ in range(8)]
    for detectors in ([shared, shared], own):
        threads = [
            threading.Thread(target=work, args=(one, start)) for start, one in enumerate(detectors)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


@pytest.mark.parametrize("name", OTHERS)
def test_signals_are_handled_after_detectors_ended(name: str) -> None:
    """Detectors end in the order in which OpenVINO's cores would break the stack of signals."""
    script = f"""
import gc, signal, sys
import numpy as np
from cv_superpoint import SuperPointFeature2D

image = np.zeros((64, 64), np.uint8)
detectors = [SuperPointFeature2D.create(backend={name!r}, device="cpu") for _ in range(2)]
for detector in detectors:
    detector.detect(image)
while detectors:
    del detector
    detector = detectors.pop(0)
del detector
gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_openvino_is_imported_without_its_telemetry() -> None:
    script = """
import sys
import numpy as np
from cv_superpoint import SuperPointFeature2D

detector = SuperPointFeature2D.create(backend="openvino", device="cpu")
detector.detect(np.zeros((64, 64), np.uint8))
assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules
import openvino_telemetry  # the program itself may
print(openvino_telemetry.Telemetry.__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Telemetry\n"), done.stderr
