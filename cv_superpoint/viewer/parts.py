"""The parts of the page: what is chosen, what is shown, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from cv_superpoint.decoding.descriptors import KINDS
from cv_superpoint.matching.matchers import MATCHERS
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.viewer.analysis import COLUMNS, UNKNOWN
from cv_superpoint.viewer.networks import DetectorSettings

SCALES: dict[str, tuple[float, ...] | None] = {
    "each set's own": None,
    "1": (1.0,),
    "1, 0.5": (1.0, 0.5),
    "1, 0.5, 0.25": (1.0, 0.5, 0.25),
}
"""Pyramids by the name that the page shows."""
STYLE = """
#title p { margin: 0; }
#results [data-testid="block-label"] { position: static; border: 0; box-shadow: none; }
#figures .html-container { padding: 0; }
#figures table, #figures tr { border: 0; }
#figures table { width: 100%; margin: 0; border-collapse: collapse; font-size: 14px; }
#figures th, #figures td { padding: 3px 8px; text-align: right; font-variant-numeric: tabular-nums;
  border: 0; border-bottom: 1px solid var(--border-color-primary); }
#figures th { font-weight: 600; vertical-align: bottom; }
#figures th:first-child, #figures td:first-child { text-align: left; }
#figures p { margin: 4px 8px 0; font-size: 12px; opacity: 0.75; }
#figures div { overflow-x: auto; }
@media (max-width: 640px) {
  #figures table { font-size: 11px; }
  #figures th, #figures td { padding: 3px; }
  #figures th:nth-child(5), #figures td:nth-child(5) { display: none; }
}
"""
"""Columns that a phone does not show: the share follows from matches and inliers."""
NOTE = (
    "Green lines: inliers, which agree with a homography within 3 px; red lines: other matches. "
    "ms: detection and description in both pictures, median of warm runs."
)


def options(gr: Any) -> list[Any]:
    """Sliders and switches, in the order of the fields that :func:`settings_of` reads."""
    count = gr.Slider(10, 5000, 1000, step=10, label="Keypoints at most", elem_id="count")
    threshold = gr.Slider(
        0, 0.95, 0, step=0.005, label="Threshold (0: each set's own)", elem_id="threshold"
    )
    radius = gr.Slider(0, 16, 4, step=1, label="NMS radius, px", elem_id="radius")
    return [
        count,
        threshold,
        radius,
        _choice(gr, list(SCALES), "Scales", "scales"),
        _choice(gr, list(KINDS), "Descriptors", "descriptors"),
        _choice(gr, list(MATCHERS), "Matcher", "matcher"),
        gr.Checkbox(True, label="Sub-pixel positions", elem_id="subpixel"),
        gr.Checkbox(False, label="Refine from pixels, too", elem_id="refine"),
    ]


def detection_of(
    count: float, threshold: float, radius: float, scales: str, descriptors: Any, subpixel: bool
) -> DetectorSettings:
    """What the options of detection say."""
    return DetectorSettings(
        max_keypoints=int(count),
        threshold=threshold or None,
        nms_radius=int(radius),
        scales=SCALES[scales],
        descriptors=descriptors,
        subpixel=subpixel,
    )


def views(gr: Any, names: Sequence[str]) -> list[Any]:
    """The tabs of results: matches, all detectors, overlay, keypoints, heatmap.

    Args:
        gr: Gradio.
        names: Detectors, in the order of the table.

    Returns:
        Components that take matches of the first detector, of each, both pictures of the slider,
        overlay, keypoints of both pictures and heatmap.
    """
    with gr.Tab("Matches", id="matches"):
        matches = picture(gr, f"Matches of {names[0]}", "matches")
    each = []
    with gr.Tab("Side by side", id="side-by-side"):
        for start in range(0, len(names), 2):
            with gr.Row():
                each += [
                    picture(gr, f"Matches of {name}", f"matches{start + index}")
                    for index, name in enumerate(names[start : start + 2])
                ]
    with gr.Tab("Overlay", id="overlay"), gr.Row():
        slider = gr.ImageSlider(
            label="Picture 1 warped, and picture 2: drag the line",
            elem_id="slider",
            format="jpeg",
            interactive=False,
            buttons=["download", "fullscreen"],
        )
        overlay = picture(gr, "Picture 1 (red) warped onto picture 2 (cyan)", "overlay")
    with gr.Tab("Keypoints", id="keypoints"), gr.Row():
        keypoints = [picture(gr, f"Keypoints {k + 1}", f"keypoints{k}") for k in (0, 1)]
    with gr.Tab("Heatmap", id="heatmaps"):
        heatmap = picture(gr, "Heatmap of picture 1", "heatmap")
    return [matches, *each, slider, overlay, *keypoints, heatmap]


def inputs(gr: Any, image0: ByteArray | None, image1: ByteArray | None) -> list[Any]:
    """Where both pictures are chosen."""
    with gr.Tab("Pictures", id="pictures"), gr.Row():
        return [
            picture(gr, "Picture 1", "first", image0, chosen=True),
            picture(
                gr, "Picture 2 (none: a turned view of picture 1)", "second", image1, chosen=True
            ),
        ]


def picture(
    gr: Any, label: str, name: str, image: ByteArray | None = None, *, chosen: bool = False
) -> Any:
    """A picture that is shown, or chosen."""
    return gr.Image(
        None if image is None else swap(image),
        label=label,
        elem_id=name,
        type="filepath" if chosen else "numpy",
        image_mode=None,  # the file as it is
        format="png" if chosen else "jpeg",
        sources=["upload", "clipboard"] if chosen else [],
        interactive=chosen,
        buttons=[] if chosen else ["download", "fullscreen"],
        height=None if chosen else "auto",
        min_width=300,
    )


def table(rows: Sequence[Sequence[Any]]) -> str:
    """The figures as HTML, without columns of which nothing is known."""
    columns = [k for k in range(len(COLUMNS)) if any(row[k] != UNKNOWN for row in rows)]
    head = "".join(f"<th>{escape(COLUMNS[k])}</th>" for k in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(row[k]))}</td>' for k in columns)}</tr>" for row in rows
    )
    return (
        f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p>{escape(NOTE)}</p>"
    )


def swap(image: ByteArray) -> ByteArray:
    """BGR to RGB or back."""
    swapped: ByteArray = np.ascontiguousarray(image[..., 2::-1])
    return swapped


def _choice(gr: Any, names: list[str], label: str, name: str) -> Any:
    return gr.Dropdown(names, value=names[0], label=label, elem_id=name, filterable=False)
