"""The process that trains: memory allocator, threads, logging."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from cv_superpoint.backends.processor import CPU_BFLOAT16, allowed

log = logging.getLogger(__name__)

# glibc gives big buffers back to the kernel after every layer and asks for them again; keeping
# them saves up to half of a training step. OpenMP threads that spin while they wait slow down
# each other whenever anything else runs.
CPU_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def missing_settings(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Settings for fast training on a CPU that the environment does not have yet."""
    return {name: value for name, value in CPU_ENVIRONMENT.items() if name not in environment}


def restart_with_settings() -> None:
    """Start this process again with the settings above: they are only read at the start."""
    missing = missing_settings(os.environ)
    if missing and sys.platform == "linux":
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def start_logging(*, quiet: bool = False) -> None:
    """Log to standard error, with the time; only warnings if ``quiet``."""
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    settings = " ".join(f"{name}={os.environ.get(name)}" for name in CPU_ENVIRONMENT)
    log.info("running with %s", settings)


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in mixed precision.

    Args:
        precision: "float32", "bfloat16", or "auto": where the device multiplies matrices in
            bfloat16.
        device: Device of the training.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return multiplies_bfloat16(torch.cpu.get_capabilities(), os.environ)


def multiplies_bfloat16(capabilities: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether torch multiplies in bfloat16 on a CPU.

    Args:
        capabilities: Capabilities of the CPU, as ``torch.cpu.get_capabilities`` names them.
        environment: Environment of the process; it may deny oneDNN the instructions.
    """
    has = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return bool(has) and CPU_BFLOAT16 in allowed(frozenset({CPU_BFLOAT16}), environment)


def memory_format(device: torch.device, *, bfloat16: bool) -> torch.memory_format:
    """The memory format of maps in which a training step is fastest.

    Channels last on a GPU, and on a CPU in bfloat16 (58 instead of 132 ms an image, forward and
    backward, 240 x 320, on two cores with AMX). In float32 the backward pass of the first stage
    takes a CPU up to twice as long in it.
    """
    if device.type == "cuda" or (device.type == "cpu" and bfloat16):
        return torch.channels_last
    return torch.contiguous_format
