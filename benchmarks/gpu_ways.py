"""Ways to compute network and decoding on a device, beside the one that is taken."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.backends.torch import recorded
from cv_superpoint.decoding.tensors import most_keypoints
from cv_superpoint.network.torch_network import ConvBlock, SuperPointNet
from cv_superpoint.weights import LoadedWeights

Inputs = tuple[Tensor, Tensor]
Way = Callable[[], Tensor]


class _Fused(nn.Module):
    """A convolution whose bias and ReLU cuDNN computes in the same kernel."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.conv = block.conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        fused: Tensor = torch.ops.aten.cudnn_convolution_relu(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        return fused


class _Padded(nn.Module):
    """The first convolution with as many channels as tensor cores take at once."""

    def __init__(self, block: ConvBlock, channels: int = 8) -> None:
        super().__init__()
        self.conv = block.conv
        self.missing = channels - block.conv.in_channels
        weight = F.pad(block.conv.weight.detach(), (0, 0, 0, 0, 0, self.missing))
        self.weight = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = F.pad(x, (0, 0, 0, 0, 0, self.missing)).contiguous(memory_format=torch.channels_last)
        return F.relu(F.conv2d(x, self.weight, conv.bias, conv.stride, (1, 1)), inplace=True)


def _with_fused(net: SuperPointNet) -> SuperPointNet:
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, block in list(parent.named_children()):
            if isinstance(block, ConvBlock) and block.relu and block.norm is None:
                setattr(parent, name, _Fused(block))
    return net


def _with_padded(net: SuperPointNet) -> SuperPointNet:
    net = copy.deepcopy(net)
    first = net.encoder[0]
    assert isinstance(first, ConvBlock)
    net.encoder[0] = _Padded(first)
    return net


def _graph(work: Callable[..., Tensor], inputs: Inputs) -> Way:
    """A recorded graph of it, replayed; work itself where there are none."""
    if inputs[0].device.type != "cuda":
        return lambda: work(*inputs)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        for _ in range(3):
            work(*inputs)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            output = work(*inputs)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def _with_benchmark(work: Callable[..., Tensor], inputs: Inputs) -> Way:
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = True
        return _graph(work, inputs)
    finally:
        torch.backends.cudnn.benchmark = before


def ways(
    weights: LoadedWeights, device: str, dtype: torch.dtype, size: tuple[int, int], batch: int
) -> dict[str, Callable[[], Way]]:
    """Makers of calls from pixels on the device to the packed answer there, by name.

    Args:
        weights: The network.
        device: "cpu" or a CUDA device.
        dtype: Type that it computes in.
        size: Height and width.
        batch: Images of a call.
    """
    net = weights.net.requires_grad_(False)
    net.get_parameter("encoder.0.conv.weight").mul_(1 / 255)
    placed: Any = net.to(device, dtype)
    net = placed.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (batch, *size, net.config.in_channels), dtype=torch.uint8, generator=generator
    ).to(device)
    height, width = size
    frames = torch.tensor([[height, width, 4, 4, height - 4, width - 4]] * batch).to(device)
    decoding = weights.decoding(max_keypoints=1024)
    room = min(1024, most_keypoints(size, decoding))

    def work_of(one: SuperPointNet) -> Callable[..., Tensor]:
        return recorded(one, dtype, decoding, room)

    inputs = pixels, frames
    made: dict[str, Callable[[], Way]] = {
        "kernel by kernel": lambda: lambda: work_of(net)(*inputs),
        "one graph (what is taken)": lambda: _graph(work_of(net), inputs),
        "and cudnn.benchmark": lambda: _with_benchmark(work_of(net), inputs),
        "and bias and ReLU in the convolution": lambda: _graph(work_of(_with_fused(net)), inputs),
        "and 8 channels first": lambda: _graph(work_of(_with_padded(net)), inputs),
    }
    if device != "cpu":  # where it would need a compiler
        compiled = torch.compile(work_of(net), dynamic=False)
        made["torch.compile, one graph"] = lambda: _graph(compiled, inputs)
    return made


def seconds_of_ways(
    made: dict[str, Callable[[], Way]], device: str, batch: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Median seconds of each in turn, and how many keypoints it finds.

    What cannot be made, or does not run, says why instead.
    """
    calls: dict[str, Way] = {}
    found: dict[str, dict[str, Any]] = {}
    with torch.inference_mode():
        for name, make in made.items():
            found[name] = _first_call(name, make, batch, calls)
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                if device != "cpu":
                    torch.cuda.synchronize()
                taken[name].append(time.perf_counter() - started)
    for name, seconds in taken.items():
        found[name]["median"] = statistics.median(seconds)
    return found


def _first_call(
    name: str, make: Callable[[], Way], batch: int, calls: dict[str, Way]
) -> dict[str, Any]:
    try:
        call = make()
        count = int(call()[:batch].sum())
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    calls[name] = call
    return {"keypoints": count}
