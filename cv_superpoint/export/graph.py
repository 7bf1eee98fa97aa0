"""The network as an ONNX graph, written node by node from the weights: no torch, no tracing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.errors import require
from cv_superpoint.network.architecture import (
    DESCRIPTOR,
    DETECTOR,
    IMAGE,
    Convolution,
    NetworkConfig,
    layers,
)
from cv_superpoint.network.quantisation import MapRange, whole_weights

OPSET = 17
"""Old enough for OpenCV 4.8 and TensorRT 8.6, new enough for all that the graphs use."""
IR_VERSION = 8


class Graph:
    """Nodes and constants under way to a model; every method returns the name of its result."""

    def __init__(self) -> None:
        self.onnx = require("onnx", "onnx")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, value: NDArray[Any] | float | Sequence[int], name: str = "") -> str:
        """An initialiser: floats become float32, integers int64."""
        array = np.asarray(value)
        wide = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
        return self.typed(array.astype(wide), name)

    def add(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **options: Any) -> Any:
        """A node of the ONNX operator ``kind``; a list of names where it has several outputs."""
        name = name or f"{kind.lower()}_{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        # onnx.helper leaves out what is None, as an operator's optional attributes want it.
        node = self.onnx.helper.make_node(kind, inputs, names, name=name, **options)
        self._nodes.append(node)
        return names[0] if outputs == 1 else names

    def typed(self, value: NDArray[Any], name: str = "") -> str:
        """An initialiser of the array's own type."""
        name = name or f"constant_{len(self._constants)}"
        self._constants[name] = self.onnx.numpy_helper.from_array(value, name)
        return name

    def rounded(self, x: str, to: MapRange) -> str:
        """A map in 8 bits: told as unsigned bytes, and read again."""
        numbers = [self.typed(np.asarray(to.scale)), self.typed(np.asarray(to.zero, np.uint8))]
        return str(self.add("DequantizeLinear", self.add("QuantizeLinear", x, *numbers), *numbers))

    def convolution(self, x: str, layer: Convolution, source: MapRange | None = None) -> str:
        """A convolution with all that follows it.

        Args:
            x: The map that it takes.
            layer: The convolution.
            source: How ``x`` is told in 8 bits; the weights then are, too.
        """
        size = layer.weight.shape[2]
        x = self.add(
            "Conv",
            x,
            *(self._floats(layer) if source is None else self._bytes(layer, source)),
            name=f"{layer.name}.conv",
            kernel_shape=[size, size],
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
        )
        if layer.relu:
            x = self.add("Relu", x, name=f"{layer.name}.relu")
        for kind, values in (("Mul", layer.scale), ("Add", layer.shift)):
            if values is not None:
                x = self.add(kind, x, self.constant(values[None, :, None, None]))
        return x

    def _floats(self, layer: Convolution) -> tuple[str, str]:
        """Weight and bias."""
        weight = self.constant(layer.weight, f"{layer.name}.weight")
        return weight, self.constant(layer.bias, f"{layer.name}.bias")

    def _bytes(self, layer: Convolution, source: MapRange) -> tuple[str, str]:
        """Weight and bias as whole numbers, and the value of 1, as runtimes look for them."""
        whole = whole_weights(layer)
        weight = self.add(
            "DequantizeLinear",
            self.typed(whole.values, f"{layer.name}.weight"),
            self.typed(whole.scales, f"{layer.name}.scale"),
            axis=0,
        )
        scales = whole.scales * source.scale  # of the sums of products
        steps = np.rint(layer.bias / scales.astype(np.float64))
        name = f"{layer.name}.bias"
        if np.abs(steps).max() > np.iinfo(np.int32).max:  # beside weights of almost nothing
            return weight, self.constant(layer.bias, name)
        bias = self.typed(steps.astype(np.int32), name)
        return weight, self.add("DequantizeLinear", bias, self.typed(scales), axis=0)

    def heads(
        self,
        image: str,
        config: NetworkConfig,
        kernels: Mapping[str, Convolution],
        ranges: Mapping[str, MapRange] | None = None,
    ) -> tuple[str, str]:
        """(B, C, H, W) in [0, 1] -> logits (B, 65, h, w), unit descriptors (B, D, h, w).

        Without descriptors their name is empty, as ONNX calls what is not there.
        """
        logits, raw = self.maps(image, config, kernels, ranges)
        return logits, self.normalise(raw, axis=1) if raw else raw

    def maps(
        self,
        image: str,
        config: NetworkConfig,
        kernels: Mapping[str, Convolution],
        ranges: Mapping[str, MapRange] | None = None,
    ) -> tuple[str, str]:
        """Same as :meth:`heads`, but with descriptors of any length, and in 8 bits with ranges."""
        maps, told = {IMAGE: image}, dict(ranges or {})
        for layer in layers(config):
            inputs = [maps[name] for name in layer.inputs]
            source = told.get(layer.inputs[0])
            if layer.kind == "pool":
                x = self.add("MaxPool", *inputs, kernel_shape=[2, 2], strides=[2, 2])
                if source is not None:  # runtimes look for maps in 8 bits on both sides
                    told[layer.name] = source
            elif layer.kind == "sum":
                x = inputs[0]
                for other in inputs[1:]:
                    x = self.add("Add", x, other)
                x = self.add("Relu", x)
            else:
                x = self.convolution(inputs[0], kernels[layer.name], source)
            maps[layer.name] = self.rounded(x, told[layer.name]) if layer.name in told else x
        return maps[DETECTOR[1]], maps.get(DESCRIPTOR[1], "")

    def normalise(self, x: str, axis: int) -> str:
        """Unit length along an axis; what is shorter than 1e-12 is divided by that."""
        length = self.add("ReduceL2", x, axes=[axis], keepdims=1)
        return str(self.add("Div", x, self.add("Max", length, self.constant(1e-12))))

    def model(
        self,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, tuple[str, str, Sequence[int | str]]],
        description: str,
        input_type: str = "float32",
    ) -> Any:
        """The finished model, checked.

        Args:
            inputs: Inputs' shapes by name; a text is a dynamic size.
            outputs: (result, its type such as "float32", shape) by name; one whose result has an
                empty name is left out.
            description: What the model does, for readers of the file.
            input_type: Type of all inputs, "float32" or "uint8".
        """
        helper, types = self.onnx.helper, self.onnx.TensorProto
        of = {"float32": types.FLOAT, "int64": types.INT64, "uint8": types.UINT8}
        outputs = {name: one for name, one in outputs.items() if one[0]}
        for name, (result, _, _) in outputs.items():
            self.add("Identity", result, name=name)
        graph = helper.make_graph(
            self._nodes,
            "superpoint",
            [helper.make_tensor_value_info(n, of[input_type], s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, of[t], s) for n, (_, t, s) in outputs.items()],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cv_superpoint",
            doc_string=description,
        )
        self.onnx.checker.check_model(model)
        return model
