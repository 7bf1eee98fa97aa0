"""``cv-superpoint export``: ONNX files for other runtimes and for C++."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output
from cv_superpoint.errors import SuperPointError

if TYPE_CHECKING:
    from cv_superpoint.export import Layout
    from cv_superpoint.matching.lightglue.export import MatcherExport


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network, or a matcher, as an ONNX file (extra [onnx]).

    Attributes:
        target: File to write, ending in .onnx.
        layout: heads (logits and dense descriptors, any size), full (keypoints, scores and
            descriptors), disk (what cv2.DISK of OpenCV 5 reads), matcher (what
            cv2.LightGlueMatcher of OpenCV 5 reads), matcher-colmap (what COLMAP reads), pair (two
            images in, keypoints and matches out).
        size: Height and width of the image, for the layouts full, disk and pair.
        batch: Images in one call, for the layout full.
        precision: float32, or int8: a quarter of the file; of heads and full.
        max_keypoints: Rows of the outputs, for the layouts full, disk and pair.
        threshold: Score that a keypoint must exceed, below 1; by default what the weights
            recommend.
        weights: Bundled name or file; by default the bundled set.
        matcher: A matcher's file, for the layouts matcher, matcher-colmap and pair; by default the
            bundled one of the weights.
        match_threshold: Score that a match must exceed, below 1; by default what the matcher
            recommends.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "export superpoint.onnx",
            "export lite.onnx --layout full --size 480 640 --weights superpoint-lite",
        ),
        results=(
            "heads: image (B, 1, H, W) in [0, 1] to logits and dense descriptors, any size",
            "full: image to keypoints, scores and descriptors; a negative score is an empty row",
            "disk: RGB image to the same, as cv2.DISK of OpenCV 5 reads it",
            "matcher, matcher-colmap: keypoints and descriptors of two images to matches",
            "pair: two images to their keypoints and matches",
        ),
    )

    target: Positional[Path] = Path("superpoint.onnx")
    layout: Literal["heads", "full", "disk", "matcher", "matcher-colmap", "pair"] = "heads"
    size: tuple[int, int] = (480, 640)
    batch: int = 1
    precision: Literal["float32", "int8"] = "float32"
    max_keypoints: Annotated[int, arg(aliases=["-k"])] = 1024
    threshold: float | None = None
    weights: str | None = None
    matcher: Path | None = None
    match_threshold: float | None = None
    json: bool = False

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        path = self._network() if self.layout in ("heads", "full", "disk") else self._matcher()
        size = path.stat().st_size
        output.say(f"wrote {path} ({self.layout}, {size / 1e6:.1f} MB)")
        output.result({"out": str(path), "layout": self.layout, "bytes": size})
        return DONE

    def _network(self) -> Path:
        from cv_superpoint.export import export_onnx
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.weights import load_weights

        if self.matcher is not None or self.match_threshold is not None:
            raise SuperPointError(
                f"layout {self.layout} has no matches; leave --matcher and --match-threshold out, "
                "or take --layout pair"
            )
        weights = load_weights(self.weights)
        keep_inputs([weights.path], [self.target])
        return export_onnx(
            weights,
            self.target,
            cast("Layout", self.layout),
            size=self.size,
            batch=self.batch,
            precision=self.precision,
            max_keypoints=self.max_keypoints,
            score_threshold=self.threshold,
        )

    def _matcher(self) -> Path:
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.matching.lightglue.bundled import find_matcher
        from cv_superpoint.matching.lightglue.export import export_matcher

        if self.precision != "float32" or self.batch != 1:
            raise SuperPointError(
                f"layout {self.layout} is in float32, and of one pair; leave --precision and "
                "--batch out"
            )
        source = self.weights if self.matcher is None else self.matcher
        keep_inputs([find_matcher(source).path], [self.target])
        return export_matcher(
            source,
            self.target,
            cast("MatcherExport", self.layout),
            match_threshold=self.match_threshold,
            weights=self.weights,
            size=self.size,
            max_keypoints=self.max_keypoints,
            score_threshold=self.threshold,
        )
