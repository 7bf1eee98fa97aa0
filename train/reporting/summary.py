"""The report of a run: one self-contained HTML file with every curve and the pictures.

It is made from what the run has written (TensorBoard event files, the evaluation, the description
of the exported weights), so it can be made at any time and for any run:
``python -m train summary RUN_DIR``.
"""

from __future__ import annotations

import base64
import html
import logging
import math
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cv_superpoint.files import replace_file
from train.reporting.curves import Point, draw_curve

log = logging.getLogger(__name__)

REPORT = "report.html"
PICTURES = 8
"""Pictures of a tag that are shown: the first, the last, and what lies evenly between."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1120px; margin: 2em auto;
       padding: 0 1em }
h1, h2, h3 { font-weight: 600 } h2 { border-top: 1px solid #ccc; padding-top: .8em }
table { border-collapse: collapse } th, td { padding: .15em .9em; text-align: right }
th:first-child, td:first-child { text-align: left } th { border-bottom: 1px solid #999 }
img { max-width: 100%; image-rendering: pixelated } figure { margin: 1em 0 }
figcaption, summary { color: #555 } pre { overflow-x: auto; background: #f6f6f6; padding: .8em }
svg text { font: 11px system-ui, sans-serif; fill: #555 }
svg .title { font-weight: 600; fill: #222 } svg .end { text-anchor: end }
svg .middle { text-anchor: middle } svg .grid { stroke: #e3e3e3 }
svg .curve { fill: none; stroke: #1f6fb0; stroke-width: 1.5; stroke-linejoin: round }
svg .dot { fill: #1f6fb0 }
"""


@dataclass(frozen=True)
class Stage:
    """What a stage has reported.

    Attributes:
        name: Name of the stage.
        scalars: Curves by tag: (step, value) pairs.
        pictures: Pictures by tag: (step, PNG file) pairs.
    """

    name: str
    scalars: dict[str, list[Point]]
    pictures: dict[str, list[tuple[int, bytes]]]


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder; an earlier one is replaced.

    Args:
        run_dir: Folder of a run that has trained at least for a while.

    Returns:
        The file.

    Raises:
        ValueError: If the run has reported nothing yet.
    """
    folders = [path for path in (run_dir / "tensorboard").glob("*") if path.is_dir()]
    stages = [read_stage(path) for path in sorted(folders, key=_first_written)]
    stages = [stage for stage in stages if stage.scalars or stage.pictures]
    if not stages:
        raise ValueError(f"nothing to report: no events below {run_dir / 'tensorboard'}")
    title = html.escape(run_dir.resolve().name)
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        *(_stage_section(stage) for stage in stages),
        _evaluation_section(run_dir / "evaluation"),
        _description_section(run_dir),
        "</body></html>\n",
    ]
    path = run_dir / REPORT
    replace_file(path, "\n".join(parts).encode("utf-8", "backslashreplace"))
    return path


def read_stage(folder: Path) -> Stage:
    """Everything in the TensorBoard event files of a stage."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It reports every file that has come to its end.
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    return Stage(
        name=folder.name,
        scalars={
            tag: [(float(event.step), float(event.value)) for event in events.Scalars(tag)]
            for tag in tags["scalars"]
        },
        pictures={
            tag: [(int(event.step), event.encoded_image_string) for event in events.Images(tag)]
            for tag in tags["images"]
        },
    )


def _first_written(folder: Path) -> float:
    return min((path.stat().st_mtime for path in folder.iterdir()), default=math.inf)


def _stage_section(stage: Stage) -> str:
    parts = [f"<h2>{html.escape(stage.name)}</h2>"]
    if stage.scalars:
        parts.append(_table(stage.scalars))
        parts.append("<p>")
        parts += [draw_curve(tag, points) for tag, points in sorted(stage.scalars.items())]
        parts.append("</p>")
    for tag, pictures in sorted(stage.pictures.items()):
        parts.append(f"<h3>{html.escape(tag)}</h3>")
        shown = _spread(pictures, PICTURES)
        parts.append(_figure(f"step {shown[-1][0]}", shown[-1][1]))
        if len(shown) > 1:
            earlier = [_figure(f"step {step}", png) for step, png in shown[:-1]]
            parts.append(f"<details><summary>earlier</summary>{''.join(earlier)}</details>")
    return "\n".join(parts)


def _table(scalars: dict[str, list[Point]]) -> str:
    rows = []
    for tag, points in sorted(scalars.items()):
        values = [value for _, value in points if math.isfinite(value)]
        cells = [points[-1][1], min(values, default=math.nan), max(values, default=math.nan)]
        numbers = "".join(f"<td>{value:.4g}</td>" for value in cells)
        rows.append(f"<tr><td>{html.escape(tag)}</td><td>{points[-1][0]:.0f}</td>{numbers}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", "step", "last", "smallest", "largest"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _spread(pictures: list[tuple[int, bytes]], count: int) -> list[tuple[int, bytes]]:
    """Even choice of at most ``count`` entries of a list, the first and the last among them."""
    if len(pictures) <= count:
        return pictures
    return [pictures[round(k * (len(pictures) - 1) / (count - 1))] for k in range(count)]


def _figure(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _evaluation_section(folder: Path) -> str:
    """Table and pictures of ``python -m train evaluate --out``, where there are any."""
    table, pictures = folder / "results.md", sorted(folder.glob("*.png"))
    if not table.exists() and not pictures:
        return ""
    parts = ["<h2>evaluation</h2>"]
    if table.exists():
        parts.append(f"<pre>{html.escape(table.read_text(encoding='utf-8'))}</pre>")
    parts += [_figure(path.stem, path.read_bytes()) for path in pictures]
    return "\n".join(parts)


def _description_section(run_dir: Path) -> str:
    """Recipe, commit and durations, as the export wrote them beside the weights."""
    parts = []
    for weights in sorted(run_dir.glob("*.safetensors")):
        path = weights.with_suffix(".json")
        if path.exists():
            text = html.escape(path.read_text(encoding="utf-8"))
            name = html.escape(path.name)
            parts.append(f"<h2>{name}</h2><details><summary>show</summary><pre>{text}</pre>")
            parts.append("</details>")
    return "\n".join(parts)


@dataclass(frozen=True)
class SummaryConfig:
    """Write report.html: every curve and picture of a run in one file.

    Attributes:
        run_dir: Folder of the run, which may still be going on.
    """

    run_dir: Positional[Path]
