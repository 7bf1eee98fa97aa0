"""New interpreters, and the machine's processes as Linux tells them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux forks and limits")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process, by its number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (entry / "stat").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        # Names and arguments may be any bytes.
        parent = int(status.rpartition(b")")[2].split()[1])
        found[int(entry.name)] = parent, command.decode(errors="replace")
    return found


def run_script(script: str, *arguments: object, **environment: str) -> str:
    """Run Python code in a new interpreter; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
