"""``cv-superpoint convert``: checkpoints from one layout into another."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Positional

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, Output
from cv_superpoint.errors import SuperPointError

if TYPE_CHECKING:
    from cv_superpoint.weights import LoadedWeights

Target = Literal["cv_superpoint", "magic-leap", "hugging-face"]
_LAYOUTS = {"magic-leap": "Magic Leap", "hugging-face": "Hugging Face"}


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint; the source's layout is recognised by its keys, no code in it runs.

    Attributes:
        source: Bundled name, or a file in the layout of cv_superpoint, Magic Leap, rpautrat,
            eric-yyjau or Hugging Face.
        target: File to write: .safetensors, or .pth for the layouts of others.
        to: Layout of the target.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "convert superpoint_v1.pth superpoint.safetensors",
            "convert superpoint theirs.pth --to magic-leap",
        ),
        results=("one file of the same tensors; a threshold that it cannot record is printed",),
    )

    source: Positional[str]
    target: Positional[Path]
    to: Target = "cv_superpoint"
    json: bool = False

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.weights import load_weights
        from cv_superpoint.weights.saving import save_again

        loaded = load_weights(self.source)
        keep_inputs([loaded.path], [self.target])
        if self.to == "cv_superpoint":
            save_again(loaded, self.target)
        else:
            write_layout(loaded, self.target, _LAYOUTS[self.to])
            output.say(
                f"the layout {_LAYOUTS[self.to]} cannot record what these weights recommend: "
                f"score threshold {loaded.score_threshold}, score radius {loaded.score_radius}"
            )
        output.say(f"{self.source}: layout {loaded.layout}")
        output.say(f"wrote {self.target} in the layout {_LAYOUTS.get(self.to, self.to)}")
        output.result({"source": loaded.layout, "target": str(self.target), "layout": self.to})
        return DONE


def write_layout(weights: LoadedWeights, target: Path, name: str) -> None:
    """Write a network without normalisation layers under another release's names."""
    from cv_superpoint.errors import require
    from cv_superpoint.files import write_file
    from cv_superpoint.weights.layouts import LAYOUTS
    from cv_superpoint.weights.tensors import is_plain

    if weights.config.norm != "none":
        raise SuperPointError(
            f"the layout {name} has no normalisation layers, but this network has them after the "
            "ReLU, where they cannot be folded into the convolutions; convert to cv_superpoint"
        )
    if not is_plain(weights.config):
        raise SuperPointError(
            f"the layout {name} has the layers of the paper's network, and {weights.name} has "
            "others; convert to cv_superpoint"
        )
    if target.suffix not in (".safetensors", ".pth"):
        raise SuperPointError(f"{target}: the name of the target must end in .safetensors or .pth")
    (layout,) = (each for each in LAYOUTS if each.name == name)
    arrays = {theirs: weights.tensors[ours] for ours, theirs in layout.keys().items()}
    if target.suffix == ".safetensors":
        write_file(target, require("safetensors.numpy", "").save(arrays))
        return
    torch = require("torch", "torch")
    data = io.BytesIO()
    torch.save({key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, data)
    write_file(target, data.getvalue())
