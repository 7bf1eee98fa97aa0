"""The network in ONNX Runtime: CPU, CUDA and TensorRT, whichever its installation offers.

In 8 bits on the CPU alone.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cv_superpoint.backends.cache import CachedFile
from cv_superpoint.backends.cores import default_threads
from cv_superpoint.backends.forks import no_fork
from cv_superpoint.backends.processor import check_8_bits
from cv_superpoint.errors import FeatureError
from cv_superpoint.export import runtime_model
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights.ranges import needed_ranges

GRAPH_VERSION = "3"
"""Changes with the exported graph, so that no stored one of another form is read."""
Floats = NDArray[np.float32]

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


class OnnxRuntimeBackend:
    """Runs the network in ONNX Runtime, see :class:`cv_superpoint.backends.Backend`.

    On a CPU images of a batch run one after the other, so a result does not depend on the rest of
    its batch.

    Args:
        weights: The network.
        device: "auto" (CUDA where the installed ONNX Runtime has it), "cpu", "cuda", "cuda:1",
            "tensorrt" (builds an engine for every new shape, which takes minutes).
        precision: "float32" or "int8".
        threads: Number of threads on the CPU; None leaves it to ONNX Runtime.

    Raises:
        FeatureError: If the device is unknown, or the installation does not offer it, or the
            device does not have the precision.
        WeightsError: If the weights have no ranges for 8 bits.
    """

    name = "onnxruntime"
    decodes = False
    lanes = 1

    def __init__(
        self,
        weights: NetworkWeights,
        *,
        device: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
    ) -> None:
        self.device, self.precision = _check_device(device), precision
        if precision not in ("float32", "int8"):
            raise FeatureError(
                f"precision must be float32 or int8 with onnxruntime, got {precision!r}"
            )
        if precision == "int8":
            if self.device != "cpu":
                raise FeatureError(
                    f"precision 'int8' is for the CPU with onnxruntime, got device {device!r}; "
                    "use precision='float32' or device='cpu'"
                )
            check_8_bits()
        kind, _, index = self.device.partition(":")
        self.batch = 1 if kind == "cpu" else 32
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads or default_threads()
        # Threads that spin while they wait take the cores from those that work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        on_gpu = {"device_id": index or "0"}
        providers = [
            name if name.startswith("CPU") else (name, on_gpu) for name in _PROVIDERS[kind]
        ]
        self._session = onnxruntime.InferenceSession(
            _model(weights, precision), options, providers=providers
        )
        used = self._session.get_providers()[0]
        if used != _PROVIDERS[kind][0]:
            raise FeatureError(
                f"device {self.device!r} did not start (ONNX Runtime fell back to {used}); check "
                "the CUDA installation, or use device='cpu'"
            )

    def run(self, images: NDArray[np.uint8]) -> tuple[list[Floats], list[Floats]]:
        """Run the network, see :meth:`cv_superpoint.backends.Backend.run`."""
        if len(images) > 1 and self.batch == 1:
            alone = [self.run(images[index : index + 1]) for index in range(len(images))]
            return [one[0][0] for one in alone], [one[1][0] for one in alone]
        logits, dense = self._network(images)
        return list(logits.transpose(0, 2, 3, 1)), list(dense)

    def _network(self, images: NDArray[np.uint8]) -> list[Floats]:
        """Logits (B, 65, h, w), descriptors (B, h, w, D)."""
        with no_fork():
            maps: list[Floats] = self._session.run(None, {"images": images})
        if len(maps) == 1:
            batch, _, height, width = maps[0].shape
            maps.append(np.empty((batch, height, width, 0), np.float32))
        return maps

    def info(self) -> str:
        """Tell what runs, see :meth:`cv_superpoint.backends.Backend.info`."""
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        return (
            f"onnxruntime {onnxruntime.__version__} on {self.device} ({provider}), {self.precision}"
        )


def _check_device(device: str) -> str:
    offered = onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if "CUDAExecutionProvider" in offered else "cpu"
    kind, _, index = device.partition(":")
    if kind not in _PROVIDERS or (index and not index.isdecimal()):
        raise FeatureError(
            f"device must be 'auto', {', '.join(map(repr, _PROVIDERS))} or such as 'cuda:1' "
            f"with onnxruntime, got {device!r}"
        )
    if _PROVIDERS[kind][0] not in offered:
        raise FeatureError(
            f"device {device!r} is not offered by this ONNX Runtime (it has "
            f"{', '.join(offered)}); install onnxruntime-gpu, or use device='cpu'"
        )
    return device


def _model(weights: NetworkWeights, precision: str) -> bytes:
    """The exported network, from the disk where it was stored: the package onnx is slow to load."""
    key = [weights.digest, str(weights.config), GRAPH_VERSION]
    if precision == "int8":
        key.append(str(needed_ranges(weights)))
    cached = CachedFile("onnx", *key)
    model = cached.read()
    if model is None:
        model = runtime_model(weights, in_8_bits=precision == "int8").SerializeToString()
        cached.write(model)
    return model
