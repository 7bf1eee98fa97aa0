"""The page, through Gradio. It needs no network: fonts are the system's, nothing is reported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cv_superpoint.errors import PictureError, SuperPointError, require
from cv_superpoint.files import replace_file
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.reading import load_picture
from cv_superpoint.viewer import parts
from cv_superpoint.viewer.analysis import Analysis, Settings, analyse
from cv_superpoint.viewer.networks import LoadedNetwork
from cv_superpoint.viewer.pictures import second_view, shrink_for_screen

TITLE = "**cv_superpoint**: two pictures, or one and a turned view of it"


def make_app(
    networks: Sequence[LoadedNetwork],
    image0: ByteArray | None = None,
    image1: ByteArray | None = None,
    *,
    upright: bool = True,
) -> Any:
    """The page as ``gradio.Blocks``.

    Args:
        networks: Sets that are compared; the first is shown in all views.
        image0: BGR picture, compared when the page opens.
        image1: The second; None takes a turned view of the first.
        upright: Turn pictures that are chosen on the page as their files say.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gr = require("gradio", "viewer")
    folder = Path(tempfile.mkdtemp(prefix="cv_superpoint-"))
    comparison = _Comparison(gr=gr, networks=networks, folder=folder, upright=upright)
    names = [*(each.name for each in networks), "SIFT", "ORB"]
    with gr.Blocks(title="cv_superpoint", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown(TITLE, elem_id="title")
        with gr.Row():
            with gr.Column(scale=4, min_width=340, elem_id="results"):
                with _select(gr, image0) as tabs:
                    views = parts.views(gr, names)
                    chosen = parts.inputs(gr, image0, image1)
                figures = gr.HTML(elem_id="figures", apply_default_css=False)
            with gr.Column(scale=1, min_width=270):
                button = gr.Button("Compare", variant="primary", elem_id="compare")
                options = parts.options(gr)
                download = gr.DownloadButton(
                    "Download keypoints and matches", size="sm", elem_id="download"
                )
        call = (comparison.compare, [*chosen, *options], [figures, download, *views])
        button.click(partial(_select, gr), chosen[0], tabs, api_visibility="private")
        # One at a time, so that none takes time from another; a click during one is not lost.
        alone: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "compare"}
        alone["trigger_mode"] = "always_last"
        button.click(*call, api_name="compare", **alone)
        changes = [each.release if isinstance(each, gr.Slider) else each.input for each in options]
        for event in [*changes, app.load] if image0 is not None else changes:
            event(*call, api_visibility="private", **alone)
    return app


def _select(gr: Any, first: Any) -> Any:
    """The tabs: that of the matches in front, or that of the pictures where none is chosen."""
    return gr.Tabs(selected="pictures" if first is None else "matches")


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """What the page computes.

    Attributes:
        gr: Gradio.
        networks: Our networks.
        folder: Folder for the file that is downloaded.
        upright: Turn pictures as their files say.
    """

    gr: Any
    networks: Sequence[LoadedNetwork]
    folder: Path
    upright: bool

    def compare(
        self,
        first: Any,
        second: Any,
        count: float,
        threshold: float,
        radius: float,
        scales: str,
        descriptors: str,
        matcher: str,
        subpixel: bool,
        refine: bool,
    ) -> list[Any]:
        """Values of the table, the download and the views."""
        if first is None:
            raise self.gr.Error("choose a first picture, in the tab Pictures")
        one, truth = shrink_for_screen(self._read(first)), None
        if second is None:
            other, truth = second_view(one)
        else:
            other = shrink_for_screen(self._read(second))
        settings = Settings(
            detection=parts.detection_of(count, threshold, radius, scales, descriptors, subpixel),
            matcher=matcher,
            refine=refine,
        )
        try:
            result = analyse(one, other, settings, self.networks, truth)
        except SuperPointError as error:  # of options that do not go together
            raise self.gr.Error(str(error)) from error
        archive = self.folder / "matches.zip"
        replace_file(archive, result.download)
        return [parts.table(result.rows), str(archive), *_shown(result, other)]

    def _read(self, path: str) -> ByteArray:
        """A picture chosen on the page, by the rules of all commands, which Gradio's reader lacks.

        Raises:
            gr.Error: If it cannot be read; the page shows it.
        """
        try:
            picture = load_picture(path, upright=self.upright)
        except PictureError as error:
            raise self.gr.Error(str(error).replace(path, Path(path).name)) from error
        for note in picture.notes:
            self.gr.Warning(f"{Path(path).name}: {note}")
        return picture.pixels


def _shown(result: Analysis, image1: ByteArray) -> list[Any]:
    """Values of :func:`parts.views`."""
    matches = [parts.swap(each) for each in result.matches.values()]
    slider = parts.swap(result.warped), parts.swap(image1)
    others = (result.overlay, result.keypoints0, result.keypoints1, result.heatmap)
    return [matches[0], *matches, slider, *map(parts.swap, others)]


def serve(
    app: Any, *, port: int | None, open_browser: bool, say: Callable[[str], None] = print
) -> None:
    """Show the page at http://127.0.0.1 until Ctrl-C.

    Args:
        app: The page that :func:`make_app` made.
        port: None takes the first free one from 7860 on.
        open_browser: Open it in the browser.
        say: Function that gets the page's address.

    Raises:
        OSError: If the port is taken.
    """
    gr = require("gradio", "viewer")
    _, address, _ = app.launch(
        server_name="127.0.0.1",
        server_port=port,
        inbrowser=open_browser,
        share=False,
        show_error=True,  # of the reader that looks at an upload before ours
        quiet=True,
        footer_links=[],
        theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
        css=parts.STYLE,
        prevent_thread_lock=True,
    )
    say(f"the viewer is at {address}; Ctrl-C ends it")
    app.block_thread()
