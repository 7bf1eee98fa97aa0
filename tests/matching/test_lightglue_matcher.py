"""The learned matcher: one network in torch, numpy and ONNX, its files, and its interface."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from cv_superpoint import FeatureError, Features, WeightsError
from cv_superpoint.interop.lightglue import OpenCVLightGlue
from cv_superpoint.matching.lightglue.arrays import assignment_scores, mutual_best
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import load_matcher, save_matcher, tensor_shapes
from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher
from cv_superpoint.matching.lightglue.network import MatcherNet

CONFIG = MatcherConfig(descriptor_dim=24, width=32, layers=2, heads=2)
BACKENDS = ("numpy", "onnxruntime", "openvino", "torch")


def network(config: MatcherConfig = CONFIG) -> MatcherNet:
    torch.manual_seed(0)
    net = MatcherNet(config).eval().requires_grad_(False)
    for head in net.heads:
        # Untrained, nothing is sure: sharper similarities make matches.
        head.project.weight.mul_(6)
        head.matchable.bias.fill_(3.0)
    return net


def drawn(count: int, seed: int, dim: int = CONFIG.descriptor_dim) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Features(
        keypoints=rng.uniform(0, (320, 240), (count, 2)).astype(np.float32),
        scores=np.ones(count, np.float32),
        descriptors=rows,
        sizes=np.full(count, 8, np.float32),
        octaves=np.zeros(count, np.int32),
        image_size=(240, 320),
    )


def normalised(features: Features) -> np.ndarray:
    height, width = features.image_size
    return features.keypoints / np.array([width, height], np.float32) * 2 - 1


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("matcher") / "matcher.safetensors"
    save_matcher(file, network().state_dict(), CONFIG, weights="superpoint", threshold=0.05)
    return file


def in_torch(net: MatcherNet, first: Features, second: Features) -> np.ndarray:
    inputs = [normalised(first), normalised(second), first.descriptors, second.descriptors]
    found = net(*(torch.from_numpy(rows)[None] for rows in inputs))
    return found[-1].scores()[0].numpy()


@pytest.mark.parametrize("heads", [1, 2])
@settings(max_examples=6)
@given(count0=st.integers(1, 40), count1=st.integers(1, 40), seed=st.integers(0, 99))
def test_numpy_computes_what_torch_does(heads: int, count0: int, count1: int, seed: int) -> None:
    # float32, one thread
    config = replace(CONFIG, heads=heads)
    net = network(config)
    first, second = drawn(count0, seed), drawn(count1, seed + 1)
    scores = assignment_scores(
        {name: value.numpy() for name, value in net.state_dict().items()},
        config,
        (normalised(first), normalised(second)),
        (first.descriptors, second.descriptors),
    )
    np.testing.assert_allclose(scores, in_torch(net, first, second), rtol=2e-3, atol=1e-6)


def test_scores_are_probabilities_and_padding_changes_nothing() -> None:
    net = network()
    first, second = drawn(30, 0), drawn(20, 1)
    alone = in_torch(net, first, second)
    assert (alone >= 0).all()
    assert (alone.sum(axis=0) <= 1 + 1e-5).all()
    assert (alone.sum(axis=1) <= 1 + 1e-5).all()
    inputs, valid = [], []
    for features in (first, second):
        shown = torch.arange(40) < len(features)
        valid.append(shown[None])
        for rows in (normalised(features), features.descriptors):
            padded = torch.full((1, 40, rows.shape[1]), 7.0)
            padded[0, : len(rows)] = torch.from_numpy(rows)
            inputs.append(padded)
    points0, rows0, points1, rows1 = inputs
    found = net(points0, points1, rows0, rows1, *valid)[-1].scores()[0, :30, :20]
    np.testing.assert_allclose(found.numpy(), alone, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_returns_mutual_best_above_the_threshold(path: Path, backend: str) -> None:
    first, second = drawn(60, 2), drawn(50, 3)
    matcher = LightGlueMatcher.create(path, backend=backend, threads=1)
    assert matcher.backend == backend
    rows, scores = matcher(first, second)
    expected, values = mutual_best(in_torch(network(), first, second), 0.05)
    assert len(expected) >= 3
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, values, rtol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_interface_is_opencv_s(path: Path, backend: str) -> None:
    first, second = drawn(60, 2), drawn(50, 3)
    matcher = LightGlueMatcher.create(path, backend=backend)
    rows, scores = matcher(first, second)
    size = (320, 240)
    matcher.setPairInfo(first.to_keypoints(), second.keypoints, size, size)
    found = matcher.match(first.descriptors, second.descriptors)
    assert [(m.queryIdx, m.trainIdx) for m in found] == [tuple(pair) for pair in rows.tolist()]
    np.testing.assert_allclose([m.distance for m in found], 1 - scores, atol=1e-6)
    matcher.setPairInfo(normalised(first), normalised(second))
    by_row = matcher.knnMatch(first.descriptors, second.descriptors, 2)
    assert len(by_row) == len(first)
    assert [m[0].trainIdx for m in by_row if m] == rows[:, 1].tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_of_different_sizes_and_types_of_positions(path: Path, backend: str) -> None:
    """What counts is where a keypoint lies in its own picture."""
    first, second = drawn(60, 2), drawn(50, 3)
    matcher = LightGlueMatcher.create(path, backend=backend)
    expected = matcher(first, second)
    larger = replace(second, keypoints=second.keypoints * (2, 3), image_size=(720, 640))
    larger = replace(larger, keypoints=larger.keypoints.astype(np.float32))
    rows, scores = matcher(first, larger)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-3)
    for points in (first.keypoints.astype(np.float64), first.keypoints.tolist()):
        matcher.setPairInfo(points, larger.keypoints, (320, 240), (640, 720))
        found = matcher.match(first.descriptors, second.descriptors)
        assert [(m.queryIdx, m.trainIdx) for m in found] == [tuple(row) for row in rows.tolist()]


@pytest.mark.skipif(not hasattr(cv2, "LightGlueMatcher"), reason="OpenCV 5 has LightGlueMatcher")
def test_opencv_runs_the_exported_file(path: Path, tmp_path: Path) -> None:
    first, second = drawn(60, 2), drawn(50, 3)
    own = LightGlueMatcher.create(path)
    file = tmp_path / "matcher.onnx"
    file.write_bytes(own.export_onnx())
    matcher = cv2.LightGlueMatcher.create(str(file))
    content = np.frombuffer(own.export_onnx(), np.uint8)
    in_memory = OpenCVLightGlue(cv2.LightGlueMatcher.createFromMemory(content), own_sides=True)
    for pair in ((first, second), (second, first)):
        rows, scores = own(*pair)
        again, values = in_memory(*pair)
        order = np.argsort(again[:, 0])
        np.testing.assert_array_equal(again[order], rows)
        np.testing.assert_allclose(values[order], scores, atol=1e-4)
        matcher.setPairInfo(*(features.keypoints for features in pair), (320, 240), (320, 240))
        found = sorted(
            (m.queryIdx, m.trainIdx, m.distance)
            for m in matcher.match(pair[0].descriptors, pair[1].descriptors)
        )
        assert [match[:2] for match in found] == [tuple(row) for row in rows.tolist()]
        np.testing.assert_allclose([match[2] for match in found], 1 - scores, atol=1e-4)


def test_colmap_s_layout_takes_pixels(path: Path) -> None:
    first, second = drawn(40, 4), drawn(30, 5)
    own = LightGlueMatcher.create(path)
    session = onnxruntime.InferenceSession(own.export_onnx("colmap"))
    assert [each.name for each in session.get_inputs()] == [
        "kpts0", "kpts1", "desc0", "desc1", "image_size0", "image_size1",
    ]  # fmt: skip
    size = np.array([[320, 240]], np.float32)
    target, scores = session.run(
        None,
        {
            "kpts0": first.keypoints[None],
            "kpts1": second.keypoints[None],
            "desc0": first.descriptors[None],
            "desc1": second.descriptors[None],
            "image_size0": size,
            "image_size1": size,
        },
    )
    rows, values = own(first, second)
    assert target.shape == scores.shape == (40,)
    np.testing.assert_array_equal(np.flatnonzero(target >= 0), rows[:, 0])
    np.testing.assert_array_equal(target[rows[:, 0]], rows[:, 1])
    np.testing.assert_allclose(scores[rows[:, 0]], values, rtol=2e-3)


@settings(max_examples=30)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 999))
def test_mutual_best_by_definition_with_ties(rows: int, columns: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, (rows, columns)).astype(np.float32) / 8
    pairs, values = mutual_best(scores, 0.2)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    for (i, j), value in zip(pairs, values, strict=True):
        assert value == scores[i, j] == scores[i].max() == scores[:, j].max() > 0.2
    clear = (
        scores + np.random.default_rng(seed).permutation(scores.size).reshape(scores.shape) / 1e4
    )
    expected = {
        (i, j)
        for i, j in np.ndindex(*clear.shape)
        if clear[i, j] == clear[i].max() == clear[:, j].max() > 0.2
    }
    assert set(map(tuple, mutual_best(clear.astype(np.float32), 0.2)[0].tolist())) == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_thousands_of_keypoints_and_threads_are_no_matter(path: Path, backend: str) -> None:
    """Calls at the same time, of different sizes, and after pickling."""
    matcher = LightGlueMatcher.create(path, backend=backend, threads=1)
    first, second = drawn(2500, 6), drawn(1800, 7)
    pairs = [(first[:count], second[:200]) for count in (400, 40, 1, 300)]
    alone = [matcher(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: matcher(*pair), pairs))
    again = pickle.loads(pickle.dumps(matcher))
    assert (again.backend, again.threshold) == (backend, matcher.threshold)
    for one, other in ((alone[1], again(*pairs[1])), *zip(alone, together, strict=True)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4)
    assert len(matcher(first, second)[0]) > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (1, 1), (1, 9)])
def test_few_keypoints_are_no_error(path: Path, backend: str, counts: tuple[int, int]) -> None:
    matcher = LightGlueMatcher.create(path, 0.0, backend=backend)
    rows, scores = matcher(drawn(counts[0], 0), drawn(counts[1], 1))
    assert len(rows) == len(scores) <= min(counts)
    assert rows.shape[1] == 2


def test_what_does_not_fit_is_refused_by_name(path: Path) -> None:
    matcher = LightGlueMatcher.create(path)
    first, second = drawn(5, 0), drawn(50, 1)
    with pytest.raises(FeatureError, match="24 numbers of superpoint"):
        matcher(first, drawn(5, 1, dim=32))
    broken = replace(first, keypoints=np.full((5, 2), np.nan, np.float32))
    with pytest.raises(FeatureError, match="not finite"):
        matcher(broken, first)
    with pytest.raises(FeatureError, match="call setPairInfo before each match"):
        matcher.match(first.descriptors, first.descriptors)
    matcher.setPairInfo(first.keypoints, first.keypoints, (320, 240), (320, 240))
    matcher.match(first.descriptors, first.descriptors)
    with pytest.raises(FeatureError, match="call setPairInfo before each match"):
        matcher.match(first.descriptors, first.descriptors)
    matcher.setPairInfo(first.keypoints[:3], first.keypoints, (320, 240), (320, 240))
    with pytest.raises(FeatureError, match="3 positions and 5 descriptors"):
        matcher.match(first.descriptors, first.descriptors)
    matcher.setPairInfo(first.keypoints, first.keypoints)
    with pytest.raises(FeatureError, match="float32 rows, got uint8"):
        matcher.match(first.descriptors.astype(np.uint8), first.descriptors)
    with pytest.raises(FeatureError, match="threshold"):
        LightGlueMatcher.create(path, 1.5)
    for sizes in (((0, 0), (0, 0)), ((240, 320), (320, 240))):  # forgotten, and height first
        matcher.setPairInfo(second.keypoints, second.keypoints, *sizes)
        with pytest.raises(FeatureError, match=r"far outside of it; .* as \(width, height\)"):
            matcher.match(second.descriptors, second.descriptors)
    with pytest.raises(FeatureError, match=r"positions must have shape \(N, 2\), got \(5, 3\)"):
        matcher.setPairInfo(np.zeros((5, 3)), first.keypoints, (320, 240), (320, 240))
    with pytest.raises(FeatureError, match="threads must be a whole number, at least 1"):
        LightGlueMatcher.create(path, threads=0)
    with pytest.raises(FeatureError, match="not finite"):
        matcher(replace(first, descriptors=np.full_like(first.descriptors, np.nan)), first)
    with pytest.raises(FeatureError, match="backend must be one of auto, openvino"):
        LightGlueMatcher.create(path, backend="tensorflow")  # type: ignore[arg-type]


def test_a_file_holds_what_was_saved(path: Path) -> None:
    loaded = load_matcher(path)
    assert (loaded.config, loaded.weights, loaded.threshold) == (CONFIG, "superpoint", 0.05)
    state = network().state_dict()
    assert {name: value.shape for name, value in loaded.tensors.items()} == tensor_shapes(CONFIG)
    assert set(state) == set(loaded.tensors)
    for name, value in state.items():
        np.testing.assert_array_equal(loaded.tensors[name], value.numpy())


def test_other_and_damaged_files_are_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, other)
    with pytest.raises(WeightsError, match="expected a matcher"):
        load_matcher(other)
    with pytest.raises(WeightsError, match="no such weights file"):
        load_matcher(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_matcher(cut)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in load_file(path).items()}
    tensors["project.weight"][0, 0] = float("nan")
    save_matcher(other, tensors, CONFIG, weights="superpoint")
    with pytest.raises(WeightsError, match="NaN"):
        load_matcher(other)
    save_matcher(other, tensors, replace(CONFIG, layers=3), weights="superpoint")
    with pytest.raises(WeightsError, match="expected a tensor"):
        load_matcher(other)


@pytest.mark.parametrize("values", [{"width": 0}, {"width": 30, "heads": 4}, {"layers": -1}])
def test_impossible_sizes_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(FeatureError):
        MatcherConfig(**values)
