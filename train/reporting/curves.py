"""Curves as SVG: small line charts that need no library to draw and none to show."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

Point = tuple[float, float]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 200, 52, 12, 26, 24
_MARKED = 40
"""Curves of at most this many points show each."""


def draw_curve(title: str, points: Sequence[Point]) -> str:
    """A line chart.

    Args:
        title: Title above it.
        points: (step, value) pairs by ascending step. Values that are not finite leave a gap.

    Returns:
        An ``<svg>`` element.
    """
    finite = [point for point in points if math.isfinite(point[1])]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img">',
        f'<text x="{_LEFT}" y="16" class="title">{html.escape(title)}</text>',
    ]
    if not finite:
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT / 2:.0f}">no finite value</text></svg>')
        return "".join(parts)
    (x0, x1), (y0, y1) = _range([x for x, _ in finite]), _range([y for _, y in finite])

    def place(point: Point) -> tuple[float, float]:
        return (
            _LEFT + (point[0] - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (point[1] - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM),
        )

    for value in _ticks(y0, y1):
        _, y = place((x0, value))
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" class="end">{value:.4g}</text>')
    for value in _ticks(x0, x1):
        x, _ = place((value, y0))
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" class="middle">{value:.6g}</text>')
    for run in _runs(points):
        places = [place(point) for point in run]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" class="curve"/>')
        if len(finite) <= _MARKED:
            for (x, y), (step, value) in zip(places, run, strict=True):
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="dot">'
                    f"<title>step {step:.0f}: {value:.6g}</title></circle>"
                )
    parts.append("</svg>")
    return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest, apart even if they are equal."""
    low, high = min(values), max(values)
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Stretches of finite values."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
