"""What the processor multiplies in fewer than 32 bits, found without the packages that do so."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

CPU_BFLOAT16 = "AMX or AVX512-BF16"
"""Instructions for products of bfloat16, on the CPU."""
_FLAGS = {CPU_BFLOAT16: ("amx_bf16", "avx512_bf16")}
"""Names in Linux's /proc/cpuinfo, of which one is enough."""
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_BELOW_BFLOAT16 = frozenset(
    ["sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"]
)
"""Values of these variables under which OpenVINO and torch leave the instructions alone."""


def instructions() -> frozenset[str]:
    """The constants above whose instructions the CPU has and may use.

    ``ONEDNN_MAX_CPU_ISA`` makes OpenVINO and torch run a CPU as a lesser one, and their bfloat16
    then fails or is emulated, so that they count as missing.
    """
    return allowed(found(), os.environ)


def allowed(has: frozenset[str], environment: Mapping[str, str]) -> frozenset[str]:
    """What oneDNN's variables leave of the instructions.

    Args:
        has: What the CPU has.
        environment: Of the process.
    """
    # oneDNN reads its old name only where the new one is not set.
    limit = next((environment[name] for name in _LIMITS if environment.get(name)), "")
    return has - {CPU_BFLOAT16} if limit.lower() in _BELOW_BFLOAT16 else has


@lru_cache(maxsize=1)
def found() -> frozenset[str]:
    """The constants above whose instructions the CPU has."""
    if sys.platform == "linux":
        flags = linux_flags(Path("/proc/cpuinfo"))
        return frozenset(name for name, any_of in _FLAGS.items() if flags & set(any_of))
    if find_spec("openvino") is None:
        return frozenset()
    from cv_superpoint.backends.openvino_core import shared_core

    offered = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # It also names BF16 where AVX2 converts it and multiplies in float32; Winograd needs AVX-512.
    return frozenset({CPU_BFLOAT16} if {"BF16", "WINOGRAD"} <= set(offered) else ())


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
