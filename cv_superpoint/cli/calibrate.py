"""``cv-superpoint calibrate``: ranges for precision int8, and what int8 costs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output
from cv_superpoint.errors import FeatureError, SuperPointError

if TYPE_CHECKING:
    from cv_superpoint.evaluation.paired import Comparison
    from cv_superpoint.network.quantisation import Ranges
    from cv_superpoint.weights import LoadedWeights


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Find the ranges that weights need for precision int8, and measure what it costs.

    float32 and int8 see the same warped pairs of the photographs. The target lists int8 for
    precision auto only where no measure can be worse by more than its margin (docs/speed.md).

    Attributes:
        source: Bundled name, or a file of any layout.
        photographs: Folder with some of the kind that the detector is for.
        target: File to write, ending in .safetensors.
        manifest: Write the ranges into the source's entry of this manifest.json of a checkout
            instead.
        count: Photographs to find the ranges on, at most; the middle of each, 240 x 320 pixels.
        pairs: Warped pairs to measure on, at least; fewer than 500 decide nothing; 0 measures
            nothing.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=("calibrate mine.safetensors photographs -o calibrated.safetensors",),
        results=(
            "calibrated.safetensors: the same tensors, and the ranges of every map",
            "printed: what int8 costs beside float32, with intervals",
        ),
    )

    source: Positional[str]
    photographs: Positional[Path]
    target: Annotated[Path | None, arg(aliases=["-o"])] = None
    manifest: Path | None = None
    count: int = 100
    pairs: int = 512
    json: bool = False

    def __post_init__(self) -> None:
        if (self.target is None) == (self.manifest is None):
            raise SuperPointError("name the file to write: -o out.safetensors")
        if self.count < 1 or self.pairs < 0:
            raise SuperPointError("count must be at least 1, and pairs at least 0")

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.evaluation.calibration import SIZE, crops, spread_photographs
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.weights import find_ranges, load_weights
        from cv_superpoint.weights.ranges import write_ranges
        from cv_superpoint.weights.saving import save_again

        loaded = load_weights(self.source)
        if self.target is not None:
            keep_inputs([loaded.path], [self.target])
        paths = spread_photographs(self.photographs, self.count)
        images = crops(output.progress(paths, len(paths), "calibrate"), loaded.config.in_channels)
        told = f"{len(paths)} of {self.photographs.resolve().name}, {SIZE[0]} x {SIZE[1]}"
        ranges = find_ranges(loaded, images, told)
        record = {"ranges": write_ranges(ranges)}
        for name, one in ranges.maps.items():
            output.say(f"{name:20}{one.low:10.4g} to {one.high:.4g}")
        comparison = self._compare(replace(loaded, ranges=ranges), output) if self.pairs else None
        precisions = _precisions(loaded, comparison)
        if self.manifest is not None:
            write_entry(self.manifest, self.source, ranges)
        elif self.target is not None:
            save_again(loaded, self.target, ranges=ranges, precisions=precisions)
        output.say(f"wrote {self.target or self.manifest}")
        if comparison is not None:
            record["int8"] = comparison.record()
        output.result({"out": str(self.target or self.manifest), **record})
        return DONE

    def _compare(self, weights: LoadedWeights, output: Output) -> Comparison | None:
        """int8 beside float32; None, and a warning, where this machine does not compute in it."""
        from cv_superpoint.evaluation.calibration import compare_int8, spread_photographs
        from cv_superpoint.evaluation.paired import comparison_table

        count = len(spread_photographs(self.photographs, self.pairs))
        try:
            found = compare_int8(weights, self.photographs, math.ceil(self.pairs / count))
        except (FeatureError, ImportError) as error:
            output.warn(f"int8 is not measured, and so not listed for auto: {error}")
            return None
        output.say(comparison_table(found))
        return found["int8"]


def _precisions(loaded: LoadedWeights, comparison: Comparison | None) -> tuple[str, ...]:
    """The listed precisions, with int8 if it was measured to keep the accuracy."""
    others = tuple(name for name in loaded.precisions if name != "int8")
    return (*others, "int8") if comparison is not None and comparison.keeps else others


def write_entry(manifest: Path, name: str, ranges: Ranges) -> None:
    """Put ranges into a set's entry of a manifest of bundled weights.

    Raises:
        SuperPointError: If there is no such entry.
    """
    from cv_superpoint.files import replace_file
    from cv_superpoint.weights.ranges import KEY, write_ranges

    content = json.loads(manifest.read_text(encoding="utf-8"))
    if name not in content["weights"]:
        raise SuperPointError(f"{manifest}: there is no entry {name!r}; add the set first")
    content["weights"][name][KEY] = write_ranges(ranges)
    replace_file(manifest, (json.dumps(content, indent=2) + "\n").encode())
