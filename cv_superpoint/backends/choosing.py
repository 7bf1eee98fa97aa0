"""Which backend "auto" takes, and why: the fastest here that keeps the published accuracy."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from cv_superpoint.backends.processor import CPU_BFLOAT16, CPU_INT8, instructions
from cv_superpoint.errors import FeatureError, require
from cv_superpoint.weights.store import PRECISIONS

BACKENDS = ("ncnn", "openvino", "onnxruntime", "torch")
_EXTRAS = {"openvino": "cpu", "onnxruntime": "onnx", "torch": "torch"}
_CPU_ONLY = ("ncnn", "openvino")
CUDA_BFLOAT16 = "tensor cores with bfloat16"
"""What NVIDIA's GPUs have since Ampere (compute capability 8.0)."""


@dataclass(frozen=True)
class Candidate:
    """A way to run the network.

    Attributes:
        backend: One of :data:`BACKENDS`.
        device: Kind of device.
        precision: Precision; "auto" takes it only if the weights were measured in it.
        needs: What the machine must have, beside the device; "" for nothing.
        because: Why it stands where it does in the order.
        gain: What installing a missing package would bring; "" for nothing worth telling.
    """

    backend: str
    device: str
    precision: str
    needs: str = ""
    because: str = "it is what is installed"
    gain: str = ""


_CUDA, _MPS = "there is a cuda device", "there is a mps device"
ORDER = (
    Candidate("torch", "cuda", "float16", "", _CUDA),
    Candidate("torch", "cuda", "bfloat16", CUDA_BFLOAT16, _CUDA),
    Candidate("torch", "cuda", "float32", "", _CUDA),
    Candidate("torch", "mps", "float32", "", _MPS),
    Candidate("torch", "mps", "float16", "", "float16 was asked for"),
    Candidate("torch", "mps", "bfloat16", "", "bfloat16 was asked for"),
    Candidate(
        "openvino",
        "cpu",
        "int8",
        CPU_INT8,
        "this CPU multiplies bytes",
        "multiplies bytes here, faster than anything installed (docs/speed.md)",
    ),
    Candidate("onnxruntime", "cpu", "int8", CPU_INT8, "this CPU multiplies bytes"),
    Candidate(
        "openvino",
        "cpu",
        "bfloat16",
        CPU_BFLOAT16,
        "this CPU multiplies in bfloat16",
        "multiplies in bfloat16 here, faster than anything installed (docs/speed.md)",
    ),
    Candidate("ncnn", "cpu", "float32", "", "it takes the least processor time in float32"),
    Candidate("openvino", "cpu", "float32"),
    Candidate("onnxruntime", "cpu", "float32"),
    Candidate("torch", "cpu", "bfloat16", CPU_BFLOAT16, "this CPU multiplies in bfloat16"),
    Candidate("torch", "cpu", "float32"),
    # On other CPUs, such as ARM, where speed and instructions were not measured; refused where sums
    # saturate.
    Candidate("openvino", "cpu", "int8", "", "int8 was asked for"),
    Candidate("onnxruntime", "cpu", "int8", "", "int8 was asked for"),
    # Emulated, many times slower; so that what is asked for by name runs everywhere.
    Candidate("torch", "cpu", "bfloat16", "", "bfloat16 was asked for"),
)
"""The fastest first; the first that the machine, the weights and the caller allow is taken."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the choice depends on.

    Attributes:
        installed: Packages of :data:`BACKENDS`.
        has: What :attr:`Candidate.needs` may name.
        accelerator: "cuda" or "mps" if there is one and it was looked for.
        usable: Whether the installed torch runs on it.
    """

    installed: frozenset[str]
    has: frozenset[str] = frozenset()
    accelerator: str | None = None
    usable: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What runs the network.

    Attributes:
        backend: One of :data:`BACKENDS`.
        device: Name of the device, in the backend's form.
        precision: "float32", "bfloat16", "float16" or "int8".
        reason: Why, and what a package that is missing would bring, for
            :meth:`SuperPointFeature2D.info`.
    """

    backend: str
    device: str
    precision: str
    reason: str


def choose(
    *, backend: str, device: str, precision: str, measured: Iterable[str] = ("float32",)
) -> Choice:
    """Fill in what is "auto".

    Args:
        backend: "auto" or one of :data:`BACKENDS`.
        device: "auto", "cpu" or a device of the backend.
        precision: "auto" or a precision; "auto" takes none but ``measured``.
        measured: Precisions in which these weights were measured to keep their accuracy.

    Raises:
        ImportError: If nothing that runs the network is installed.
        FeatureError: If a name is unknown or the combination is not available.
    """
    if backend not in ("auto", *BACKENDS):
        raise FeatureError(
            f"backend must be 'auto' or one of {', '.join(BACKENDS)}, got {backend!r}"
        )
    if precision not in ("auto", *PRECISIONS):
        raise FeatureError(
            f"precision must be 'auto' or one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if backend in _CPU_ONLY:
        if device not in ("auto", "cpu"):
            raise FeatureError(f"backend {backend!r} runs on 'cpu' only, got device {device!r}")
        device = "cpu"
    if backend == "torch" and device == "auto":
        require("torch", "torch")
        from cv_superpoint.backends.torch import choose_device

        device = str(choose_device(device))
    machine = examine(look_for_accelerator=backend == device == "auto", device=device)
    return decide(
        backend=backend, device=device, precision=precision, measured=measured, machine=machine
    )


def decide(
    *, backend: str, device: str, precision: str, measured: Iterable[str], machine: Machine
) -> Choice:
    """Same as :func:`choose`, but it depends on its arguments only.

    Args:
        backend: Same as for :func:`choose`; checked.
        device: Same as for :func:`choose`; "auto" only with the backends "auto" and "onnxruntime".
        precision: Same as for :func:`choose`; checked.
        measured: Same as for :func:`choose`.
        machine: What there is.

    Raises:
        ImportError: If nothing that runs the network is installed.
        FeatureError: If the backend does not have the precision on the CPU.
    """
    asked = device
    if device == "auto" and backend == "auto":
        device = machine.accelerator if machine.accelerator and machine.usable else "cpu"
    open_to = {precision} if precision != "auto" else {"float32", *measured}
    fitting = [
        one
        for one in _offered(backend, device)
        if one.precision in open_to and (not one.needs or one.needs in machine.has)
    ]
    # Of a backend that is named, or a device that only torch has, the package may be missing: the
    # error of making the backend names its extra.
    named = backend != "auto" or device != "cpu"
    present = [one for one in fitting if named or one.backend in machine.installed]
    if not present:
        _refuse(backend, device, precision, fitting)
        return Choice(
            backend="torch" if backend == "auto" else backend,
            device=device,
            precision="float32" if precision == "auto" else precision,
            reason="as asked",
        )
    taken = present[0]
    why = "as asked"
    if backend == "auto":
        because = taken.because if asked in ("auto", "cpu") else f"device is {asked!r}"
        why = f"{taken.backend} because {because}"
    if precision == "auto":
        why += f"; {_why_precision(taken.precision, measured)}"
    missed = [] if named else fitting[: fitting.index(taken)]
    return Choice(
        backend=taken.backend,
        device=device,
        precision=taken.precision,
        reason="; ".join([why, *_advice(missed, machine, device)]),
    )


def _offered(backend: str, device: str) -> list[Candidate]:
    """The candidates of a backend, or of all, on a device, such as "cuda:1"."""
    kind = device.partition(":")[0]
    return [one for one in ORDER if backend in ("auto", one.backend) and one.device == kind]


def _refuse(backend: str, device: str, precision: str, fitting: list[Candidate]) -> None:
    """Raise an error where no candidate is left, unless the backend's own error is clearer."""
    if backend == "auto" and fitting:
        if precision in ("auto", "float32"):
            raise ImportError(
                "none of the packages that run the network is installed; reinstall cv-superpoint, "
                'or pip install "cv-superpoint[cpu]"'
            )
        best = fitting[0].backend
        raise ImportError(
            f"precision {precision!r} needs the package {best!r} here, which is not installed; "
            f'pip install "cv-superpoint[{_EXTRAS[best]}]"'
        )
    offered = _offered(backend, device) or [one for one in ORDER if one.backend == backend]
    names = list(dict.fromkeys(one.precision for one in offered))
    if names and precision not in ("auto", *names):
        who = "any backend" if backend == "auto" else backend
        raise FeatureError(
            f"precision {precision!r} is not for {who} on device {device!r}; use "
            f"{' or '.join(map(repr, sorted(names, reverse=True)))}"
        )


