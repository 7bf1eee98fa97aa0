"""``cv-superpoint view``: the viewer in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tyro.conf import Positional

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output

if TYPE_CHECKING:
    from cv_superpoint.pictures.arrays import ByteArray


@dataclass(frozen=True, kw_only=True)
class View:
    """Show two pictures, options as sliders, next to SIFT and ORB, in the browser (extra [viewer]).

    Attributes:
        image0: First picture; pictures can also be chosen on the page.
        image1: Second picture; without it, a turned view of the first.
        port: Port of http://127.0.0.1; by default the first free one from 7860 on.
        open_browser: The page opens in the browser; --no-open-browser prints its address only.
        upright: Pictures are turned as their files say, as viewers do; --no-upright takes the
            pixels as they are stored, as COLMAP and hloc do.
        weights: Bundled name or file; by default the bundled set.
        device: auto, cpu, cuda, cuda:1 or mps.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "view one.jpg two.jpg",
            "view one.jpg --weights superpoint-lite",
        ),
        results=(
            "a page at http://127.0.0.1:7860: matches, figures, overlay; Ctrl-C ends it",
            "matches.zip, downloaded there: keypoints and descriptors (.npz), matches (.csv)",
        ),
    )

    image0: Positional[Path | None] = None
    image1: Positional[Path | None] = None
    port: int | None = None
    open_browser: bool = True
    upright: bool = True
    weights: str | None = None
    device: str = "auto"

    def run(self, output: Output) -> int:
        """Run it until Ctrl-C; returns the exit code."""
        from cv_superpoint.errors import require
        from cv_superpoint.pictures.reading import load_picture
        from cv_superpoint.viewer.app import make_app, serve
        from cv_superpoint.viewer.networks import load_networks

        require("gradio", "viewer")
        images: list[ByteArray | None] = []
        for path in (self.image0, self.image1):
            picture = None if path is None else load_picture(path, upright=self.upright)
            if picture is not None:
                output.picture(path, picture)
            images.append(None if picture is None else picture.pixels)
        networks = load_networks(self.weights, self.device)
        app = make_app(networks, *images, upright=self.upright)
        serve(app, port=self.port, open_browser=self.open_browser, say=output.say)
        return DONE
