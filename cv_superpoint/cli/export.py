"""``cv-superpoint export``: ONNX files for other runtimes and for C++."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cv_superpoint.cli.output import DONE, Output


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network as an ONNX file.

    Attributes:
        target: File to write, ending in .onnx.
        layout: heads (logits and dense descriptors, any size), full (keypoints, scores and
            descriptors) or disk (what cv2.DISK of OpenCV 5 reads).
        size: Height and width of the image, for the layouts full and disk.
        batch: Images in one call, for the layout full.
        precision: float32, or int8: a quarter of the file.
        max_keypoints: Rows of the outputs, for the layouts full and disk.
        threshold: Score that a keypoint must exceed, below 1; by default what the weights
            recommend.
        weights: Bundled name or file; by default the bundled set.
        json: Print one JSON object instead of text.
    """

    target: Positional[Path] = Path("superpoint.onnx")
    layout: Literal["heads", "full", "disk"] = "heads"
    size: tuple[int, int] = (480, 640)
    batch: int = 1
    precision: Literal["float32", "int8"] = "float32"
    max_keypoints: Annotated[int, arg(aliases=["-k"])] = 1024
    threshold: float | None = None
    weights: str | None = None
    json: bool = False

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.export import export_onnx
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.weights import load_weights

        weights = load_weights(self.weights)
        keep_inputs([weights.path], [self.target])
        path = export_onnx(
            weights,
            self.target,
            self.layout,
            size=self.size,
            batch=self.batch,
            precision=self.precision,
            max_keypoints=self.max_keypoints,
            score_threshold=self.threshold,
        )
        size = path.stat().st_size
        output.say(f"wrote {path} ({self.layout}, {size / 1e6:.1f} MB)")
        output.result({"out": str(path), "layout": self.layout, "bytes": size})
        return DONE