def _why_precision(precision: str, measured: Iterable[str]) -> str:
    if precision != "float32":
        return f"{precision} because these weights keep their accuracy in it"
    if set(measured) - {"float32"}:
        return "float32 because nothing installed is faster here in fewer bits"
    return "float32 because these weights were not measured in fewer bits"


def _advice(missed: list[Candidate], machine: Machine, device: str) -> list[str]:
    """What a missing package would bring.

    Args:
        missed: What would have been taken, were it installed.
        machine: What there is.
        device: What was taken.
    """
    parts = []
    if machine.accelerator and device == "cpu":
        parts.append(
            f"there is a {machine.accelerator} device, but this torch was not built for it"
            if "torch" in machine.installed
            else f'for the {machine.accelerator} device pip install "cv-superpoint[torch]"'
        )
    # The fastest of each package is the first.
    best = {one.backend: one for one in reversed(missed) if one.gain}
    parts += [
        f'{one.backend} {one.gain}: pip install "cv-superpoint[{_EXTRAS[one.backend]}]"'
        for one in best.values()
    ]
    return parts


def examine(device: str, *, look_for_accelerator: bool) -> Machine:
    """Look at this machine.

    Args:
        device: Device that the caller asked for.
        look_for_accelerator: Whether one may be taken; torch is imported only if there is one.
    """
    installed = frozenset(name for name in BACKENDS if is_installed(name))
    found = accelerator() if look_for_accelerator else None
    usable = False
    if found and "torch" in installed:
        usable = found == "mps" or bool(require("torch", "torch").cuda.is_available())
    has = instructions()
    on_cuda = device.startswith("cuda") or (found == "cuda" and usable)
    if on_cuda and "torch" in installed and _cuda_bfloat16(device):
        has |= {CUDA_BFLOAT16}
    return Machine(installed=installed, has=has, accelerator=found, usable=usable)


def _cuda_bfloat16(device: str) -> bool:
    cuda = require("torch", "torch").cuda
    if not cuda.is_available():
        return False  # the backend tells what is wrong
    # Without a number it is the current device, which the caller may have set.
    index = device.partition(":")[2] or str(cuda.current_device())
    if not index.isdecimal() or int(index) >= cuda.device_count():
        return False
    return bool(cuda.get_device_capability(int(index)) >= (8, 0))


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # an importer refuses it, or what stands for it has no spec
        return False


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
