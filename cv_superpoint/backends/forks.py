"""Forks of a process that runs networks (``os.fork``, ``multiprocessing``'s method "fork").

A child has one thread, and every lock as it was. A library's lock that another thread held at that
moment stays locked for ever, so a fork here waits until no library works, and where a library has
threads of its own that it wakes and sends to sleep, until they sleep.
"""

from __future__ import annotations

# Before a fork the hooks of all modules run, those that came last first. These two modules' take
# locks that work inside no_fork needs: imported here they come earlier, and so take them only when
# the work has ended.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_changed = threading.Condition()
_inside: set[int] = set()
_forking = 0
_forked = False
_sleepers = False
_MOST_INSIDE = 2.0
"""Seconds that a fork waits for networks that run. A fork may hold a lock, such as that of
``logging``, which what runs inside needs to end: waiting for ever would be a deadlock."""
_MOST_WAITING = 0.05
"""Seconds that a fork waits for threads to sleep: some may be others' and never do."""


def is_forked() -> bool:
    """Whether this process was forked after this module was imported."""
    return _forked


def wait_for_sleepers() -> None:
    """Let every later fork wait until the process's other threads sleep (on Linux)."""
    global _sleepers
    _sleepers = True


@contextmanager
def no_fork() -> Iterator[None]:
    """While this is entered, forks of other threads wait.

    Keep it short: around one run of a network. It must not be entered twice by a thread.
    """
    thread = threading.get_ident()
    with _changed:
        while _forking:
            _changed.wait()
        _inside.add(thread)
    try:
        yield
    finally:
        with _changed:
            _inside.discard(thread)
            _changed.notify_all()


def _before() -> None:
    global _forking
    with _changed:
        _forking += 1
        # This thread is inside only where a signal or a finaliser forks: it cannot wait for itself.
        _changed.wait_for(lambda: not _inside - {threading.get_ident()}, _MOST_INSIDE)
    end = time.monotonic() + _MOST_WAITING
    while _sleepers and _others_run() and time.monotonic() < end:
        time.sleep(0.001)


def _others_run() -> bool:
    own = str(threading.get_native_id())
    try:
        others = [folder for folder in Path("/proc/self/task").iterdir() if folder.name != own]
        # The state follows the name, which may hold anything.
        return any(
            (one / "stat").read_text().rpartition(")")[2].split()[0] == "R" for one in others
        )
    except OSError:  # not Linux, or a thread has just ended
        return False


def _in_parent() -> None:
    global _forking
    with _changed:
        _forking -= 1
        _changed.notify_all()


def _in_child() -> None:
    global _changed, _forking, _forked
    _changed, _forking, _forked = threading.Condition(), 0, True
    _inside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
