"""kornia's LightGlue and OpenCV's LightGlueMatcher run on our output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import kornia.feature
import numpy as np
import onnx
import pytest
import torch
from made import made_features
from onnx import TensorProto, helper

from cv_superpoint import Features, MatchResult, match_features
from cv_superpoint.interop import kornia as frames
from cv_superpoint.interop.lightglue import (
    OpenCVLightGlue,
    TorchLightGlue,
    from_lightglue,
    match_with_opencv,
    normalised,
    to_lightglue,
)


@pytest.fixture(scope="module")
def lightglue() -> Any:
    """kornia.feature.LightGlue('superpoint') with random weights in place of those it downloads."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(
            "kornia.feature.lightglue.load_state_dict_from_url", lambda *_, **__: {}, raising=True
        )
        return kornia.feature.LightGlue(
            "superpoint", filter_threshold=0.0, depth_confidence=-1, width_confidence=-1
        ).eval()


def test_kornias_lightglue_runs(lightglue: Any, pair: MatchResult) -> None:
    given = {
        "image0": to_lightglue(pair.features0),
        "image1": to_lightglue(pair.features0[::-1]),
    }
    with torch.inference_mode():
        matches, scores = from_lightglue(lightglue(given))
    # Equal points with equal descriptors get equal answers even from random weights.
    assert len(matches) > 0.5 * len(pair.features0)
    right = matches[:, 0] + matches[:, 1] == len(pair.features0) - 1
    assert right.mean() > 0.9
    assert scores.shape == (len(matches),)


