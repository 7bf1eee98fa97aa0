"""Exported graphs in every runtime that reads them, against the Python path."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import openvino
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.decoding import graph as decoding
from cv_superpoint.decoding.graph import FixedShape
from cv_superpoint.export import NO_KEYPOINT, export_onnx
from cv_superpoint.export.graph import Graph

SIZE = (112, 160)
PHOTOGRAPH = np.ascontiguousarray(skimage.data.camera()[100:212, 140:300])
IMAGE = (PHOTOGRAPH.astype(np.float32) / 255)[None, None]
COUNT, THRESHOLD = 60, 0.01
ENGINES = [getattr(cv2.dnn, name) for name in ("ENGINE_NEW",) if hasattr(cv2.dnn, name)]


def onnx_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnxruntime(path: Path, image: np.ndarray, names: list[str]) -> list[np.ndarray]:
    return onnx_session(path).run(names, {"image": image})


def run_openvino(path: Path, image: np.ndarray, names: list[str]) -> list[np.ndarray]:
    # Without the hint it takes bfloat16 where the CPU multiplies in it.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    answer = openvino.compile_model(path, "CPU", options)({"image": image})
    return [answer[name] for name in names]


def run_opencv(path: Path, image: np.ndarray, names: list[str]) -> list[np.ndarray]:
    net = cv2.dnn.readNetFromONNX(str(path), *ENGINES)
    net.setInput(image, "image")
    return list(net.forward(names))


RUNTIMES = pytest.mark.parametrize("run", [run_onnxruntime, run_openvino, run_opencv])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    options = {"size": SIZE, "max_keypoints": COUNT, "score_threshold": THRESHOLD}
    paths = {
        layout: export_onnx(None, folder / f"{layout}.onnx", layout, **options)
        for layout in ("heads", "full", "disk")
    }
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths.values()}
    return paths


@RUNTIMES
@pytest.mark.parametrize("shape", [(1, *SIZE), (2, 64, 88)])
def test_heads(
    run: object, shape: tuple[int, int, int], files: dict[str, Path], detector: SuperPointFeature2D
) -> None:
    batch, height, width = shape
    pixels = np.stack([PHOTOGRAPH[:height, :width], PHOTOGRAPH[-height:, -width:]][:batch])
    found = run(files["heads"], pixels[:, None].astype(np.float32) / 255, ["logits", "descriptors"])
    logits, dense = detector.detector.backend.run(np.ascontiguousarray(pixels[..., None]))
    rows = np.stack([np.ascontiguousarray(maps).reshape(*maps.shape[:2], -1) for maps in dense])
    units = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    for one, other in zip(found, (np.stack(logits), units), strict=True):
        np.testing.assert_allclose(one.transpose(0, 2, 3, 1), other, atol=2e-4)


@RUNTIMES
def test_full(run: object, files: dict[str, Path]) -> None:
    expected = SuperPointFeature2D.create(COUNT, THRESHOLD, **PINNED).extract(PHOTOGRAPH)
    keypoints, scores, descriptors = run(
        files["full"], IMAGE, ["keypoints", "scores", "descriptors"]
    )
    assert keypoints.shape == (1, COUNT, 2)
    kept = scores[0] > 0
    assert np.all(scores[0][~kept] == NO_KEYPOINT)
    assert kept.sum() == len(expected) > 20
    np.testing.assert_allclose(keypoints[0][kept], expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(scores[0][kept], expected.scores, atol=1e-5)
    np.testing.assert_allclose(descriptors[0][kept], expected.descriptors, atol=1e-4)


@pytest.mark.skipif(not hasattr(cv2, "DISK"), reason="cv2.DISK is of OpenCV 5")
def test_disk_is_a_feature2d_of_opencv(files: dict[str, Path]) -> None:
    """The class is C++'s own, so what takes a ``cv2.Feature2D`` takes it."""
    feature = cv2.DISK.create(str(files["disk"]), imageSize=SIZE[::-1])
    assert isinstance(feature, cv2.Feature2D)
    keypoints, descriptors = feature.detectAndCompute(cv2.merge([PHOTOGRAPH] * 3), None)
    ours = SuperPointFeature2D.create(COUNT, THRESHOLD, subpixel=False, **PINNED)
    expected = ours.extract(PHOTOGRAPH)
    assert len(keypoints) == len(expected)
    np.testing.assert_array_equal([keypoint.pt for keypoint in keypoints], expected.keypoints)
    np.testing.assert_allclose(descriptors, expected.descriptors, atol=1e-4)
    image_features = cv2.detail.computeImageFeatures2(feature, cv2.merge([PHOTOGRAPH] * 3))
    assert len(image_features.keypoints) == len(keypoints)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, 4, 1024]),  # whose sums float32 holds exactly
    radius=st.integers(0, 5),
    score_radius=st.integers(0, 2),
    margin=st.integers(0, 5),
    batch=st.integers(1, 2),
)
def test_decoding_in_the_graph_equals_ours_with_ties(
    seed: int, levels: int, radius: int, score_radius: int, margin: int, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    heatmaps = (rng.integers(0, levels + 1, (batch, 1, 24, 40)) / levels).astype(np.float32)
    dense = rng.normal(size=(batch, 16, 3, 5)).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    shape = FixedShape(size=(24, 40), batch=batch)
    config = Decoding(
        max_keypoints=40,
        score_threshold=0.015,
        nms_radius=radius,
        score_radius=score_radius,
        border_margin=margin,
    )
    found = _decode(heatmaps, dense, config, shape)
    for index, (keypoints, scores, descriptors) in enumerate(zip(*found, strict=True)):
        heatmap = heatmaps[index, 0]
        rows, columns, sums = decode.keypoints(heatmap, config)
        keep = (rows >= margin) & (rows < 24 - margin)
        keep &= (columns >= margin) & (columns < 40 - margin)
        rows, columns, sums = rows[keep], columns[keep], sums[keep]
        best = decode.strongest(sums, config.max_keypoints)
        points = decode.refine(heatmap, rows[best], columns[best])
        rows_of = decode.sample_descriptors(dense[index].transpose(1, 2, 0).copy(), points)
        kept = scores > 0
        assert kept.sum() == len(best)
        np.testing.assert_allclose(scores[kept], sums[best], rtol=1e-5)
        np.testing.assert_allclose(keypoints[kept], points, atol=1e-5)
        np.testing.assert_allclose(descriptors[kept], rows_of, atol=1e-5)


def _decode(
    heatmaps: np.ndarray, dense: np.ndarray, config: Decoding, shape: FixedShape
) -> list[np.ndarray]:
    graph = Graph()
    x, y, scores = decoding.find(graph, "heat", config, shape)
    described = decoding.sample(graph, "dense", x, y, 16, shape)
    last = graph.constant([2])
    points = graph.add("Concat", *(graph.add("Unsqueeze", one, last) for one in (x, y)), axis=2)
    model = graph.model(
        {"heat": heatmaps.shape, "dense": dense.shape},
        {
            "points": (points, "float32", [shape.batch, config.max_keypoints, 2]),
            "scores": (scores, "float32", [shape.batch, config.max_keypoints]),
            "rows": (described, "float32", [shape.batch, config.max_keypoints, 16]),
        },
        "decoding only",
    )
    session = onnx_session(model.SerializeToString())
    return session.run(None, {"heat": heatmaps, "dense": dense})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tensorrt"}, "layout must be one of heads, full, disk"),
        ({"layout": "full", "size": (100, 160)}, "multiples of 8"),
        ({"layout": "full", "size": None}, r"size must be \(height, width\) in pixels, got None"),
        ({"layout": "disk", "size": (16,)}, r"size must be \(height, width\) in pixels"),
        ({"layout": "disk", "size": "ab"}, r"size must be \(height, width\) in pixels"),
        ({"layout": "full", "batch": 1.5}, "batch must be a whole number, at least 1, got 1.5"),
        ({"layout": "full", "max_keypoints": -1}, "cannot keep all"),
        ({"layout": "disk", "batch": 2}, "batch must be 1"),
        ({"layout": "disk", "size": (120, 160)}, "multiples of 16"),
        ({"layout": "full", "score_threshold": 1.5}, "score_threshold must lie"),
    ],
)
def test_wrong_arguments_are_told(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export_onnx(None, tmp_path / "x.onnx", **options)
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(None, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []
