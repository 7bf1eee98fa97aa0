"""Every backend against torch in float32; how one is chosen; threads; life without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint import SuperPointFeature2D, backends
from cv_superpoint.backends import cache, choose, choosing, make_backend
from cv_superpoint.backends.cuda_graphs import MOST_GRAPHS, GraphCache
from cv_superpoint.backends.torch import TorchBackend, choose_device
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import LoadedWeights, load_weights, save_weights

PHOTOGRAPH = skimage.data.camera()
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
)
OTHERS = ["ncnn", "openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return load_weights()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


def backend_of(weights: LoadedWeights, name: str, **options: Any) -> backends.Backend:
    threads = options.pop("threads", None)
    chosen = choose(**{"backend": name, "device": "cpu", "precision": "auto", **options})
    return make_backend(weights, chosen, threads=threads)


def make_detector(backend: backends.Backend) -> Detector:
    config = DetectorConfig(max_keypoints=200)
    return Detector(backend, channels=1, descriptor_dim=256, config=config)


# The same numbers from all of them.


@pytest.mark.parametrize("name", OTHERS)
def test_outputs_are_those_of_torch(name: str, weights: LoadedWeights) -> None:
    reference, other = backend_of(weights, "torch"), backend_of(weights, name)
    # One cell, which is a strip of ncnn's; two; four; a large one; wide; tall.
    for height, width in [(8, 8), (16, 88), (32, 16), (136, 200), (24, 512), (320, 40)]:
        images = np.ascontiguousarray(PHOTOGRAPH[:height, :width, None])[None]
        expected, found = reference.run(images), other.run(images)
        for one, two in zip(expected, found, strict=True):
            assert one.shape == two.shape
            assert two.dtype == np.float32
            assert two.flags.c_contiguous
            np.testing.assert_allclose(one, two, atol=2e-4)
        np.testing.assert_allclose(np.linalg.norm(found[1], axis=-1), 1, atol=1e-5)


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
                np.testing.assert_array_equal(one[0], many[index])


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
    for one, two in zip(expected, backend_of(loaded, name).run(images), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_true_batches_of_mixed_sizes_give_single_results(
    device: str, weights: LoadedWeights
) -> None:
    """On a GPU equal padded sizes share a call; the grouping must put every result in its place."""
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
@pytest.mark.parametrize("count", [40, 3000])
def test_decoding_on_the_device_gives_the_host_s_keypoints(
    device: str, count: int, weights: LoadedWeights
) -> None:
    """What CUDA does, but for the recording of graphs, also runs on CPU tensors."""
    host = TorchBackend(weights, device="cpu")
    other = TorchBackend(weights, device=device)
    other.decodes = True
    config = DetectorConfig(max_keypoints=count, score_threshold=1e-3)
    options = {"channels": 1, "descriptor_dim": 256, "config": config}
    images = [
        PHOTOGRAPH[:117, :160],
        PHOTOGRAPH[200:260, 200:300],
        PHOTOGRAPH[100:217, 20:180],
        PHOTOGRAPH[:1, :1],
    ]
    mask = np.zeros((117, 160), np.uint8)
    mask[30:, 50:] = 1
    masks = [mask, None, None, None]
    found = Detector(other, **options).extract_batch(images, masks)
    expected = Detector(host, **options).extract_batch(images, masks)
    assert len(expected[1]) > 10
    for one, two in zip(expected, found, strict=True):
        assert len(one) == len(two)
        assert one.image_size == two.image_size
        np.testing.assert_allclose(one.keypoints, two.keypoints, atol=1e-3)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
        np.testing.assert_allclose(one.descriptors, two.descriptors, atol=1e-4)
        np.testing.assert_array_equal(one.sizes, two.sizes)


def test_recorded_graphs_are_bounded_and_the_oldest_goes() -> None:
    recorded: list[tuple[int, ...]] = []

    def record(function: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        recorded.append(tuple(inputs[0].shape))
        return lambda values: function(*values)

    graphs = GraphCache(record)
    for size in [*range(1, MOST_GRAPHS + 1), 1, MOST_GRAPHS + 1, 1, 2]:
        answer = graphs.run("double", lambda x: 2 * x, (torch.ones(size),))
        assert answer.tolist() == [2.0] * size
    assert len(graphs) == MOST_GRAPHS
    # 1 was used again before there were too many, so 2 went and had to be recorded anew.
    assert recorded == [(size,) for size in [*range(1, MOST_GRAPHS + 2), 2]]


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
    exact = TorchBackend(weights, device="cpu").run(image)
    rough = TorchBackend(weights, device=device, precision=precision).run(image)
    cosine = (exact[1] * rough[1]).sum(axis=-1)
    assert np.median(cosine) > 0.99
    assert np.median(np.abs(exact[0] - rough[0])) < 0.2


# Which one is taken.


def test_auto_takes_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose(backend="auto", device="cpu", precision="auto")
    assert (chosen.backend, chosen.device, chosen.precision) == ("ncnn", "cpu", "float32")
    assert "least processor time" in chosen.reason
    gone = {"ncnn"}
    there = choosing.is_installed
    monkeypatch.setattr(choosing, "is_installed", lambda name: name not in gone and there(name))
    assert choose(backend="auto", device="cpu", precision="auto").backend == "openvino"
    gone |= {"openvino", "onnxruntime"}
    assert choose(backend="auto", device="cpu", precision="auto").backend == "torch"
    gone |= {"torch"}
    with pytest.raises(ImportError, match="none of the packages"):
        choose(backend="auto", device="cpu", precision="auto")


def test_auto_takes_bfloat16_only_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv_superpoint.backends import openvino

    monkeypatch.setattr(openvino, "has_bfloat16", lambda: True)
    ask = {"backend": "auto", "device": "cpu", "precision": "auto"}
    assert choose(**ask).backend == "ncnn"
    chosen = choose(**ask, measured=("float32", "bfloat16"))
    assert (chosen.backend, chosen.precision) == ("openvino", "bfloat16")
    assert "multiplies in bfloat16" in chosen.reason
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    assert choose(**ask, measured=("float32", "bfloat16")).backend == "ncnn"


def test_a_gpu_is_taken_or_the_missing_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = {"backend": "auto", "device": "auto", "precision": "auto"}
    monkeypatch.setattr(choosing, "accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = choose(**ask, measured=("float32", "float16"))
    assert (chosen.backend, chosen.device, chosen.precision) == ("torch", "cuda", "float16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "not built for it" in choose(**ask).reason
    monkeypatch.setattr(choosing, "is_installed", lambda name: name == "ncnn")
    assert 'pip install "cv-superpoint[torch]"' in choose(**ask).reason


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"backend": "tensorflow"}, "backend must be 'auto' or one of ncnn, openvino"),
        ({"precision": "int4"}, "precision must be 'auto' or one of float32"),
        ({"backend": "ncnn", "device": "cuda"}, "runs on 'cpu' only"),
        ({"backend": "torch", "precision": "float16"}, "use 'float32' or 'bfloat16'"),
        ({"backend": "onnxruntime", "device": "fpga"}, "device must be 'auto', 'cpu'"),
        ({"backend": "torch", "device": "toaster"}, "device must be 'auto' or a torch device"),
        ({"backend": "openvino", "precision": "bfloat16"}, "neither AMX nor AVX512-BF16"),
        ({"threads": 0}, "threads must be positive"),
    ],
)
def test_what_cannot_be_had_is_told(
    ask: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cv_superpoint.backends import openvino

    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    with pytest.raises(ValueError, match=message):
        SuperPointFeature2D.create(**{"device": "cpu", **ask})


def test_describe_says_what_runs_and_why() -> None:
    text = SuperPointFeature2D.create(device="cpu", threads=1).describe()
    assert "ncnn" in text
    assert "1 threads" in text
    assert "least processor time" in text
    assert "openvino" in SuperPointFeature2D.create(backend="openvino").describe()
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


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
        assert len(stored.read_bytes()) == len(content)


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


@pytest.mark.parametrize("name", ["ncnn", "openvino", "onnxruntime", "torch"])
def test_threads_share_a_detector_and_have_their_own(name: str) -> None:
    """Two threads with one detector, and eight with one each: always the results of one alone."""
    images = [PHOTOGRAPH[:104, :128], PHOTOGRAPH[200:320, 100:300], PHOTOGRAPH[50:90, 60:120]]
    shared = SuperPointFeature2D.create(200, 0.01, device="cpu", backend=name)
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

    own = [
        SuperPointFeature2D.create(200, 0.01, device="cpu", backend=name, threads=1)
        for _ in range(8)
    ]
    for detectors in ([shared, shared], own):
        threads = [
            threading.Thread(target=work, args=(one, start)) for start, one in enumerate(detectors)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


# Without the packages of the extras.

WITHOUT = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run_without(blocked: set[str], script: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(blocked=blocked) + script
    environment = {**os.environ, cache.ENVIRONMENT: ""}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("name", ["auto", "ncnn", "openvino", "onnxruntime"])
def test_cpu_backends_need_no_torch(name: str, tmp_path: Path) -> None:
    image = PHOTOGRAPH[:104, :128]
    expected = SuperPointFeature2D.create(50, 0.01, device="cpu", backend="torch").extract(image)
    np.save(tmp_path / "image.npy", image)
    script = f"""
