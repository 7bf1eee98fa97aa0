"""OpenVINO for this process: imported so that it sends nothing, with one core that never ends.

OpenVINO's import reports itself to its makers unless the user forbade it; where its package for
that is missing, it uses a stub of its own, and so it does here.

A core gives the signals of the thread that makes it a stack of their own, and restores the stack
before it when it ends, even one that another core has freed since. The next signal that Python
handles, Ctrl-C for example, then ends the process (OpenVINO 2026.4). So ours never ends.

Its binding looks numpy up when it first makes an array. Two threads that come to this at once wait
for each other for ever, with Python's lock held (OpenVINO 2026.4). So it makes one here.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any

import numpy as np

from cv_superpoint.errors import require

_TELEMETRY = "openvino_telemetry"
_lock = threading.Lock()
_cores: dict[int, Any] = {}
"""Core of each process: a forked child makes its own and keeps its parent's from ending."""


def _import() -> Any:
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return require("openvino", "cpu")  # the program has decided
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's mark of a missing one
    try:
        return require("openvino", "cpu")
    finally:
        del sys.modules[_TELEMETRY]


openvino = _import()
opset8 = importlib.import_module("openvino.opset8")
openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018 (the getter is what counts)


def shared_core() -> Any:
    """The ``openvino.Core`` of this process, made at the first call."""
    with _lock:
        process = os.getpid()
        if process not in _cores:
            _cores[process] = openvino.Core()
        return _cores[process]
