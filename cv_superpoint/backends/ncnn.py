"""The network in ncnn: float32 with Winograd convolutions, the fastest on a plain CPU.

A first stage that ends in a pooling works at the image's full resolution. It runs in strips of
rows, because its 64 maps of 480 x 640 pixels would take most of the memory and do not fit into any
cache. Every core works on a strip of its own, so that they need not wait for each other after every
layer. A network whose first convolution has a stride runs as a whole.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.architecture import (
    DESCRIPTOR,
    DETECTOR,
    IMAGE,
    Convolution,
    Layer,
    NetworkConfig,
    layers,
)
from cv_superpoint.backends.memory import keep_with
from cv_superpoint.errors import require
from cv_superpoint.weights import LoadedWeights


def _import_ncnn() -> Any:
    """Import ncnn so that its threads sleep while they wait.

    By default they spin, which halves its speed as soon as anything else wants the cores. Its
    OpenMP is a copy of its own and reads the variable once, on import, so nothing else notices.
    """
    policy = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return require("ncnn", "")
    finally:
        if policy is None:
            del os.environ["OMP_WAIT_POLICY"]


ncnn = _import_ncnn()

STRIP = 8
"""Rows of a strip, a multiple of 8: more are no faster and take more memory, for each thread."""
LARGE = 512 * 512
"""Pixels of an image whose maps are not kept for images of other shapes."""
Floats = NDArray[np.float32]

_AS_IT_IS = 1
"""Of ncnn's extract: without unpacking the channels, which it keeps in packs of 4, 8 or 16."""


