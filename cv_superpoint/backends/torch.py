"""The network in PyTorch: CPU, CUDA and Apple's MPS."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.cuda_graphs import GraphCache
from cv_superpoint.backends.forks import is_forked, no_fork
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.tensors import decode_batch
from cv_superpoint.errors import FeatureError
from cv_superpoint.network.weights import NetworkWeights

Floats = NDArray[np.float32]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        raise FeatureError(
            f"device {device!r} is not there ({torch.cuda.device_count()} CUDA devices found); "
            "use device='auto' or 'cpu', or install a CUDA build of torch"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise FeatureError("device 'mps' is not there; use device='auto' or 'cpu'")
    return chosen


class TorchBackend:
    """See :class:`cv_superpoint.backends.Backend`.

    On a CPU images of a batch run one after the other: that is as fast, needs less memory, and
    makes an image's result independent of what else is in the batch, to the last bit.
    """

    name = "torch"

    def __init__(
        self,
        weights: NetworkWeights,
        *,
        device: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
    ) -> None:
        self._device = choose_device(device)
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
        self._graphs = GraphCache()
        self._dtype = _PRECISIONS[self.precision]
        # Channels last is faster in float32 on a CPU (about 1.2 times) and with tensor cores.
        net = weights.net.requires_grad_(False)
        # As architecture.for_bytes: it takes pixels in [0, 255].
        net.get_parameter("encoder.0.conv.weight").mul_(1 / 255)
        net = net.to(self._device, self._dtype)
        # torch's type stubs do not know this keyword.
        self._net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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
        """See :meth:`cv_superpoint.backends.Backend.run`."""
        if len(images) > 1 and self.batch == 1:
            alone = [self.run(images[index : index + 1]) for index in range(len(images))]
            return [one[0][0] for one in alone], [one[1][0] for one in alone]
        self._check_process()
        with no_fork():
            return self._run(images)

    def _run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        # (B, H, W, C) seen as (B, C, H, W) is a channels-last tensor: nothing is copied.
        # torch takes no array that may not be written to.
        pixels = torch.from_numpy(np.require(images, requirements="W"))
        batch = pixels.to(self._device).permute(0, 3, 1, 2)
        batch = batch.to(self._dtype).contiguous(memory_format=torch.channels_last)
        maps = self._network(batch)
        return _channels_last(maps[0]), _channels_last(maps[1])

    def _network(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, 65, h, w), unit descriptors (B, D, h, w)."""
        maps: tuple[torch.Tensor, torch.Tensor] = self._net(batch)
        return maps

    @torch.inference_mode()
    def run_decoded(
        self,
        images: NDArray[np.uint8],
        allowed: NDArray[np.bool_],
        decoding: Decoding,
    ) -> tuple[Floats, Floats, Floats]:
        """See :meth:`cv_superpoint.detector.on_device.DecodingBackend.run_decoded`.

        Pixels go to the device from pinned memory, and one tensor with everything comes back.
        """
        self._check_process()
        inputs = torch.from_numpy(images), torch.from_numpy(allowed)
        work = recorded(self._net, self._dtype, decoding)
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                pinned = inputs[0].pin_memory(), inputs[1].pin_memory()
                packed = self._graphs.run(decoding, work, pinned)
        else:
            packed = work(*(tensor.to(self._device) for tensor in inputs)).cpu()
        answer = packed.numpy()
        points, scores, rows = answer[..., :2], answer[..., 2], answer[..., 3:]
        return points.copy(), scores.copy(), rows.copy()

    def info(self) -> str:
        """See :meth:`cv_superpoint.backends.Backend.info`."""
        device = self.device
        if self._device.type == "cuda":
            device += f" ({torch.cuda.get_device_name(self._device)})"
        return f"torch {torch.__version__} on {device}, {self.precision}"


def recorded(
    net: torch.nn.Module, dtype: torch.dtype, decoding: Decoding
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What a CUDA graph holds: network, decoding and packing.

    Args:
        net: The network on its device, for pixels in [0, 255].
        dtype: That it computes in.
        decoding: As of :func:`decode_batch`.

    Returns:
        A function of pixels (B, H', W', C) uint8 and of where keypoints may be (B, H, W); it gives
        (B, K, 3 + D): x, y, score and descriptor.
    """

    def work(pixels: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        batch = pixels.permute(0, 3, 1, 2).to(dtype)
        logits, dense = net(batch.contiguous(memory_format=torch.channels_last))
        points, scores, rows = decode_batch(logits, dense, allowed, decoding)
        return torch.cat([points, scores[..., None], rows], dim=2)

    return work


def _channels_last(maps: torch.Tensor) -> list[Floats]:
    """(B, C, h, w) on any device -> (h, w, C) float32 on the host for each image."""
    return list(maps.permute(0, 2, 3, 1).float().cpu().numpy())