def test_lightglue_is_a_matcher(lightglue: Any, pair: MatchResult, empty: Features) -> None:
    matcher = TorchLightGlue(lightglue)
    one, other = pair.features0, pair.features0[::-1]
    found = match_features(one, other, matcher=matcher)
    given = {"image0": to_lightglue(one), "image1": to_lightglue(other)}
    with torch.inference_mode():
        rows, scores = from_lightglue(lightglue(given))
    np.testing.assert_array_equal(found.matches, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    # The descriptors' cosines, not LightGlue's scores.
    right = rows[:, 0] + rows[:, 1] == len(one) - 1
    np.testing.assert_allclose(found.similarity[right], 1, atol=1e-5)
    assert len(match_features(one, empty, matcher=matcher)) == 0


def test_it_normalises_our_positions_as_we_do(pair: MatchResult) -> None:
    given = to_lightglue(pair.features0)
    theirs = kornia.feature.lightglue.normalize_keypoints(given["keypoints"], given["image_size"])
    np.testing.assert_allclose(theirs[0], normalised(pair.features0), atol=1e-6)
    assert given["image_size"].tolist() == [[741, 500]]


def test_frames_in_kornia(pair: MatchResult) -> None:
    lafs = frames.to_lafs(pair.features0)
    centres = kornia.feature.get_laf_center(lafs)[0].numpy()
    np.testing.assert_array_equal(centres, pair.features0.keypoints)
    np.testing.assert_allclose(kornia.feature.get_laf_scale(lafs).flatten(), 4, atol=1e-4)
    np.testing.assert_allclose(kornia.feature.get_laf_orientation(lafs).flatten(), 0, atol=1e-4)
    boundary = kornia.feature.laf_to_boundary_points(lafs, 40)[0].numpy()
    radius = np.linalg.norm(boundary - centres[:, None], axis=2)
    np.testing.assert_allclose(radius.max(axis=1), 4, rtol=1e-3)
    points, diameters = frames.from_lafs(lafs)
    np.testing.assert_array_equal(points, pair.features0.keypoints)
    np.testing.assert_allclose(diameters, pair.features0.sizes, rtol=1e-6)


def test_kornias_matcher_takes_frames(pair: MatchResult) -> None:
    rows0, rows1 = (torch.from_numpy(each.descriptors) for each in (pair.features0, pair.features1))
    matcher = kornia.feature.GeometryAwareDescriptorMatcher(
        "fginn", {"th": 0.95, "spatial_th": 10.0}
    )
    _, indices = matcher(
        rows0, rows1, frames.to_lafs(pair.features0), frames.to_lafs(pair.features1)
    )
    known = set(map(tuple, pair.matches[pair.inliers].tolist()))
    assert len(known & set(map(tuple, indices.tolist()))) > 0.5 * len(known)


def small_model(path: Path) -> None:
    """A LightGlue in form: nearest descriptors match, and the score is x / 4 + 0.5."""
    nodes = [
        helper.make_node("Transpose", ["desc1"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["desc0", "columns"], ["cosines"]),
        helper.make_node("ArgMax", ["cosines"], ["best"], axis=2, keepdims=1),  # (1, N, 1)
        helper.make_node("Cast", ["best"], ["partner"], to=TensorProto.INT64),
        helper.make_node("Mul", ["partner", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("CumSum", ["ones", "axis"], ["counted"]),
        helper.make_node("Sub", ["counted", "one"], ["index"]),
        helper.make_node("Concat", ["index", "partner"], ["both"], axis=2),
        helper.make_node("Reshape", ["both", "rows"], ["matches0"]),
        helper.make_node("Slice", ["kpts0", "first", "second", "last"], ["x"]),
        helper.make_node("Mul", ["x", "quarter"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "flat"], ["mscores0"]),
    ]
    floats = {"quarter": [0.25], "half": [0.5]}
    integers = {
        "zero": [0],
        "one": [1],
        "rows": [-1, 2],
        "flat": [-1],
        "first": [0],
        "second": [1],
        "last": [2],
    }
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [len(v)], v) for name, v in floats.items()
    ] + [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in integers.items()]
    constants.append(helper.make_tensor("axis", TensorProto.INT64, [], [1]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, width])
        for name, count, width in (
            ("kpts0", "n", 2),
            ("kpts1", "m", 2),
            ("desc0", "n", 256),
            ("desc1", "m", 256),
        )
    ]
    outputs = [
        helper.make_tensor_value_info("matches0", TensorProto.INT64, ["k", 2]),
        helper.make_tensor_value_info("mscores0", TensorProto.FLOAT, ["k"]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.mark.skipif(not hasattr(cv2, "LightGlueMatcher"), reason="needs OpenCV 5")
def test_opencvs_lightglue_gets_normalised_positions(empty: Features, tmp_path: Path) -> None:
    path = tmp_path / "lightglue.onnx"
    small_model(path)
    matcher = cv2.LightGlueMatcher.create(str(path), 0.0)
    random = np.random.default_rng(0)
    one = made_features(random.uniform((0, 0), (639, 479), (40, 2)), (480, 640))
    order = random.permutation(40)
    other = one[order]
    rows, distances = match_with_opencv(matcher, one, other)
    np.testing.assert_array_equal(order[rows[:, 1]], rows[:, 0])
    assert len(rows) == 40
    again, scores = OpenCVLightGlue(matcher)(one, other)
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_allclose(scores, 1 - distances, atol=1e-6)
    # The score that the model gives is its x, so we see what reached it: (x - 320) / 320.
    seen = (1 - distances - 0.5) * 4
    np.testing.assert_allclose(seen, (one.keypoints[rows[:, 0], 0] - 320) / 320, atol=1e-5)
    tall = made_features(random.uniform((0, 0), (479, 639), (40, 2)), (640, 480))
    rows, distances = match_with_opencv(matcher, tall, tall)
    seen = (1 - distances - 0.5) * 4  # OpenCV's own normalisation would divide by 240
    np.testing.assert_allclose(seen, (tall.keypoints[rows[:, 0], 0] - 240) / 320, atol=1e-5)
    for first, second in ((empty, one), (one, empty)):
        assert match_with_opencv(matcher, first, second)[0].shape == (0, 2)
