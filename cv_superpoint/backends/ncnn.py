"""The network in ncnn: float32 with Winograd convolutions, the fastest on a plain CPU.

Every chain of layers is a net of one thread, which runs strip by strip; the strips are shared among
threads of ours, see :mod:`cv_superpoint.backends.workers`. ncnn's own threads, OpenMP's, meet after
every layer and do not survive a fork.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.strips import Chain, Rows, Strip, chains, plan, sizes
from cv_superpoint.backends.workers import Task, run_tasks
from cv_superpoint.errors import require
from cv_superpoint.grid import CELL_SIZE
from cv_superpoint.network.architecture import DESCRIPTOR, DETECTOR, IMAGE, Convolution, for_bytes
from cv_superpoint.network.weights import NetworkWeights

ncnn: Any = require("ncnn", "")

LARGE = 512 * 512
"""Pixels of an image that runs alone: the maps of several such images might not fit into memory."""
ALIGNED = 64
"""Bytes; what ncnn loads at once, at the most."""
_AS_IT_IS = 1
"""Argument of ncnn's extract: without unpacking the channels."""
Floats = NDArray[np.float32]

_abandoned: list[Any] = []
"""Memory pools of a parent process: another of its threads may have held their locks."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """The result of a chain of layers, or some rows of it.

    Attributes:
        planes: (C / pack, H, W * pack) float32.
        pack: Channels that lie side by side, as ncnn computes them: 16, 8, 4 or 1.
    """

    planes: Floats
    pack: int

    def copy_cells(self, cells: Floats) -> None:
        """The result as (H, W, C), channels last in memory."""
        # A pack is copied as one value, in half the time of its floats.
        pack = np.dtype((np.void, cells.itemsize * self.pack))
        cells.view(pack)[...] = self.planes.view(pack).transpose(1, 2, 0)


class NcnnBackend:
    """Runs the network in ncnn, see :class:`cv_superpoint.backends.Backend`.

    A result does not depend on the rest of its batch, nor on the number of threads. The nets are
    shared by threads and by forked processes; every strip has an extractor of its own.
    """

    name = "ncnn"
    device = "cpu"
    precision = "float32"
    decodes = False
    lanes = 1

    def __init__(self, weights: NetworkWeights, *, threads: int | None = None) -> None:
        self.threads = self.batch = threads or min(default_threads(), ncnn.get_physical_cpu_count())
        self._config = weights.config
        self._chains = chains(weights.config)
        kernels = for_bytes(weights.config, weights.convolutions())
        self._nets = [_load(_build(chain, kernels)) for chain in self._chains]
        self._memory = os.getpid(), (ncnn.PoolAllocator(), ncnn.PoolAllocator())
        self._packs = self._find_packs()

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        outputs = self._network(images)
        return [one.transpose(1, 2, 0) for one, _ in outputs], [one for _, one in outputs]

    def _network(self, images: NDArray[np.uint8]) -> list[tuple[Floats, Floats]]:
        """Logits (65, h, w), descriptors (h, w, D) of each image."""
        height, width = images.shape[1:3]
        size = sizes(self._config, height, width)
        strips = plan(self._config, height, width)
        together = 1 if height * width > LARGE else len(images)
        outputs = []
        for start in range(0, len(images), together):
            tasks: list[Task] = []
            for image in images[start : start + together]:
                maps = {
                    chain.name: _empty(size[chain.name], pack)
                    for chain, pack in zip(self._chains, self._packs, strict=True)
                    if chain.name != DESCRIPTOR[1]
                }
                _, *cells = size[DETECTOR[1]]
                dense = np.empty((*cells, self._config.descriptor_dim), np.float32)
                first = len(tasks)
                tasks += [
                    Task(
                        work=partial(self._run_strip, strip, image, maps, dense),
                        needs=[first + needed for needed in strip.needs],
                    )
                    for strip in strips
                ]
                outputs.append((maps[DETECTOR[1]].planes, dense))  # 65 channels are in no packs
            run_tasks(tasks, self.threads)
        return outputs

    def _run_strip(
        self, strip: Strip, image: NDArray[np.uint8], maps: Mapping[str, Maps], dense: Floats
    ) -> None:
        """Some rows of a chain's result, from the rows of its inputs.

        Args:
            strip: Strip of the chain.
            image: (H, W, C).
            maps: Results of chains, by their names.
            dense: Result of the chain of descriptors, cell by cell, as the decoding reads them.
        """
        chain, net = self._chains[strip.chain], self._nets[strip.chain]
        first, names = strip.rows[0], list(chain.inputs)
        blobs = [
            _pixels(image, first) if name == IMAGE else _blob(maps[name], first) for name in names
        ]
        for layer, rows in zip(chain.layers, strip.rows[1:], strict=False):
            if rows.padded:  # the next layer sees zeros beyond the image, not more of this one
                made = self._extract(net, names, blobs, layer.name)
                whole = replace(rows, start=0, end=made.planes.shape[1])
                names, blobs = [layer.name], [_blob(made, whole)]
        packed = self._packs[strip.chain] > 1
        made = self._extract(net, names, blobs, chain.name, packed=packed)
        if chain.name == DESCRIPTOR[1]:
            made.copy_cells(dense[strip.start : strip.end])
        else:
            maps[chain.name].planes[:, strip.start : strip.end] = made.planes

    def _extract(
        self,
        net: Any,
        names: Sequence[str],
        blobs: Sequence[Any],
        name: str,
        *,
        packed: bool = True,
    ) -> Maps:
        """The result of a layer, in memory that goes back to a pool with it."""
        extractor = net.create_extractor()
        # Without a pool every strip would fetch its maps from the system page by page.
        for_maps, for_work = self._pools()
        extractor.set_blob_allocator(for_maps)
        extractor.set_workspace_allocator(for_work)
        for each, blob in zip(names, blobs, strict=True):
            extractor.input(each, blob)
        failed, result = extractor.extract(name, _AS_IT_IS if packed else 0)
        if failed:
            raise MemoryError("ncnn cannot run the network; is there memory for its maps?")
        # ncnn's Python makes arrays of unpacked maps only. Packed ones have the same memory as
        # unpacked ones whose rows are longer.
        flat, pack = ncnn.Mat(result), result.elempack  # not copied, but for its shape
        flat.elempack, flat.elemsize = 1, flat.elemsize // pack
        flat.w, flat.cstep = flat.w * pack, flat.cstep * pack
        return Maps(planes=np.array(flat, copy=False), pack=pack)

    def _pools(self) -> tuple[Any, Any]:
        """Memory for maps and for work, of this process."""
        owner, pools = self._memory
        if owner != os.getpid():
            _abandoned.append(pools)
            pools = ncnn.PoolAllocator(), ncnn.PoolAllocator()
            self._memory = os.getpid(), pools
        return pools

    def _find_packs(self) -> list[int]:
        """How the processor's ncnn packs the result of each chain."""
        size, packs = sizes(self._config, 8 * CELL_SIZE, 8 * CELL_SIZE), []
        for chain, net in zip(self._chains, self._nets, strict=True):
            blobs = []
            for name in chain.inputs:
                channels, height, width = size[name]
                blobs.append(_blob(_empty((channels, height, width), 1), Rows(start=0, end=height)))
            packs.append(self._extract(net, chain.inputs, blobs, chain.name).pack)
        return packs

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        return f"ncnn {ncnn.__version__} on cpu, float32, {self.threads} threads"