class NcnnBackend:
    """See :class:`cv_superpoint.backends.Backend`.

    The images of a batch run on a core each, which wastes less than all cores on one after the
    other; a result does not depend on the rest of its batch, nor on the number of threads. The net
    is shared by threads; every call has an extractor of its own.
    """

    name = "ncnn"
    device = "cpu"
    precision = "float32"
    decodes = False

    def __init__(self, weights: LoadedWeights, *, threads: int | None = None) -> None:
        self.threads = self.batch = threads or _cores()
        self._kernels = weights.convolutions()
        self._strips, self._whole = _stages(weights.config)
        # Rows around a strip that its first stage depends on: one for each of its convolutions.
        self._halo = weights.config.depths[0]
        self._half_channels = weights.config.channels[0]
        # Attributes are destroyed in the order of their first assignment, and a net must not
        # outlive the pools that it took memory from.
        self._first: dict[tuple[bool, bool], Any] = {}
        self._rest: dict[int, Any] = {}
        self._pools = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        self._loading = threading.Lock()
        self._last_size = (0, 0)
        for top in (False, True) if self._strips else ():
            for bottom in (False, True):
                model = _build(self._strips, self._kernels, top=top, bottom=bottom)
                self._first[top, bottom] = self._load(model, threads=1)
        self._rest_in(self.threads)

    def _rest_in(self, threads: int) -> Any:
        """The rest of the network in a number of threads, which ncnn fixes on loading."""
        with self._loading:
            if threads not in self._rest:
                self._rest[threads] = self._load(_build(self._whole, self._kernels), threads)
            return self._rest[threads]

    def _load(self, model: _Model, threads: int) -> Any:
        net = ncnn.Net()
        options = net.opt
        options.num_threads = threads
        # Without a pool every call would fetch its maps from the system page by page.
        options.blob_allocator, options.workspace_allocator = self._pools
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        # ncnn's Python reads weights from files only.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.bin"
            file.write_bytes(model.weights)
            if net.load_param_mem(model.text) or net.load_model(str(file)):
                raise RuntimeError("ncnn does not take the network; please report this")
        return net

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """See :meth:`cv_superpoint.backends.Backend.run`."""
        height, width = images.shape[1:3]
        self._make_room(height, width)
        # Maps of several large images would not fit into caches nor, maybe, into memory.
        if len(images) == 1 or self.threads == 1 or height * width > LARGE:
            found = [self._run_one(image, self.threads) for image in images]
        else:
            with ThreadPoolExecutor(min(self.threads, len(images))) as pool:
                found = list(pool.map(lambda image: self._run_one(image, 1), images))
        return [one[0] for one in found], [one[1] for one in found]

    def _run_one(self, image: NDArray[np.uint8], threads: int) -> tuple[Floats, Floats]:
        """Logits and descriptors of an (H, W, C) image."""
        logits, dense = self._network(image.transpose(2, 0, 1), threads)
        return _channels_last(logits, self._pools), _channels_last(dense, self._pools)

    def _network(self, pixels: NDArray[np.uint8], threads: int) -> tuple[Any, Any]:
        """Logits and descriptors of (C, H, W) pixels, each an ncnn.Mat."""
        half = self._run_first(pixels, threads)
        extractor = self._rest_in(threads).create_extractor()
        extractor.input("input", ncnn.Mat(half))
        logits = extractor.extract(DETECTOR[1])[1]
        dense = extractor.extract(DESCRIPTOR[1], _AS_IT_IS)[1]
        return logits, dense

    def _run_first(self, pixels: NDArray[np.uint8], threads: int) -> Floats:
        """The first stage, strip by strip: (C, H/2, W/2); the pixels where there are no strips."""
        height, width = pixels.shape[1:]
        if not self._strips:
            return np.ascontiguousarray(pixels, np.float32)
        half = np.empty((self._half_channels, height // 2, width // 2), np.float32)
        # Of an iterator that they share, threads take turns.
        strips = range(0, height, STRIP)
        starts = iter(strips)

        def work() -> None:
            for start in starts:
                end = min(start + STRIP, height)
                net = self._first[start == 0, end == height]
                rows = pixels[:, max(0, start - self._halo) : end + self._halo]
                floats = np.ascontiguousarray(rows, np.float32)
                [maps] = _extract(net, floats, self._strips[-1].name)
                half[:, start // 2 : end // 2] = maps

        # This thread works too: one memory arena less.
        helpers = min(threads, len(strips)) - 1
        if helpers:
            with ThreadPoolExecutor(helpers) as pool:
                others = [pool.submit(work) for _ in range(helpers)]
                work()
            for other in others:
                other.result()
        else:
            work()
        return half

    def _make_room(self, height: int, width: int) -> None:
        """Give back what the maps of another large image took: it fits no longer.

        Calls of other threads keep what they are using.
        """
        last, self._last_size = self._last_size, (height, width)
        if last != (height, width) and max(height * width, last[0] * last[1]) > LARGE:
            for pool in self._pools:
                pool.clear()

    def describe(self) -> str:
        """See :meth:`cv_superpoint.backends.Backend.describe`."""
        return f"ncnn {ncnn.__version__} on cpu, float32, {self.threads} threads"


def _cores() -> int:
    """Cores that this process may use; a second thread on one core gains nothing here."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical: int = ncnn.get_physical_cpu_count()
    return max(1, min(allowed or 1, physical))


def _extract(net: Any, maps: Floats, *names: str) -> list[Floats]:
    extractor = net.create_extractor()
    extractor.input("input", ncnn.Mat(maps))
    # Views: each array keeps its ncnn.Mat alive.
    return [np.array(extractor.extract(name)[1], copy=False) for name in names]


def _channels_last(maps: Any, pools: Any) -> Floats:
    """A view (h, w, C), or (h, w, C / pack, pack) where ncnn keeps channels in packs.

    Args:
        maps: An ncnn.Mat.
        pools: Where its memory is from. They must outlive it, as they must outlive the nets.
    """
    # ncnn's Python makes arrays of unpacked maps only. Packed ones have the same memory as unpacked
    # ones whose rows are longer.
    maps, pack = ncnn.Mat(maps), maps.elempack  # not copied, but for its shape
    maps.elempack, maps.elemsize = 1, maps.elemsize // pack
    maps.w, maps.cstep = maps.w * pack, maps.cstep * pack
    planes = keep_with(np.array(maps, copy=False), maps, pools)
    count, h, width = planes.shape
    cells: Floats = planes.reshape(count, h, width // pack, pack).transpose(1, 2, 0, 3)
    return cells if pack > 1 else cells[..., 0]


class _Model:
    """ncnn's text of layers and the weights that go with it, in the same order."""

    def __init__(self) -> None:
        self._lines = ["Input input 0 1 input"]
        self._blobs = 1
        self.weights = b""

    @property
    def text(self) -> str:
        return "\n".join(["7767517", f"{len(self._lines)} {self._blobs}", *self._lines, ""])

    def _layer(self, kind: str, name: str, source: str, options: str) -> str:
        self._lines.append(f"{kind} {name} 1 1 {source} {name} {options}")
        self._blobs += 1
        return name

    def convolution(
        self, x: str, layer: Convolution, *, top: bool = True, bottom: bool = True, gain: float = 1
    ) -> str:
        """A convolution with its ReLU fused in, and the scale that may follow."""
        count, _, size, _ = layer.weight.shape
        side = layer.padding
        name = f"{layer.name}_before" if layer.scale is not None else layer.name
        x = self._layer(
            "Convolution",
            name,
            x,
            f"0={count} 1={size} 3={layer.stride} 4={side} 15={side} 14={side * top} "
            f"16={side * bottom} 5=1 6={layer.weight.size} 9={int(layer.relu)}",
        )
        flag = np.zeros(1, "<u4").tobytes()  # float32 follows
        self.weights += flag + (layer.weight * np.float32(gain)).astype("<f4").tobytes()
        self.weights += layer.bias.astype("<f4").tobytes()
        if layer.scale is not None and layer.shift is not None:
            x = self._layer("Scale", layer.name, x, f"0={count} 1=1")
            self.weights += layer.scale.astype("<f4").tobytes()
            self.weights += layer.shift.astype("<f4").tobytes()
        return x

    def pool(self, x: str, name: str) -> str:
        """2 x 2 maxima."""
        return self._layer("Pooling", name, x, "0=0 1=2 2=2 5=1")

    def total(self, maps: Sequence[str], name: str) -> str:
        """The sum of several maps, with a ReLU."""
        self._lines.append(f"Eltwise {name}_sum {len(maps)} 1 {' '.join(maps)} {name}_sum 0=1")
        self._blobs += 1
        return self._layer("ReLU", name, f"{name}_sum", "")

    def split(self, x: str, count: int) -> list[str]:
        """The same maps for several layers."""
        names = [f"{x}_{index}" for index in range(count)]
        self._lines.append(f"Split {x}_split 1 {count} {x} {' '.join(names)}")
        self._blobs += count
        return names


def _stages(config: NetworkConfig) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """What runs in strips of rows, if anything, and the layers that follow it."""
    steps = layers(config)
    if config.downsampling != "pool" or config.detector_skips:
        return (), steps
    end = next(index for index, layer in enumerate(steps) if layer.kind == "pool") + 1
    return steps[:end], steps[end:]


def _build(
    steps: Sequence[Layer],
    kernels: Mapping[str, Convolution],
    *,
    top: bool = True,
    bottom: bool = True,
) -> _Model:
    """Some layers; pixels in [0, 255] where they begin at the image.

    ``top`` and ``bottom`` tell where zeros are added: around the image, not around a strip.
    """
    model = _Model()
    made = {layer.name for layer in steps}
    users = Counter(name if name in made else "input" for layer in steps for name in layer.inputs)
    waiting: dict[str, list[str]] = {}

    def offer(name: str, blob: str) -> None:
        count = users[name]
        waiting[name] = model.split(blob, count) if count > 1 else [blob]

    offer("input", "input")
    for layer in steps:
        inputs = [waiting[name if name in made else "input"].pop() for name in layer.inputs]
        if layer.kind == "pool":
            x = model.pool(inputs[0], layer.name)
        elif layer.kind == "sum":
            x = model.total(inputs, layer.name)
        else:
            gain = 1 / 255 if layer.inputs == (IMAGE,) else 1.0
            kernel = kernels[layer.name]
            x = model.convolution(inputs[0], kernel, top=top, bottom=bottom, gain=gain)
        offer(layer.name, x)
    return model
