"""What one call asks of a GPU, counted without one, and how long it takes at least: an estimate.

Every operator that a CUDA graph holds is seen as it is called, with tensors that have shapes and no
values. It launches one kernel here; cuDNN and torch's sort may launch several. Each reads its
tensors and writes its result once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import publish
from cv_superpoint.backends.torch import recorded
from cv_superpoint.decoding.tensors import most_keypoints
from cv_superpoint.weights import load_weights

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What a GPU does at best.

    Attributes:
        name: Name of the GPU.
        products: Float16 products and sums, TFLOP/s, on tensor cores, dense.
        memory: GB/s.
        bus: GB/s from the host and to it, one way.
        launch: Microseconds from one kernel of a graph to the next.
    """

    name: str
    products: float
    memory: float
    bus: float
    launch: float = 1.5


GPUS = (
    Gpu(name="H100 SXM", products=989, memory=3350, bus=63),
    Gpu(name="a small one of a laptop", products=10, memory=200, bus=8),
)
"""The first by NVIDIA's data sheet, with PCIe 5.0 x16; the second, and the launches of both, are
assumed."""


@dataclass
class Part:
    """Operators that belong together.

    Attributes:
        kernels: How many launch one.
        traffic: Bytes that they read and write.
        flops: FLOP of convolutions, two for each multiplication with its addition.
    """

    kernels: int = 0
    traffic: int = 0
    flops: int = 0


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators by the part of the call that is named at the time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts: dict[str, Part] = {}
        self.name = "network"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        # Views share the storage of what they show, and launch nothing.
        if func.is_view or not outputs:
            return result
        if func is aten._softmax.default:
            self.name = "decoding"
        part = self.parts.setdefault(self.name, Part())
        part.kernels += 1
        part.traffic += sum(one.numel() * one.element_size() for one in (*inputs, *outputs))
        if func is aten.convolution.default:
            kernel = inputs[1]
            part.flops += 2 * outputs[0].numel() * kernel[0].numel()
            if len(inputs) > 2:
                # cuDNN convolves, and the bias is added to the result by a kernel of its own.
                part.kernels += 1
                part.traffic += 2 * outputs[0].numel() * outputs[0].element_size()
        return result


def count(
    weights: str | None, size: tuple[int, int], batch: int, keypoints: int
) -> tuple[dict[str, Part], int, int]:
    """The parts of a call in float16, and the bytes that go up and come down."""
    loaded = load_weights(weights)
    net = loaded.net.requires_grad_(False).to("meta", torch.float16)
    decoding = loaded.decoding(max_keypoints=keypoints)
    pixels = torch.zeros(batch, *size, net.config.in_channels, dtype=torch.uint8, device="meta")
    frames = torch.zeros(batch, 6, dtype=torch.int32, device="meta")
    work = recorded(net, torch.float16, decoding, min(keypoints, most_keypoints(size, decoding)))
    with torch.no_grad(), Count() as mode:
        answer = work(pixels, frames)
    up = pixels.numel() + frames.numel() * 4
    return mode.parts, up, answer.numel() * answer.element_size()


def estimate(gpu: Gpu, parts: dict[str, Part], up: int, down: int) -> dict[str, float]:
    """Microseconds of each part at least: the larger of products, memory and launches."""
    found = {"bytes up": up / gpu.bus / 1e3}
    for name, part in parts.items():
        products, traffic = part.flops / gpu.products / 1e6, part.traffic / gpu.memory / 1e3
        found[name] = max(products, traffic, part.kernels * gpu.launch)
    found["bytes down"] = down / gpu.bus / 1e3
    return found


def kernels(
    *,
    weights: str | None = None,
    size: tuple[int, int] = (480, 640),
    batches: tuple[int, ...] = (1, 32),
    keypoints: int = 1024,
    page: bool = False,
) -> None:
    """Count what one call asks of a GPU, and estimate its time from below.

    Args:
        weights: Bundled name or path; the default set without one.
        size: Height and width of the images, multiples of 8.
        batches: Images of a call.
        keypoints: Largest number of keypoints.
        page: Put the tables into docs/gpu.md.
    """
    counted, estimated = [], []
    for batch in batches:
        parts, up, down = count(weights, size, batch, keypoints)
        counted += [
            [str(batch), name, str(part.kernels), f"{part.flops / 1e9:.1f}",
             f"{part.traffic / 1e6:.0f}"]
            for name, part in parts.items()
        ]  # fmt: skip
        counted.append([str(batch), "up, down", "2, 1", "", f"{up / 1e6:.2f}, {down / 1e6:.2f}"])
        for gpu in GPUS:
            times = estimate(gpu, parts, up, down)
            whole = sum(times.values())
            estimated.append(
                [gpu.name, str(batch), *(f"{one / 1e3:.3f}" for one in times.values()),
                 f"{whole / 1e3:.2f}", f"{batch / whole * 1e6:.0f}"]
            )  # fmt: skip
    height, width = size
    text = "\n\n".join(
        [
            f"{load_weights(weights).name}, {height} x {width}, at most {keypoints} keypoints, "
            "float16, counted:",
            publish.table(["images", "part", "kernels", "GFLOP", "MB"], counted),
            "Estimated from below, in ms, no measurement:",
            publish.table(
                ["GPU", "images", "up", "network", "decoding", "down", "call", "images a second"],
                estimated,
            ),
        ]
    )
    print(text)
    if page:
        publish.replace_block(publish.GPU, "kernels", text)