def _empty(size: tuple[int, int, int], pack: int) -> Maps:
    """Maps of (C, H, W) to be written."""
    count, height, width = size
    shape = count // pack, height, width * pack
    store = np.empty(math.prod(shape) + ALIGNED // 4, np.float32)
    offset = -store.ctypes.data % ALIGNED // 4
    return Maps(planes=store[offset : offset + math.prod(shape)].reshape(shape), pack=pack)


def _blob(maps: Maps, rows: Rows) -> Any:
    """Rows of maps, with their zeros, as an ``ncnn.Mat``.

    Without zeros it refers to the maps, which have to stay.
    """
    count, height, width = maps.planes.shape
    taken = rows.end - rows.start
    if rows.padded:
        blob = ncnn.Mat(width, rows.above + taken + rows.below, count)
        planes = np.array(blob, copy=False)
        planes[:, : rows.above] = planes[:, rows.above + taken :] = 0
        planes[:, rows.above : rows.above + taken] = maps.planes[:, rows.start : rows.end]
    else:
        blob = ncnn.Mat(maps.planes.reshape(-1)[rows.start * width :])
        blob.dims, blob.h, blob.c, blob.cstep = 3, taken, count, height * width
    blob.elempack, blob.elemsize = maps.pack, 4 * maps.pack
    blob.w, blob.cstep = width // maps.pack, blob.cstep // maps.pack
    return blob


def _pixels(image: NDArray[np.uint8], rows: Rows) -> Any:
    """Rows of an (H, W, C) image, with their zeros, as an ``ncnn.Mat`` in [0, 255]."""
    taken = rows.end - rows.start
    blob = ncnn.Mat(image.shape[1], rows.above + taken + rows.below, image.shape[2])
    planes = np.array(blob, copy=False)
    planes[:, : rows.above] = planes[:, rows.above + taken :] = 0
    planes[:, rows.above : rows.above + taken] = image[rows.start : rows.end].transpose(2, 0, 1)
    return blob


def _load(model: _Model) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = 1
    for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{half}", False)
    if net.load_param_mem(model.text) or net.load_model(_Reader(model.weights)):
        raise RuntimeError("ncnn does not take the network; please report this")
    return net


_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Reader(ncnn.DataReader):  # type: ignore[misc]
    """Weights from memory: ncnn's own ways need a file, and keep no copy of what they are given."""

    def __init__(self, content: bytes) -> None:
        ncnn.DataReader.__init__(self)  # pybind11 requires it
        self._content = memoryview(content)
        self._place = 0

    def read(self, target: Any, size: int) -> int:
        part = bytes(self._content[self._place : self._place + size])
        ctypes.memmove(_address(target, None), part, len(part))
        self._place += len(part)
        return len(part)


class _Model:
    """ncnn's text of layers and the weights that go with it, in the same order."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._blobs = 0
        self.weights = b""

    @property
    def text(self) -> str:
        return "\n".join(["7767517", f"{len(self._lines)} {self._blobs}", *self._lines, ""])

    def input(self, name: str) -> str:
        """Maps that are given."""
        self._lines.append(f"Input {name}_input 0 1 {name}")
        self._blobs += 1
        return name

    def _layer(self, kind: str, name: str, source: str, options: str) -> str:
        self._lines.append(f"{kind} {name} 1 1 {source} {name} {options}")
        self._blobs += 1
        return name

    def convolution(self, x: str, layer: Convolution) -> str:
        """A convolution with its ReLU fused in, and the scale that may follow.

        Zeros are added on the left and on the right; above and below, a strip brings its own.
        """
        count, _, size, _ = layer.weight.shape
        side = layer.padding
        name = f"{layer.name}_before" if layer.scale is not None else layer.name
        x = self._layer(
            "Convolution",
            name,
            x,
            f"0={count} 1={size} 3={layer.stride} 4={side} 15={side} 14=0 16=0 5=1 "
            f"6={layer.weight.size} 9={int(layer.relu)}",
        )
        flag = np.zeros(1, "<u4").tobytes()  # float32 follows
        self.weights += flag + layer.weight.astype("<f4").tobytes()
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


def _build(chain: Chain, kernels: Mapping[str, Convolution]) -> _Model:
    """The net of a chain of layers; pixels in [0, 255] where it begins at the image."""
    model = _Model()
    maps = [model.input(name) for name in chain.inputs]
    for layer in chain.layers:
        if layer.kind == "pool":
            x = model.pool(maps[0], layer.name)
        elif layer.kind == "sum":
            x = model.total(maps, layer.name)
        else:
            x = model.convolution(maps[0], kernels[layer.name])
        maps = [x]
    return model
