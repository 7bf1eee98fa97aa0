"""Checkpoints that survive being killed at any instant."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cv_superpoint.files.writing import make_folder, replacing


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place and move it there; a reader never sees half a file.

    Args:
        state: Tensors, numbers, strings and containers of these.
        path: Final place; the last good checkpoint stays there until the new one is complete.
    """
    make_folder(path.parent)
    with replacing(path, large=True) as part, part.open("wb") as file:
        torch.save(state, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain containers are accepted.

    Raises:
        ValueError: If the file is not a checkpoint, or a damaged one.
        OSError: If there is none.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # damaged bytes reach several parsers, each with errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} is no checkpoint, or a damaged one ({reason}); remove it to start its stage "
            "again"
        ) from error
    return state


def weights_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint's network, without what only its loss needs."""
    return {k: v for k, v in state["averaged"].items() if k != "log_scale"}


def size_of(state: Any) -> int:
    """Bytes of the tensors in a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(size_of(value) for value in state.values())
    return 0


def check_folder(folder: Path, size: int) -> None:
    """Make sure that a folder can be written to and has room, before hours of work depend on it.

    Args:
        folder: Folder, made if missing.
        size: Bytes that will be needed.

    Raises:
        OSError: If it cannot, with what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}); choose another --run-dir") from error
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"{folder} has {free / 1e6:.0f} MB free, checkpoints need {size / 1e6:.0f} MB; make "
            "room or choose another --run-dir"
        )
