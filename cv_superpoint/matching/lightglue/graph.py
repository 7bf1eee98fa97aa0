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

Floats = NDArray[np.float32]
MatcherLayout = Literal["opencv", "colmap"]


def matcher_model(
    tensors: Mapping[str, Floats],
    config: MatcherConfig,
    *,
    layout: MatcherLayout = "opencv",
    threshold: float = 0.1,
    description: str = "",
) -> Any:
    """The network as an ONNX model.

    Args:
        tensors: Of the network, by its names.
        config: Its sizes.
        layout: See above.
        threshold: Score that a match must exceed.
        description: For those who find the file.
    """
    graph = _MatcherGraph(tensors, config)
    points = ["kpts0", "kpts1"]
    inputs: dict[str, list[int | str]] = {
        "kpts0": [1, "N", 2],
        "kpts1": [1, "M", 2],
        "desc0": [1, "N", config.descriptor_dim],
        "desc1": [1, "M", config.descriptor_dim],
    }
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
    return graph.model(inputs, outputs, description)


class _MatcherGraph(Graph):
    def __init__(self, tensors: Mapping[str, Floats], config: MatcherConfig) -> None:
        super().__init__()
        self.tensors = tensors
        self.config = config

    def tensor(self, name: str, *, transposed: bool = False) -> str:
        """A constant of the network; one constant whichever often it is used."""
        key = f"{name}.transposed" if transposed else name
        if key in self._constants:
            return key
        value = self.tensors[name]
        return self.constant(np.ascontiguousarray(value.T if transposed else value), key)

    def linear(self, name: str, rows: str) -> str:
        """A linear layer of the network."""
        product = self.add("MatMul", rows, self.tensor(f"{name}.weight", transposed=True))
        return str(self.add("Add", product, self.tensor(f"{name}.bias")))

    def positions(self, pixels: str, size: str) -> str:
        """Pixels to [-1, 1]; those of COLMAP lie half a pixel further, which it takes off."""
        share = self.add("Div", pixels, self.add("Unsqueeze", size, self.constant([1])))
        return str(self.add("Sub", self.add("Mul", share, self.constant(2.0)), self.constant(1.0)))

    def scores(self, points: list[str], descriptors: list[str]) -> str:
        """(1, N, M) probabilities of a match."""
        config = self.config
        x = [self.linear("project", rows) for rows in descriptors]
        frequencies = self.tensor("frequencies.weight", transposed=True)
        turns = [self.add("MatMul", rows, frequencies) for rows in points]
        angles = [(self.add("Cos", turn), self.add("Sin", turn)) for turn in turns]
        for number in range(config.layers):
            own, cross = f"self_layers.{number}", f"cross_layers.{number}"
            x = [self.among(own, rows, turn) for rows, turn in zip(x, angles, strict=True)]
            x = [self.across(cross, x[0], x[1]), self.across(cross, x[1], x[0])]
        head = f"heads.{config.layers - 1}"
        first, second = (self.linear(f"{head}.project", rows) for rows in x)
        shrunk = self.add("Mul", first, self.constant(float(config.width**-0.5)))
        similarity = self.add("MatMul", shrunk, self.add("Transpose", second, perm=[0, 2, 1]))
        both = self.add(
            "Mul",
            self.add("Softmax", similarity, axis=2),
            self.add("Softmax", similarity, axis=1),
        )
        either = [self.add("Sigmoid", self.linear(f"{head}.matchable", rows)) for rows in x]
        across = self.add("Transpose", either[1], perm=[0, 2, 1])
        return str(self.add("Mul", self.add("Mul", both, either[0]), across))

    def among(self, name: str, rows: str, angles: tuple[str, str]) -> str:
        """A layer of self attention; ``angles`` are their cosines and sines."""
        inputs = self.linear(f"{name}.inputs", rows)
        query, key, value = self.add("Split", inputs, self._thirds(), outputs=3, axis=2)
        query, key = (self._rotated(self._heads(part), angles) for part in (query, key))
        return self._updated(name, rows, self._attended(query, key, self._heads(value)))

    def across(self, name: str, rows: str, others: str) -> str:
        """A layer of cross attention."""
        query, key = (self._heads(self.linear(f"{name}.key", part)) for part in (rows, others))
        value = self._heads(self.linear(f"{name}.value", others))
        return self._updated(name, rows, self._attended(query, key, value))

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

    def _thirds(self) -> str:
        return self.constant([self.config.width] * 3)

    def _heads(self, rows: str) -> str:
        """(1, N, width) -> (1, heads, N, width / heads)."""
        count = self.config.heads
        shape = self.constant([1, -1, count, self.config.width // count])
        return str(self.add("Transpose", self.add("Reshape", rows, shape), perm=[0, 2, 1, 3]))

    def _rotated(self, rows: str, angles: tuple[str, str]) -> str:
        half = self.config.width // self.config.heads // 2
        first, second = self.add("Split", rows, self.constant([half, half]), outputs=2, axis=3)
        cos, sin = (self.add("Unsqueeze", angle, self.constant([1])) for angle in angles)
        product = {
            (part, turn): self.add("Mul", part, turn)
            for part in (first, second)
            for turn in (cos, sin)
        }
        return str(
            self.add(
                "Concat",
                self.add("Sub", product[first, cos], product[second, sin]),
                self.add("Add", product[first, sin], product[second, cos]),
                axis=3,
            )
        )

    def _attended(self, query: str, key: str, value: str) -> str:
        """Heads (1, heads, N, n) of all three -> (1, N, width)."""
        size = self.config.width // self.config.heads
        scaled = self.add("Mul", query, self.constant(float(size**-0.5)))
        weights = self.add("MatMul", scaled, self.add("Transpose", key, perm=[0, 1, 3, 2]))
        told = self.add("MatMul", self.add("Softmax", weights, axis=3), value)
        shape = self.constant([1, -1, self.config.width])
        return str(self.add("Reshape", self.add("Transpose", told, perm=[0, 2, 1, 3]), shape))

    def _updated(self, name: str, rows: str, told: str) -> str:
        hidden = self.add("Concat", rows, self.linear(f"{name}.message", told), axis=2)
        hidden = self.add(
            "LayerNormalization",
            self.linear(f"{name}.mix.0", hidden),
            self.tensor(f"{name}.mix.1.weight"),
            self.tensor(f"{name}.mix.1.bias"),
            axis=-1,
        )
        return str(self.add("Add", rows, self.linear(f"{name}.mix.3", self._gelu(hidden))))

    def _gelu(self, x: str) -> str:
        """The approximation by a hyperbolic tangent."""
        cube = self.add("Mul", self.add("Mul", x, x), self.constant(0.044715))
        inner = self.add("Mul", self.add("Add", cube, self.constant(1.0)), x)
        curve = self.add("Tanh", self.add("Mul", inner, self.constant(0.7978845608)))
        half = self.add("Mul", x, self.constant(0.5))
        return str(self.add("Mul", half, self.add("Add", curve, self.constant(1.0))))
