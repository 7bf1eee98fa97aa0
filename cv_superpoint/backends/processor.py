"""What the processor multiplies in fewer than 32 bits, found without the packages that do so."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from cv_superpoint.errors import FeatureError

CPU_BFLOAT16 = "AMX or AVX512-BF16"
"""Instructions for products of bfloat16, on the CPU."""
CPU_INT8 = "VNNI or AMX-INT8"
"""Instructions for products of bytes whose sums do not saturate, on x86."""
_FLAGS = {
    CPU_BFLOAT16: ("amx_bf16", "avx512_bf16"),
    CPU_INT8: ("amx_int8", "avx512_vnni", "avx_vnni"),
}
"""Names in Linux's /proc/cpuinfo, of which one is enough."""
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_BELOW_INT8 = frozenset(["sse41", "avx", "avx2", "avx512_core"])
_BELOW = {
    CPU_BFLOAT16: _BELOW_INT8 | {"avx2_vnni", "avx2_vnni_2", "avx512_core_vnni"},
    CPU_INT8: _BELOW_INT8,
}
"""Values of these variables under which OpenVINO and torch leave the instructions alone."""


def instructions() -> frozenset[str]:
    """The constants above whose instructions the CPU has and may use.

    ``ONEDNN_MAX_CPU_ISA`` makes OpenVINO and torch run a CPU as a lesser one, and their bfloat16
    then fails or is emulated, so that they count as missing. ONNX Runtime ignores it and is treated
    alike, because the variable is set to test a lesser CPU.
    """
    return allowed(found(), os.environ)


def allowed(has: frozenset[str], environment: Mapping[str, str]) -> frozenset[str]:
    """The instructions that oneDNN's variables allow.

    Args:
        has: What the CPU has.
        environment: Environment of the process.
    """
    # oneDNN reads its old name only where the new one is not set.
    limit = next((environment[name] for name in _LIMITS if environment.get(name)), "")
    return has - {name for name, values in _BELOW.items() if limit.lower() in values}


@lru_cache(maxsize=1)
def found() -> frozenset[str]:
    """The constants above whose instructions the CPU has."""
    if sys.platform == "linux":
        flags = linux_flags(Path("/proc/cpuinfo"))
        return frozenset(name for name, any_of in _FLAGS.items() if flags & set(any_of))
    has = {CPU_INT8} if "AVX512VNNI" in numpy_features() else set()
    if find_spec("openvino") is None:
        return frozenset(has)
    from cv_superpoint.backends.openvino_core import shared_core

    offered = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # It also names BF16 where AVX2 converts it and multiplies in float32; Winograd needs AVX-512.
    if {"BF16", "WINOGRAD"} <= set(offered):
        has.add(CPU_BFLOAT16)
    return frozenset(has)


def numpy_features() -> set[str]:
    """What numpy found of the processor, such as "AVX512VNNI"; it tells no AVX-VNNI."""
    try:
        core = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:  # numpy 1
        core = importlib.import_module("numpy.core._multiarray_umath")
    found: Mapping[str, bool] = getattr(core, "__cpu_features__", {})
    return {name for name, there in found.items() if there}


def check_8_bits() -> None:
    """Refuse 8 bits where products of bytes saturate.

    Without VNNI x86 multiplies bytes in pairs, and keeps the sum of two products in 16 bits: at
    most 32767, where 2 x 255 x 127 is 64770. OpenVINO and ONNX Runtime both do so.

    Raises:
        FeatureError: If the CPU is one of these.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    if x86 and CPU_INT8 not in instructions():
        raise FeatureError(
            "this CPU has neither VNNI nor AMX-INT8, or ONEDNN_MAX_CPU_ISA forbids them, and "
            "without them sums of products of bytes saturate; use precision='float32' or 'auto'"
        )


def linux_flags(path: Path) -> set[str]:
    """Flags of the first processor; empty where they are not told."""
    try:
        with path.open() as file:  # of a server with hundreds of cores only the first lines
            for line in file:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()
