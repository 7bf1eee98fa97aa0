"""The one core of OpenVINO in this process.

A core gives the signals of the thread that makes it a stack of their own, and restores the stack
before it when it ends, even one that another core has freed since. The next signal that Python
handles, Ctrl-C for example, then ends the process (OpenVINO 2026.4). So ours never ends.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import openvino

_lock = threading.Lock()
_cores: dict[int, Any] = {}
"""By process: a forked child makes its own, and its parent's must not end in it either."""


def shared_core() -> Any:
    """The ``openvino.Core`` of this process, made at the first call."""
    with _lock:
        process = os.getpid()
        if process not in _cores:
            _cores[process] = openvino.Core()
        return _cores[process]
