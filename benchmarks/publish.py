"""Results as JSON, as Markdown between two markers of a page, and as a plot."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cv_superpoint.files import replace_file

DOCS = Path(__file__).parent.parent / "docs"
PERFORMANCE = DOCS / "results" / "performance.md"
"""Page with the times and memory of all commands but two."""
PRECISION = DOCS / "results" / "precision.md"
"""Page with the accuracy of bfloat16, float16 and 8 bits."""
GPU = DOCS / "gpu.md"
"""Page with the operators and bytes of a call on a GPU."""
FIGURES = DOCS / "results" / "performance"
"""Folder with the JSON files and the plots of both pages of results."""
LONGEST_LINE = 100
"""Characters of a line of prose, on pages and in the blocks on them."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def facts(values: dict[str, str]) -> str:
    """The machine in one line."""
    return "; ".join(f"{name} {value}" for name, value in values.items())


def replace_block(page: Path, name: str, text: str) -> None:
    """Put text between ``<!-- name -->`` and ``<!-- end name -->`` of a page.

    Lines of prose are wrapped; tables, headings and pictures stay as they are.

    Raises:
        ValueError: If the page has no such markers.
    """
    content = page.read_text(encoding="utf-8")
    first, last = f"<!-- {name} -->", f"<!-- end {name} -->"
    if content.count(first) != 1 or content.count(last) != 1:
        raise ValueError(f"{page} must have the markers {first} and {last} once each")
    before, rest = content.split(first)
    after = rest.split(last)[1]
    lines = [
        line if line.startswith(("|", "#", "!")) else textwrap.fill(line, LONGEST_LINE)
        for line in text.splitlines()
    ]
    block = "\n".join(lines)
    replace_file(page, f"{before}{first}\n\n{block}\n\n{last}{after}".encode())


def write_json(path: Path, values: Any) -> None:
    """All the figures, for machines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())


def bars(path: Path, title: str, values: dict[str, tuple[float, float, float]]) -> None:
    """Horizontal bars of medians with their quartiles.

    Args:
        path: PNG.
        title: Over the plot.
        values: Median, lower and upper quartile in milliseconds by name.
    """
    figure, axes = _figure(1, (7.5, 0.6 + 0.36 * len(values)))
    names = list(values)[::-1]
    medians = [values[name][0] for name in names]
    errors = [
        [values[name][0] - values[name][1] for name in names],
        [values[name][2] - values[name][0] for name in names],
    ]
    colours = ["#1b6ca8" if name.startswith("cv_superpoint") else "#b0b7bd" for name in names]
    axes[0].barh(names, medians, xerr=errors, color=colours, ecolor="#444444", height=0.7)
    for row, (name, median) in enumerate(zip(names, medians, strict=True)):
        axes[0].annotate(
            f" {median:.0f}", (values[name][2], row), va="center", fontsize=8, color="#222222"
        )
    axes[0].set_xlabel("milliseconds, median and quartiles")
    axes[0].set_title(title, fontsize=10)
    axes[0].margins(x=0.08)
    _save(figure, path)


def lines(
    path: Path, panels: Sequence[tuple[str, str, dict[str, tuple[list[float], list[float]]]]]
) -> None:
    """Panels side by side; x is logarithmic, and y where it spans more than a decade.

    Args:
        path: PNG.
        panels: Label of x, label of y, and (x, y) by the name of the line.
    """
    figure, axes = _figure(len(panels), (3.6 * len(panels), 3.2))
    for panel, (x_label, y_label, curves) in zip(axes, panels, strict=True):
        for name, (x, y) in curves.items():
            panel.plot(x, y, marker="o", markersize=3, linewidth=1.2, label=name)
        panel.set(xscale="log", xlabel=x_label, ylabel=y_label)
        heights = [height for _, y in curves.values() for height in y]
        if max(heights) > 10 * min(heights):
            panel.set_yscale("log")
        else:
            panel.set_ylim(0, 1.1 * max(heights))
        panel.minorticks_off()  # their labels overlap
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    _save(figure, path)


def _figure(count: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    for panel in axes[0]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    figure.clear()
