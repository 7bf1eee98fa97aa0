"""The machine's processes, as Linux tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process, by its number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (entry / "stat").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        # Names and arguments are bytes of anybody's choice.
        parent = int(status.rpartition(b")")[2].split()[1])
        found[int(entry.name)] = parent, command.decode(errors="replace")
    return found
