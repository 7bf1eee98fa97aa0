"""Networks without a descriptor head: what they find is what the same network finds with one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPoint, SuperPointFeature2D, match_features
from cv_superpoint.backends import Backend, choose, make_backend
from cv_superpoint.backends.openvino import has_bfloat16
from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.backends.torch import TorchBackend
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    NetworkConfig,
    blocks,
    layers,
    multiplications,
    receptive_margin,
)
from cv_superpoint.network.arrays import run_in_8_bits, run_layers
from cv_superpoint.network.quantisation import rounded_maps
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import WeightsError, find_ranges, load_weights
from cv_superpoint.weights.saving import write_weights

NOT_IMPLEMENTED = -213
PHOTOGRAPH = skimage.data.camera()
NETWORKS = {
    "paper": NetworkConfig(channels=(4, 6, 8, 8), head_channels=8, descriptor_dim=16),
    "lite": NetworkConfig(
        channels=(6, 8, 12), depths=(1, 2, 2), downsampling="stride", detector_skips=True,
        head_channels=8, descriptor_dim=16,
    ),
}  # fmt: skip
NEEDS_INT8 = pytest.mark.skipif(CPU_INT8 not in instructions(), reason=f"needs {CPU_INT8}")
NEEDS_BFLOAT16 = pytest.mark.skipif(not has_bfloat16(), reason="needs a CPU with bfloat16")
BACKENDS = [
    ("ncnn", "float32"),
    ("openvino", "float32"),
    ("onnxruntime", "float32"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    pytest.param("openvino", "bfloat16", marks=NEEDS_BFLOAT16),
    pytest.param("openvino", "int8", marks=NEEDS_INT8),
    pytest.param("onnxruntime", "int8", marks=NEEDS_INT8),
]


def both(kind: str) -> tuple[NetworkWeights, NetworkWeights]:
    """A network of random values with descriptors, and its detector, each with ranges."""
    torch.manual_seed(5)
    net = SuperPointNet(NETWORKS[kind]).eval()
    torch.nn.init.normal_(net.detector_output.conv.weight, std=1.0)
    whole = NetworkWeights.of(net)
    found = [
        replace(one, ranges=find_ranges(one, [PHOTOGRAPH[:120, :160, None]]))
        for one in (whole, whole.without_descriptors)
    ]
    return found[0], found[1]


def backend_of(weights: NetworkWeights, name: str, precision: str) -> Backend:
    choice = choose(backend=name, device="cpu", precision=precision)
    return make_backend(weights, choice, threads=1 if name == "torch" else 2)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_head_is_left_out_and_nothing_else(kind: str) -> None:
    whole, alone = both(kind)
    assert alone.config == replace(whole.config, descriptor_dim=0)
    assert [*blocks(alone.config), *DESCRIPTOR] == list(blocks(whole.config))
    assert set(rounded_maps(alone.config)) < set(rounded_maps(whole.config))
    assert receptive_margin(alone.config) <= receptive_margin(whole.config)
    head = sum(np.prod(one.shape) for one in layers(whole.config) if one.name in DESCRIPTOR)
    cells = 6 * 8
    less = multiplications(whole.config, (48, 64)) - multiplications(alone.config, (48, 64))
    assert less == head * cells
    logits, dense = alone.net(torch.rand(2, 1, 48, 64))
    assert (logits.shape, dense.shape) == ((2, 65, 6, 8), (2, 0, 6, 8))
    with pytest.raises(FeatureError, match="descriptor_dim must not be negative, got -1"):
        NetworkConfig(descriptor_dim=-1)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("name", "precision"), BACKENDS)
def test_every_backend_gives_the_logits_and_no_descriptors(
    name: str, precision: str, kind: str
) -> None:
    """Also in bands and strips, and in a batch; 2 threads, of torch 1."""
    whole, alone = both(kind)
    backends = [backend_of(one, name, precision) for one in (whole, alone)]
    images = np.stack([PHOTOGRAPH[top : top + 240, :168, None] for top in (0, 200)])
    expected = [backends[0].run(images)[0] for _ in range(3)][-1]
    for _ in range(3):  # OpenVINO tries its ways in turn
        logits, dense = backends[1].run(images)
        assert [maps.shape for maps in dense] == [(30, 21, 0)] * 2
        assert {maps.dtype for maps in dense} == {np.dtype(np.float32)}
    for index, image in enumerate(images):
        if (precision, kind) != ("int8", "lite"):  # there the descriptors' input is rounded
            # A runtime may compute the layers before the heads another way in 16 bits.
            close = (1e-4 if precision != "bfloat16" else 0.05) * np.abs(expected[index]).max()
            np.testing.assert_allclose(logits[index], expected[index], atol=close)
        exact = (run_in_8_bits if precision == "int8" else run_layers)(alone, image)
        assert exact[1].shape == (0, 30, 21)
        error = np.abs(logits[index].transpose(2, 0, 1) - exact[0]).mean() / exact[0].std()
        assert error < (0.03 if precision != "float32" else 1e-4)


def test_what_a_gpu_runs_decodes_the_same_keypoints() -> None:
    """The code of CUDA graphs, run by the CPU in float32; 1 thread."""
    whole, alone = both("lite")
    decoding = Decoding(max_keypoints=-1, score_threshold=0.02, score_radius=0)
    found = []
    for weights, decodes in ((whole, False), (alone, True)):
        backend = TorchBackend(weights, device="cpu", threads=1)
        backend.decodes, backend._room = decodes, 16
        detector = Detector(backend, weights.config, DetectorConfig(decoding=decoding))
        found.append(detector.extract(PHOTOGRAPH[:200, :240]))
    assert len(found[1]) == len(found[0]) > 100
    assert found[1].descriptors.shape == (len(found[1]), 0)
    # Of equal scores the order differs.
    places = [one.keypoints[np.lexsort(np.rint(one.keypoints).T)] for one in found]
    np.testing.assert_allclose(*places, atol=1e-3)


# The interface of OpenCV, with the detector of a bundled set.


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """superpoint-lite without its descriptors, at two levels."""
    path = tmp_path_factory.mktemp("weights") / "corners.safetensors"
    lite = load_weights("superpoint-lite")
    write_weights(
        lite.without_descriptors,
        path,
        score_threshold=lite.score_threshold,
        score_radius=lite.score_radius,
        scales=(1.0, 0.5),
    )
    return path


@pytest.fixture(scope="module")
def corners(file: Path) -> SuperPointFeature2D:
    return SuperPointFeature2D.create(300, weights=file, **PINNED)


@pytest.fixture(scope="module")
def whole() -> SuperPointFeature2D:
    return SuperPointFeature2D.create(300, weights="superpoint-lite", scales=(1, 0.5), **PINNED)


def rows(keypoints: Any) -> list[tuple[Any, ...]]:
    return [(*k.pt, k.response, k.size, k.octave, k.angle, k.class_id) for k in keypoints]


def test_detect_finds_what_the_whole_network_finds(
    corners: SuperPointFeature2D, whole: SuperPointFeature2D, bgr: np.ndarray
) -> None:
    expected = rows(whole.detectAndCompute(bgr)[0])
    assert len(expected) > 100
    assert rows(corners.detect(bgr)) == expected
    assert rows(corners.detect(cv2.UMat(bgr))) == expected
    mask = np.zeros(bgr.shape[:2], np.uint8)
    mask[:, :150] = 255
    assert rows(corners.detect(bgr, mask)) == rows(whole.detect(bgr, mask))
    small = bgr[:64, :96].copy()
    found = corners.detect([bgr, small, bgr], masks=[mask, None, None])
    assert [rows(one) for one in found] == [
        rows(one) for one in whole.detect([bgr, small, bgr], masks=[mask, None, None])
    ]
    tiled = SuperPointFeature2D.create(300, weights=corners._weights.path, tileSize=128, **PINNED)
    np.testing.assert_allclose(rows(tiled.detect(bgr)), expected, atol=1e-3)


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "detectAndCompute": lambda detector, image, _: detector.detectAndCompute(image, None),
    "detectAndCompute of nothing": lambda detector, *_: detector.detectAndCompute(None, None),
    "provided": lambda detector, image, _: detector.detectAndCompute(image, None, None, True),
    "compute": lambda detector, image, found: detector.compute(image, found),
    "compute of no keypoints": lambda detector, image, _: detector.compute(image, ()),
    "compute of a list": lambda detector, image, found: detector.compute([image], [found]),
}
OURS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "extract": lambda detector, image, _: detector.extract(image),
    "extractBatch": lambda detector, image, _: detector.extractBatch([image]),
    "extractStream": lambda detector, image, _: detector.extractStream([image]),
}


@pytest.mark.parametrize("call", {**CALLS, **OURS})
def test_what_needs_descriptors_is_refused_as_by_opencv(
    call: str, corners: SuperPointFeature2D, bgr: np.ndarray
) -> None:
    fast = cv2.FastFeatureDetector_create()
    found = fast.detect(bgr)
    if call in CALLS:
        with pytest.raises(cv2.error) as theirs:
            CALLS[call](fast, bgr, found)
        assert theirs.value.code == NOT_IMPLEMENTED
    message = r"'corners.safetensors' find keypoints only.*call detect\(\), or take other weights"
    with pytest.raises(FeatureError, match=message) as ours:
        {**CALLS, **OURS}[call](corners, bgr, found)
    assert isinstance(ours.value, cv2.error)
    assert ours.value.code == NOT_IMPLEMENTED


def test_what_it_says_of_itself(corners: SuperPointFeature2D, bgr: np.ndarray) -> None:
    fast = cv2.FastFeatureDetector_create()
    for name in ("descriptorSize", "descriptorType", "defaultNorm"):
        assert getattr(corners, name)() == getattr(fast, name)(), name
    assert corners.descriptorSize() == corners.getDescriptorDim() == 0
    assert corners.compute([], []) == fast.compute([], []) == ((), ())
    assert (
        ", keypoints only, ncnn"
        in SuperPointFeature2D.create(weights=corners._weights.path, backend="ncnn").info()
    )
    for options in ({"descriptorFormat": "uint8"}, {"descriptorDim": 64}):
        with pytest.raises(FeatureError, match="find keypoints only; leave descriptor_format"):
            SuperPointFeature2D.create(weights=corners._weights.path, **options)
    with pytest.raises(FeatureError, match="find keypoints only"):
        corners.setDescriptorFormat("binary")


def test_options_and_detectors_are_kept(
    corners: SuperPointFeature2D, bgr: np.ndarray, tmp_path: Path
) -> None:
    corners.save(tmp_path / "corners.yml")
    other = SuperPointFeature2D.create(**PINNED)
    other.read(tmp_path / "corners.yml")
    again = pickle.loads(pickle.dumps(corners))
    expected = rows(corners.detect(bgr))
    for one in (other, again):
        assert one.descriptorSize() == 0
        assert rows(one.detect(bgr)) == expected


def test_features_without_descriptors_are_not_matched(
    corners: SuperPointFeature2D, bgr: np.ndarray
) -> None:
    features = corners.detector.extract(bgr)
    with pytest.raises(FeatureError, match=r"descriptors0 have no numbers.*take other weights"):
        match_features(features, features)


def test_ranges_are_those_of_its_own_maps(file: Path, tmp_path: Path) -> None:
    loaded = load_weights(file)
    assert loaded.config.descriptor_dim == 0
    assert loaded.ranges is None
    with pytest.raises(WeightsError, match="expected ranges for 8 bits of the maps"):
        write_weights(
            replace(loaded, ranges=load_weights("superpoint-lite").ranges),
            tmp_path / "x.safetensors",
        )


def test_as_a_module_of_torch(file: Path, grey: np.ndarray) -> None:
    module = SuperPoint.from_pretrained(file, max_keypoints=50)
    image = torch.from_numpy(grey)[None, None] / 255
    (found,) = module(image)
    expected = SuperPointFeature2D.create(50, weights=file, scales=1, **PINNED).detect(grey)
    np.testing.assert_allclose(
        found.keypoints.detach(), np.array([one.pt for one in expected]), atol=0.01
    )
    assert found.descriptors.shape == (50, 0)
    heatmap, dense = module.dense(image)
    assert dense.shape == (1, 0, 30, 40)
    heatmap.sum().backward()