import numpy as np, cv_superpoint
image = np.load({str(tmp_path / "image.npy")!r})
detector = cv_superpoint.SuperPointFeature2D.create(50, 0.01, backend={name!r})
features = detector.extract(image)
np.savez({str(tmp_path / "found.npz")!r}, k=features.keypoints, d=features.descriptors)
assert "torch" not in sys.modules
"""
    done = run_without({"torch"}, script)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["k"], expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found["d"], expected.descriptors, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "name", "remedy"),
    [
        ("torch", "torch", 'pip install "cv-superpoint[torch]"'),
        ("openvino", "openvino", 'pip install "cv-superpoint[cpu]"'),
        ("onnxruntime", "onnxruntime", 'pip install "cv-superpoint[onnx]"'),
        ("onnx", "onnxruntime", 'pip install "cv-superpoint[onnx]"'),
        ("ncnn", "ncnn", "pip install ncnn"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package: str, name: str, remedy: str) -> None:
    script = f"""
import cv_superpoint
try:
    cv_superpoint.SuperPointFeature2D.create(backend={name!r})
except ImportError as error:
    print(error)
"""
    done = run_without({package}, script)
    assert remedy in done.stdout, done.stderr
    assert repr(package) in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP tells how it waits")
def test_ncnn_waits_without_spinning_and_leaves_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads that spin while they wait halve the speed as soon as another wants the cores."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "TRUE")  # makes the library print what it read
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    script = """
import os
from cv_superpoint import SuperPointFeature2D
SuperPointFeature2D.create(device="cpu")
assert "OMP_WAIT_POLICY" not in os.environ
"""
    done = run_without({"torch"}, script)
    assert done.returncode == 0, done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "x.pth")
    script = f"""
import cv_superpoint
for call in (
    lambda: cv_superpoint.SuperPoint,
    lambda: cv_superpoint.SuperPointFeature2D.create(weights={str(tmp_path / "x.pth")!r}),
    lambda: cv_superpoint.SuperPointFeature2D.create(device="cuda"),
):
    try:
        call()
    except (ImportError, ValueError) as error:
        print(error)
"""
    done = run_without({"torch"}, script)
    assert done.stdout.count('pip install "cv-superpoint[torch]"') == 3, done.stdout + done.stderr
