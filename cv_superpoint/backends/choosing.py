"""Which backend "auto" takes, and why: the fastest here that keeps the published accuracy."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from cv_superpoint.errors import require
from cv_superpoint.weights import PRECISIONS

BACKENDS = ("ncnn", "openvino", "onnxruntime", "torch")
_CPU_PRECISIONS = {
    "ncnn": ("float32",),
    "openvino": ("float32", "bfloat16"),
    "onnxruntime": ("float32",),
    "torch": ("float32", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What runs the network.

    Attributes:
        backend: One of :data:`BACKENDS`.
        device: As the backend takes it.
        precision: "float32", "bfloat16" or "float16".
        reason: Why, for :meth:`SuperPointFeature2D.describe`.
    """

    backend: str
    device: str
    precision: str
    reason: str


def choose(
    *, backend: str, device: str, precision: str, measured: tuple[str, ...] = ("float32",)
) -> Choice:
    """Fill in what is "auto".

    Args:
        backend: "auto" or one of :data:`BACKENDS`.
        device: "auto", "cpu" or a device of the backend.
        precision: "auto" or a precision; "auto" takes none but ``measured``.
        measured: Precisions in which these weights were measured to keep their accuracy.

    Raises:
        ValueError: If a name is unknown or the combination is not to be had.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be 'auto' or one of {', '.join(BACKENDS)}, got {backend!r}")
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(
            f"precision must be 'auto' or one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if backend == "auto":
        backend, device, why = _choose_backend(device, precision, measured)
    else:
        why = "as asked"
    if backend in ("ncnn", "openvino") and device not in ("auto", "cpu"):
        raise ValueError(f"backend {backend!r} runs on 'cpu' only, got device {device!r}")
    if backend in ("ncnn", "openvino"):
        device = "cpu"
    if backend == "torch" and device == "auto":
        require("torch", "torch")
        from cv_superpoint.backends.torch import choose_device

        device = str(choose_device(device))
    if device == "cpu" and precision not in ("auto", *_CPU_PRECISIONS[backend]):
        raise ValueError(
            f"precision {precision!r} is not for {backend} on the CPU; use "
            f"{' or '.join(map(repr, _CPU_PRECISIONS[backend]))}"
        )
    if precision == "auto":
        precision, more = _choose_precision(backend, device, measured)
        why = f"{why}; {more}"
    return Choice(backend=backend, device=device, precision=precision, reason=why)


def _choose_backend(device: str, precision: str, measured: tuple[str, ...]) -> tuple[str, str, str]:
    """Backend, device, reason."""
    if device not in ("auto", "cpu"):
        return "torch", device, f"torch because device is {device!r}"
    hint = ""
    if device == "auto":
        found = accelerator()
        if found and is_installed("torch"):
            torch = require("torch", "torch")
            if found == "mps" or torch.cuda.is_available():
                return "torch", found, f"torch because there is a {found} device"
            hint = "; there is a CUDA device, but this torch was not built for it"
        elif found:
            hint = f'; for the {found} device pip install "cv-superpoint[torch]"'
    bfloat16 = precision == "bfloat16" or (precision == "auto" and "bfloat16" in measured)
    if bfloat16 and is_installed("openvino"):
        from cv_superpoint.backends.openvino import has_bfloat16

        if has_bfloat16():
            return "openvino", "cpu", f"openvino because this CPU multiplies in bfloat16{hint}"
    if precision == "bfloat16":
        return "torch", "cpu", f"torch because bfloat16 was asked for{hint}"
    for name in BACKENDS:
        if is_installed(name):
            fastest = (
                "what takes the least processor time in float32"
                if name == "ncnn"
                else "what is installed"
            )
            return name, "cpu", f"{name} because it is {fastest}{hint}"
    raise ImportError(
        "none of the packages that run the network is installed; reinstall cv-superpoint, "
        'or pip install "cv-superpoint[cpu]"'
    )


def _choose_precision(backend: str, device: str, measured: tuple[str, ...]) -> tuple[str, str]:
    """Precision, reason."""
    lower = [name for name in measured if name != "float32"]
    if backend == "openvino" and "bfloat16" in lower:
        from cv_superpoint.backends.openvino import has_bfloat16

        if has_bfloat16():
            return "bfloat16", "bfloat16 because these weights keep their accuracy in it"
    if backend == "torch" and device.startswith("cuda"):
        for name in ("float16", "bfloat16"):
            if name in lower:
                return name, f"{name} because these weights keep their accuracy in it"
    if lower:
        return "float32", "float32 because nothing lower is faster here"
    return "float32", "float32 because these weights were not measured in less"


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    return find_spec(package) is not None


def accelerator() -> str | None:
    """Return "cuda" or "mps" if the machine has one.

    Found without torch, which takes seconds to import and may not be there.
    """
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else None
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except OSError:
        return None
    return "cuda" if not failed and count.value > 0 else None
