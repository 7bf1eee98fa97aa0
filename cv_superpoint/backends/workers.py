"""Small tasks shared by threads, so that a busy machine costs no more than the cores it takes.

Threads that meet after every layer wait each time for the slowest, and on a busy machine for one
that does not run: the system lets a thread that slept wait for the end of another program's turn
(about 4 ms on Linux), forty times a call. Here a thread takes the next task that can be done,
whichever threads did the tasks before, so the share of a thread that gets no core is done by the
other threads.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of work.

    Attributes:
        work: Function that does it.
        needs: Places, in the sequence of tasks, of those that come before it; all are lower than
            its own.
    """

    work: Callable[[], None]
    needs: Sequence[int] = ()


def run_tasks(tasks: Sequence[Task], threads: int) -> None:
    """Do all tasks, each after those that it needs, in this thread and in others.

    The others are started for this call and end with it, so nothing is left that a fork could
    break. This thread needs none of them: where none can be started, as at the end of the
    interpreter, it does all.

    Raises:
        Exception: What a task raised; those not begun by then are left out.
    """
    helpers = min(threads, len(tasks)) - 1
    if helpers < 1:
        for task in tasks:
            task.work()
        return
    crew = _Crew(tasks)
    try:
        for _ in range(helpers):
            # Not threading.Thread: its start waits until the new thread runs.
            _thread.start_new_thread(crew.work, ())
    except RuntimeError:
        pass  # no more threads: too many of them, or the interpreter ends
    try:
        crew.work()
    finally:
        crew.close()


class _Crew:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._waiting = list(range(len(tasks)))
        self._done = [False] * len(tasks)
        self._running = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def work(self) -> None:
        """Do tasks until none is left to begin."""
        while (index := self._take()) is not None:
            error = None
            try:
                self._tasks[index].work()
            except BaseException as caught:
                error = caught
            with self._changed:
                self._running -= 1
                if error is None:
                    self._done[index] = True
                else:
                    self._error = self._error or error
                    self._waiting.clear()
                self._changed.notify_all()

    def close(self) -> None:
        """Begin nothing more, and wait for what others have begun.

        Raises:
            BaseException: The first that a task raised.
        """
        with self._changed:
            self._waiting.clear()
            while self._running:
                self._changed.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> int | None:
        """The first task that can be done; waits for one."""
        with self._changed:
            while self._waiting:
                for place, index in enumerate(self._waiting):
                    if all(self._done[needed] for needed in self._tasks[index].needs):
                        del self._waiting[place]
                        self._running += 1
                        return index
                self._changed.wait()
        return None
