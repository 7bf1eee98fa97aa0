"""The page, through Gradio. It needs no network: fonts are the system's, nothing is reported."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cv_superpoint.errors import PictureError, require
from cv_superpoint.files import replace_file
from cv_superpoint.matching.matchers import MATCHERS, build_matcher
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.reading import load_picture
from cv_superpoint.viewer.analysis import COLUMNS, LoadedNetwork, Settings, analyse
from cv_superpoint.viewer.pictures import second_view, shrink_for_screen

INTRODUCTION = """# cv_superpoint
Two pictures, or one and a turned view of it. Circles: red for the surest keypoints, blue for the
least. Lines: green for matches that agree with the homography, red for others."""


def make_app(
    network: LoadedNetwork,
    image0: ByteArray | None = None,
    image1: ByteArray | None = None,
    *,
    upright: bool = True,
) -> Any:
    """The page as ``gradio.Blocks``.

    Args:
        network: That finds the keypoints.
        image0: BGR picture shown at first.
        image1: The second.
        upright: Turn pictures that are chosen on the page as their files say.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gr = require("gradio", "viewer")
    folder = tempfile.mkdtemp(prefix="cv_superpoint-")

    def compare(
        first: Any,
        second: Any,
        threshold: float,
        radius: float,
        count: float,
        subpixel: bool,
        pyramid: bool,
        matcher: str,
        refine: bool,
    ) -> list[Any]:
        if first is None:
            raise gr.Error("choose a first picture")
        one = shrink_for_screen(_read(gr, first, upright))
        truth = None
        if second is None:
            other, truth = second_view(one)
        else:
            other = shrink_for_screen(_read(gr, second, upright))
        decoding = replace(
            network.recommended,
            score_threshold=threshold,
            nms_radius=int(radius),
            max_keypoints=int(count),
            subpixel=subpixel,
        )
        settings = Settings(
            decoding=decoding, pyramid=pyramid, matcher=build_matcher(matcher), refine=refine
        )
        result = analyse(one, other, settings, network, truth)
        archive = Path(folder) / "matches.zip"
        replace_file(archive, result.download)
        pictures = (
            *(result.keypoints0, result.keypoints1, result.matches["SuperPoint"]),
            *(result.overlay, result.heatmap, result.matches["SIFT"], result.matches["ORB"]),
        )
        return [result.rows, str(archive), *map(_swap, pictures)]

    with gr.Blocks(title="cv_superpoint", analytics_enabled=False) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            first = _picture(gr, "Picture 1", "first", image0)
            second = _picture(gr, "Picture 2 (none: a turned view of picture 1)", "second", image1)
        with gr.Row():
            threshold = gr.Slider(
                0.0,
                0.95,
                network.recommended.score_threshold,
                step=0.005,
                label="Threshold",
                elem_id="threshold",
            )
            radius = gr.Slider(0, 16, 4, step=1, label="NMS radius, px", elem_id="radius")
            count = gr.Slider(10, 5000, 1000, step=10, label="Keypoints at most", elem_id="count")
        with gr.Row():
            subpixel = gr.Checkbox(True, label="Sub-pixel positions", elem_id="subpixel")
            pyramid = gr.Checkbox(False, label="Two scales (1 and 0.5)", elem_id="pyramid")
            names = list(MATCHERS)
            matcher = gr.Radio(names, value=names[0], label="Matcher", elem_id="matcher")
            refine = gr.Checkbox(False, label="Refine from pixels, too", elem_id="refine")
            button = gr.Button("Compare", variant="primary", elem_id="compare")
        table = gr.Dataframe(headers=list(COLUMNS), label="Figures", elem_id="figures")
        download = gr.DownloadButton("Download keypoints and matches", elem_id="download")
        with gr.Row():
            shown = [
                _picture(gr, f"Keypoints {index + 1}", f"keypoints{index}") for index in (0, 1)
            ]
        shown.append(_picture(gr, "Matches of SuperPoint", "matches"))
        with gr.Row():
            shown.append(_picture(gr, "Picture 1 (red) warped onto picture 2 (cyan)", "overlay"))
            shown.append(_picture(gr, "Heatmap of picture 1", "heatmap"))
        with gr.Row():
            shown += [_picture(gr, f"Matches of {name}", name.lower()) for name in ("SIFT", "ORB")]
        inputs = [first, second, threshold, radius, count, subpixel, pyramid, matcher, refine]
        outputs = [table, download, *shown]
        button.click(compare, inputs, outputs)
        for slider in (threshold, radius, count):
            slider.release(compare, inputs, outputs)
        for choice in (subpixel, pyramid, matcher, refine):
            choice.input(compare, inputs, outputs)
    return app


def serve(app: Any, *, port: int | None, open_browser: bool) -> None:
    """Show the page at http://127.0.0.1 until Ctrl-C.

    Raises:
        OSError: If the port is taken.
    """
    gr = require("gradio", "viewer")
    app.launch(
        server_name="127.0.0.1",
        server_port=port,
        inbrowser=open_browser,
        share=False,
        show_error=True,  # of the reader that looks at an upload before ours
        quiet=True,
        footer_links=[],
        theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
    )


def _read(gr: Any, path: str, upright: bool) -> ByteArray:
    """A picture chosen on the page, by the rules of all commands, which Gradio's reader lacks.

    Raises:
        gr.Error: If it cannot be read; the page shows it.
    """
    try:
        picture = load_picture(path, upright=upright)
    except PictureError as error:
        raise gr.Error(str(error).replace(path, Path(path).name)) from error
    for note in picture.notes:
        gr.Warning(f"{Path(path).name}: {note}")
    return picture.pixels


def _picture(gr: Any, label: str, name: str, image: ByteArray | None = None) -> Any:
    is_input = name in ("first", "second")
    return gr.Image(
        None if image is None else _swap(image),
        label=label,
        elem_id=name,
        type="filepath" if is_input else "numpy",
        image_mode=None,  # the file as it is
        format="png",
        sources=["upload", "clipboard"] if is_input else [],
        interactive=is_input,
        buttons=[] if is_input else ["download", "fullscreen"],
    )


def _swap(image: ByteArray) -> ByteArray:
    """BGR to RGB or back."""
    swapped: ByteArray = np.ascontiguousarray(image[..., 2::-1])
    return swapped
