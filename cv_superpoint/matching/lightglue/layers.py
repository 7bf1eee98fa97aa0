"""The matcher's network, node by node, for the graphs of several programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.matching.lightglue.config import MatcherConfig

Floats = NDArray[np.float32]


class MatcherLayers(ABC):
    """The network out of ONNX's operators, which a graph makes nodes of.

    Args:
        tensors: Tensors of the network by name.
        config: Sizes of the network.
    """

    def __init__(self, tensors: Mapping[str, Floats], config: MatcherConfig) -> None:
        self.tensors = tensors
        self.config = config
        self._known: dict[str, Any] = {}

    @abstractmethod
    def add(self, kind: str, *inputs: Any, outputs: int = 1, **options: Any) -> Any:
        """A node of the ONNX operator ``kind``; a list where it has several outputs."""

    @abstractmethod
    def constant(self, value: NDArray[Any] | float | Sequence[int], name: str = "") -> Any:
        """A constant: floats become float32, integers int64."""

    def tensor(self, name: str, *, transposed: bool = False) -> Any:
        """A constant of the network; one constant however often it is used."""
        key = f"{name}.transposed" if transposed else name
        if key not in self._known:
            value = self.tensors[name]
            self._known[key] = self.constant(
                np.ascontiguousarray(value.T if transposed else value), key
            )
        return self._known[key]

    def linear(self, name: str, rows: Any) -> Any:
        """A linear layer of the network."""
        product = self.add("MatMul", rows, self.tensor(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.tensor(f"{name}.bias"))

    def scores(self, points: Sequence[Any], descriptors: Sequence[Any]) -> Any:
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
        return self.add("Mul", self.add("Mul", both, either[0]), across)

    def among(self, name: str, rows: Any, angles: tuple[Any, Any]) -> Any:
        """A layer of self attention; ``angles`` are their cosines and sines."""
        inputs = self.linear(f"{name}.inputs", rows)
        query, key, value = self.add("Split", inputs, self._thirds(), outputs=3, axis=2)
        query, key = (self._rotated(self._heads(part), angles) for part in (query, key))
        return self._updated(name, rows, self._attended(query, key, self._heads(value)))

    def across(self, name: str, rows: Any, others: Any) -> Any:
        """A layer of cross attention."""
        query, key = (self._heads(self.linear(f"{name}.key", part)) for part in (rows, others))
        value = self._heads(self.linear(f"{name}.value", others))
        return self._updated(name, rows, self._attended(query, key, value))

    def _thirds(self) -> Any:
        return self.constant([self.config.width] * 3)

    def _heads(self, rows: Any) -> Any:
        """(1, N, width) -> (1, heads, N, width / heads)."""
        count = self.config.heads
        shape = self.constant([1, -1, count, self.config.width // count])
        return self.add("Transpose", self.add("Reshape", rows, shape), perm=[0, 2, 1, 3])

    def _rotated(self, rows: Any, angles: tuple[Any, Any]) -> Any:
        half = self.config.width // self.config.heads // 2
        first, second = self.add("Split", rows, self.constant([half, half]), outputs=2, axis=3)
        cos, sin = (self.add("Unsqueeze", angle, self.constant([1])) for angle in angles)
        return self.add(
            "Concat",
            self.add("Sub", self.add("Mul", first, cos), self.add("Mul", second, sin)),
            self.add("Add", self.add("Mul", first, sin), self.add("Mul", second, cos)),
            axis=3,
        )

    def _attended(self, query: Any, key: Any, value: Any) -> Any:
        """Heads (1, heads, N, n) of all three -> (1, N, width)."""
        size = self.config.width // self.config.heads
        scaled = self.add("Mul", query, self.constant(float(size**-0.5)))
        weights = self.add("MatMul", scaled, self.add("Transpose", key, perm=[0, 1, 3, 2]))
        told = self.add("MatMul", self.add("Softmax", weights, axis=3), value)
        shape = self.constant([1, -1, self.config.width])
        return self.add("Reshape", self.add("Transpose", told, perm=[0, 2, 1, 3]), shape)

    def _updated(self, name: str, rows: Any, told: Any) -> Any:
        hidden = self.add("Concat", rows, self.linear(f"{name}.message", told), axis=2)
        hidden = self.normalised(
            self.linear(f"{name}.mix.0", hidden),
            self.tensor(f"{name}.mix.1.weight"),
            self.tensor(f"{name}.mix.1.bias"),
        )
        return self.add("Add", rows, self.linear(f"{name}.mix.3", self.gelu(hidden)))

    def normalised(self, x: Any, weight: Any, bias: Any) -> Any:
        """Layer normalisation of the rows."""
        return self.add("LayerNormalization", x, weight, bias, axis=-1)

    def gelu(self, x: Any) -> Any:
        """The approximation by a hyperbolic tangent."""
        cube = self.add("Mul", self.add("Mul", x, x), self.constant(0.044715))
        inner = self.add("Mul", self.add("Add", cube, self.constant(1.0)), x)
        curve = self.add("Tanh", self.add("Mul", inner, self.constant(0.7978845608)))
        half = self.add("Mul", x, self.constant(0.5))
        return self.add("Mul", half, self.add("Add", curve, self.constant(1.0)))
