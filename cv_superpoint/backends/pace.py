"""Which of several ways to the same result takes the least time now, on this machine as it is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

AGAIN = 32
"""Every so many calls another way is tried: the machine may have become idle or busy."""
NEWEST = 0.3
"""Share of the newest call in a way's time."""
MOST_KEYS = 16


@dataclass
class _Record:
    calls: int = 0
    runs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Pace:
    """Times of each way for each kind of input.

    Threads may share it: what they overwrite of each other is a time among others.

    Args:
        ways: Number of ways.
    """

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._records: dict[Hashable, _Record] = {}

    def choose(self, key: Hashable) -> int:
        """The way to take: each twice at first, then the fastest, now and then another.

        Args:
            key: What the times depend on, such as the image's size.
        """
        record = self._records.get(key)
        if record is None:
            for old in list(self._records)[: max(0, len(self._records) + 1 - MOST_KEYS)]:
                self._records.pop(old, None)
            record = _Record(runs=[0] * self._ways, seconds=[0.0] * self._ways)
            self._records[key] = record
        call, record.calls = record.calls, record.calls + 1
        if call < 2 * self._ways:
            return call // 2
        best = min(range(self._ways), key=record.seconds.__getitem__)
        turns, rest = divmod(call, AGAIN)
        return best if rest else (best + 1 + turns % (self._ways - 1)) % self._ways

    def report(self, key: Hashable, way: int, seconds: float) -> None:
        """Tell what a call took."""
        record = self._records.get(key)
        if record is None:
            return
        record.runs[way] += 1
        if record.runs[way] <= 2:  # the first one made kernels for this size
            record.seconds[way] = seconds
        else:
            record.seconds[way] += NEWEST * (seconds - record.seconds[way])
