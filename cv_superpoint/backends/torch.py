"""The network in PyTorch: CPU, CUDA and Apple's MPS."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.cuda_graphs import GraphCache
from cv_superpoint.backends.forks import is_forked, no_fork
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.tensors import decode_batch, most_keypoints
from cv_superpoint.errors import FeatureError
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.network.weights import NetworkWeights

Floats = NDArray[np.float32]
Decoded = tuple[Floats, Floats, Floats]
Result = TypeVar("Result")

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_SETTING = threading.Lock()
"""Lock of torch's settings, which belong to the whole process, while one of them is changed."""
_ROOM = 1024
"""Keypoints that the answer has room for where their number has no limit; if there are more, the
image runs again, and later answers have more room."""


def choose_device(device: str) -> torch.device:
    """The torch device of a name; "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        FeatureError: If the device is unknown or not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise FeatureError(
            f"device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got {device!r}"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        limit = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible!r}"
        raise FeatureError(
            f"device {device!r} is not there ({torch.cuda.device_count()} CUDA devices found"
            f"{limit}); use device='auto' or 'cpu', or install a CUDA build of torch"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise FeatureError("device 'mps' is not there; use device='auto' or 'cpu'")
    return chosen


class TorchBackend:
    """Runs the network in PyTorch, see :class:`cv_superpoint.backends.Backend`.

    On a CPU images of a batch run one after the other: that is as fast, needs less memory, and
    makes an image's result independent of what else is in the batch, to the last bit.
    """

    name = "torch"
    lanes = 1

    def __init__(
        self,
        weights: NetworkWeights,
        *,
        device: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
    ) -> None:
        self._device = choose_device(device)
        if self._device.type == "cuda" and self._device.index is None:
            # Whatever device is the current one later, or in another thread, this one stays.
            self._device = torch.device("cuda", torch.cuda.current_device())
        self.device = str(self._device)
        self.precision = precision
        self._owner = os.getpid()
        if self._device.type == "cpu":
            # torch has no such setting of one network alone.
            torch.set_num_threads(threads or min(torch.get_num_threads(), default_threads()))
            self._check_process()
        if self.precision not in _PRECISIONS:
            known = ", ".join(_PRECISIONS)
            raise FeatureError(f"precision must be one of {known} with torch, got {precision!r}")
        if self.precision == "float16" and self._device.type == "cpu":
            raise FeatureError(
                "precision 'float16' is not for the CPU; use 'bfloat16' or 'float32'"
            )
        self.batch = 1 if self._device.type == "cpu" else 32
        self.decodes = self._device.type == "cuda"
        self._graphs = GraphCache(self._device)
        self._room = _ROOM
        self._dtype = _PRECISIONS[self.precision]
        # Channels last is faster in float32 on a CPU (about 1.2 times) and with tensor cores.
        net = weights.net.requires_grad_(False)
        # As architecture.for_bytes: it takes pixels in [0, 255].
        net.get_parameter("encoder.0.conv.weight").mul_(1 / 255)
        net = net.to(self._device, self._dtype)
        # torch's type stubs lack this keyword.
        self._net: SuperPointNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _check_process(self) -> None:
        """Do what a fork since the backend was made asks for.

        Raises:
            FeatureError: If the device does not survive a fork.
        """
        if is_forked() and self._device.type == "cpu":
            torch.set_num_threads(1)  # OpenMP waits for threads that are the parent's
        elif self._owner != os.getpid():
            raise FeatureError(
                f"this detector runs on {self.device!r}, which a forked process cannot use; make "
                "it in the child, and start that with multiprocessing's method 'spawn'"
            )

    @torch.inference_mode()
    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        if len(images) > 1 and self.batch == 1:
            alone = [self.run(images[index : index + 1]) for index in range(len(images))]
            return [one[0][0] for one in alone], [one[1][0] for one in alone]
        self._check_process()
        parts = self._fitting(images.shape, lambda part: self._run(images[part]))
        logits, dense = zip(*parts, strict=True)
        return list(chain(*logits)), list(chain(*dense))

    def _run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        # (B, H, W, C) seen as (B, C, H, W) is a channels-last tensor: nothing is copied.
        # torch takes no array that may not be written to.
        pixels = torch.from_numpy(np.require(images, requirements="W"))
        with no_fork(), self._exact():
            batch = pixels.to(self._device).permute(0, 3, 1, 2)
            batch = batch.to(self._dtype).contiguous(memory_format=torch.channels_last)
            maps = self._network(batch)
            return _channels_last(maps[0]), _channels_last(maps[1])

    def _network(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, 65, h, w), unit descriptors (B, D, h, w)."""
        maps: tuple[torch.Tensor, torch.Tensor] = self._net(batch)
        return maps

    def start_decoding(
        self,
        images: NDArray[np.uint8],
        frames: NDArray[np.int32],
        allowed: NDArray[np.bool_] | None,
        decoding: Decoding,
    ) -> Callable[[], list[Decoded]]:
        """Same as :meth:`cv_superpoint.detector.on_device.DecodingBackend.start_decoding`."""
        self._check_process()
        given: list[NDArray[Any]] = [images, frames]
        if allowed is not None:
            given.append(allowed)
        return self._start_fitting(given, decoding)

    def _start_fitting(
        self, arrays: list[NDArray[Any]], decoding: Decoding
    ) -> Callable[[], list[Decoded]]:
        def start(part: slice) -> Callable[[], list[Decoded]]:
            return self._start([array[part] for array in arrays], decoding)

        parts = self._fitting(arrays[0].shape, start)
        return lambda: [one for part in parts for one in part()]

    def _start(self, arrays: list[NDArray[Any]], decoding: Decoding) -> Callable[[], list[Decoded]]:
        most = most_keypoints(arrays[0].shape[1:3], decoding)
        bounded = decoding.max_keypoints > 0
        room = min(most, decoding.max_keypoints if bounded else self._room)
        inputs = tuple(torch.from_numpy(np.require(one, requirements="W")) for one in arrays)
        with no_fork(), self._exact():
            pending = self._graphs.start(
                (decoding, room), recorded(self._net, self._dtype, decoding, room), inputs
            )
        length = self._net.config.descriptor_dim

        def finish() -> list[Decoded]:
            found, largest = pending.read(lambda answer: unpack(answer.numpy(), room, length))
            if bounded or largest <= room:
                return found
            # Room for twice as many, so that the next images with as many need no second run.
            self._room = max(self._room, 1 << largest.bit_length())
            return self._start_fitting(arrays, decoding)()

        return finish

    def _fitting(self, shape: tuple[int, ...], work: Callable[[slice], Result]) -> list[Result]:
        """Results of ``work`` on all images, or part by part where memory does not hold all.

        Raises:
            FeatureError: If it does not hold one.
        """
        waiting, done = [slice(0, shape[0])], []
        while waiting:
            part = waiting.pop(0)
            try:
                done.append(work(part))
                continue
            except torch.OutOfMemoryError as error:
                problem = str(error)
            # Here, where nothing holds what the failed call had computed.
            count = part.stop - part.start
            if self._graphs.clear():
                waiting.insert(0, part)
            elif count == 1:
                raise FeatureError(
                    f"an image of {shape[1]} x {shape[2]} pixels does not fit into the memory of "
                    f"{self.device} in {self.precision}; make tileSize smaller, take "
                    f"precision='float16', or device='cpu' ({problem.splitlines()[0]})"
                )
            else:
                self.batch = max(1, count // 2)
                middle = part.start + count // 2
                waiting[:0] = [slice(part.start, middle), slice(middle, part.stop)]
        return done

    def _exact(self) -> AbstractContextManager[None]:
        """Context of everything that may convolve."""
        if self._device.type == "cuda" and self._dtype == torch.float32:
            return _without_tf32()
        return nullcontext()

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        device = self.device
        if self._device.type == "cuda":
            device += f" ({torch.cuda.get_device_name(self._device)})"
        return f"torch {torch.__version__} on {device}, {self.precision}"


@contextmanager
def _without_tf32() -> Iterator[None]:
    """float32 is float32: by default cuDNN convolves it with the 10 bits of TF32."""
    cudnn: Any = torch.backends.cudnn
    # torch 2.9 has a setting for convolutions alone, and refuses the older one where a program
    # uses the newer.
    owner, name, exact = cudnn, "allow_tf32", cast(Any, False)
    if hasattr(cudnn, "conv"):
        owner, name, exact = cudnn.conv, "fp32_precision", "ieee"
    with _SETTING:
        before = getattr(owner, name)
        setattr(owner, name, exact)
        try:
            yield
        finally:
            setattr(owner, name, before)


def recorded(
    net: SuperPointNet, dtype: torch.dtype, decoding: Decoding, room: int
) -> Callable[..., torch.Tensor]:
    """What a CUDA graph holds: network, decoding and packing.

    Args:
        net: The network on its device, for pixels in [0, 255].
        dtype: Type that it computes in.
        decoding: Same as for :func:`decode_batch`.
        room: Same as for :func:`decode_batch`.

    Returns:
        A function of pixels (B, H', W', C) uint8, and of ``frames`` and ``allowed`` as of
        :func:`decode_batch`; it gives all that goes to the host in one row of float32, which
        :func:`unpack` takes apart.
    """

    def work(
        pixels: torch.Tensor, frames: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        batch = pixels.permute(0, 3, 1, 2).to(dtype)
        features = net.encode(batch.contiguous(memory_format=torch.channels_last))
        found = decode_batch(
            net.detect(features), net.raw_descriptors(features), frames, allowed, decoding, room
        )
        return torch.cat([part.flatten() for part in found])

    return work


def unpack(answer: Floats, room: int, length: int) -> tuple[list[Decoded], int]:
    """Take apart what :func:`recorded` gives.

    Args:
        answer: All numbers; nothing that comes back shares their memory.
        room: Same as for :func:`decode_batch`, at most :func:`most_keypoints`.
        length: Length of a descriptor.

    Returns:
        Points (N, 2), scores (N,) and descriptors (N, D) of each image, and how many keypoints the
        image has that has most, which may be more than ``room``.
    """
    # Each image has its count, and for each row x, y, a score and a descriptor.
    images = len(answer) // (1 + room * (3 + length))
    sizes = [images, images * room * 2, images * room]
    counts, points, scores, rows = np.split(answer, np.cumsum(sizes))
    points, scores = points.reshape(images, room, 2), scores.reshape(images, room)
    rows = rows.reshape(images, room, length)
    found = [
        (points[index, :kept].copy(), scores[index, :kept].copy(), rows[index, :kept].copy())
        for index, kept in enumerate(np.minimum(counts, room).astype(int).tolist())
    ]
    return found, int(counts.max())


def _channels_last(maps: torch.Tensor) -> list[Floats]:
    """(B, C, h, w) on any device -> (h, w, C) float32 on the host for each image."""
    return list(maps.permute(0, 2, 3, 1).float().cpu().numpy())
