"""The matcher as ONNX files: for ``cv2.LightGlueMatcher`` of OpenCV 5, and for COLMAP.

Layouts:
    opencv   ``kpts0`` (1, N, 2), ``kpts1`` (1, M, 2) in [-1, 1], each axis by its own size;
             ``desc0`` (1, N, D), ``desc1`` (1, M, D) -> ``matches0`` (N, 2) int64 rows, the second
             -1 for a keypoint without a match, and ``mscores0`` (N) float32.
    colmap   the same inputs with positions in pixels, and ``image_size0``, ``image_size1`` (1, 2)
             as (width, height) -> ``matches0`` (N) int64, -1 without a match, and ``mscores0`` (N).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.export.graph import Graph
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.matching.lightglue.layers import MatcherLayers

Floats = NDArray[np.float32]
MatcherLayout = Literal["opencv", "colmap"]


def matcher_model(loaded: LoadedMatcher, layout: MatcherLayout, threshold: float) -> Any:
    """A matcher as an ONNX model.

    Args:
        loaded: The matcher.
        layout: Name of one of the layouts above.
        threshold: Score that a match must exceed.
    """
    graph = OnnxMatcher(loaded.tensors, loaded.config)
    points = ["kpts0", "kpts1"]
    inputs = _inputs(loaded.config)
    if layout == "colmap":
        sizes = ["image_size0", "image_size1"]
        inputs |= {name: [1, 2] for name in sizes}
        points = [graph.positions(name, size) for name, size in zip(points, sizes, strict=True)]
    scores = graph.scores(points, ["desc0", "desc1"])
    target, values = graph.matches(scores, threshold)
    shape: list[int | str] = ["N"]
    if layout == "opencv":
        target = graph.numbered(target)
        shape = ["N", 2]
    outputs: dict[str, tuple[str, str, list[int | str]]] = {
        "matches0": (target, "int64", shape),
        "mscores0": (values, "float32", ["N"]),
    }
    description = f"Matcher for the features of {loaded.weights}, by cv_superpoint"
    return graph.model(inputs, outputs, description)


def scores_model(tensors: Mapping[str, Floats], config: MatcherConfig) -> Any:
    """What ONNX Runtime runs for us: inputs as of layout "opencv" -> ``scores`` (1, N, M)."""
    graph = OnnxMatcher(tensors, config)
    scores = graph.scores(["kpts0", "kpts1"], ["desc0", "desc1"])
    outputs: dict[str, tuple[str, str, list[int | str]]] = {
        "scores": (scores, "float32", [1, "N", "M"])
    }
    return graph.model(_inputs(config), outputs, "Matcher: positions and descriptors to scores")


def _inputs(config: MatcherConfig) -> dict[str, list[int | str]]:
    return {
        "kpts0": [1, "N", 2],
        "kpts1": [1, "M", 2],
        "desc0": [1, "N", config.descriptor_dim],
        "desc1": [1, "M", config.descriptor_dim],
    }


class OnnxMatcher(Graph, MatcherLayers):
    """A graph of ONNX with the network, and with what makes matches of its scores."""

    def __init__(self, tensors: Mapping[str, Floats], config: MatcherConfig) -> None:
        Graph.__init__(self)
        MatcherLayers.__init__(self, tensors, config)

    def positions(self, pixels: str, size: str) -> str:
        """Pixels to [-1, 1]; those of COLMAP lie half a pixel further, which it takes off."""
        share = self.add("Div", pixels, self.add("Unsqueeze", size, self.constant([1])))
        return str(self.add("Sub", self.add("Mul", share, self.constant(2.0)), self.constant(1.0)))

    def matches(self, scores: str, threshold: float) -> tuple[str, str]:
        """Row of image 1 for each of image 0, -1 without a match, and its score; (N) each."""
        flat = self.add("Squeeze", scores, self.constant([0]))
        best = self.add("ArgMax", flat, axis=1, keepdims=1)
        values = self.add("ReduceMax", flat, axes=[1], keepdims=1)
        columns = self.add("ReduceMax", flat, axes=[0], keepdims=1)
        # Best of its row, and then of its column too: the value says so without a gather.
        there = self.add("GatherElements", self._spread(columns, flat), best, axis=1)
        sure = self.add("Greater", values, self.constant(threshold))
        mutual = self.add("And", sure, self.add("Not", self.add("Less", values, there)))
        target = self.add("Where", mutual, best, self.constant([-1]))
        squeeze = self.constant([1])
        return (
            str(self.add("Squeeze", target, squeeze)),
            str(self.add("Squeeze", values, squeeze)),
        )

    def numbered(self, target: str) -> str:
        """(N) rows of image 1 -> (N, 2) pairs of rows."""
        ones = self.add("Expand", self.constant([1]), self.add("Shape", target))
        rows = self.add("Sub", self.add("CumSum", ones, self.constant(0)), self.constant([1]))
        axis = self.constant([1])
        pair = [self.add("Unsqueeze", part, axis) for part in (rows, target)]
        return str(self.add("Concat", *pair, axis=1))

    def _spread(self, columns: str, flat: str) -> str:
        return str(self.add("Expand", columns, self.add("Shape", flat)))
