"""``cv-superpoint detect``: keypoints of pictures as tables and as pictures to look at."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, arg

from cv_superpoint.cli.options import DetectorOptions
from cv_superpoint.cli.output import DONE, FAILED, PARTLY, Output

if TYPE_CHECKING:
    from cv_superpoint.features import Features


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Find keypoints: a table, descriptors and an overlay picture for each image.

    Attributes:
        images: Picture files, or folders that are searched with their subfolders.
        out: Folder for the results, named as the picture and ending in .csv (x, y, score, size),
            .npz (with descriptors) and .keypoints.png.
        format: Which tables are written.
        overlay: Whether pictures with the keypoints are written.
        json: Print one JSON object instead of text.
    """

    images: Positional[tuple[Path, ...]]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("keypoints")
    format: Literal["csv", "npz", "both"] = "both"
    overlay: bool = True
    json: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.reading import PictureError, list_pictures, picture_or_why

        found = list_pictures(self.images)
        if not found:
            raise PictureError("name at least one picture or folder")
        names = [name for _, name in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PictureError(
                f"{', '.join(twice)}: more than one picture has this name, and their results "
                "would be one file; name a folder that holds them all"
            )
        detector = self.detector.create()
        records: list[dict[str, Any]] = []
        broken: list[dict[str, str]] = []
        for path, name in output.progress(found, len(found), "detect"):
            image = picture_or_why(path)
            if isinstance(image, PictureError):
                broken.append({"image": str(path), "why": str(image)})
                continue
            features = detector.extract(image)
            self._write(name, image, features)
            records.append({"image": str(path), "keypoints": len(features)})
            output.say(f"{path}: {len(features)} keypoints")
        for each in broken:
            output.warn(f"left out: {each['why']}")
        output.result({"out": str(self.out), "images": records, "broken": broken})
        output.say(f"wrote {self.out} ({len(records)} of {len(found)} pictures)")
        return DONE if not broken else PARTLY if records else FAILED

    def _write(self, name: str, image: Any, features: Features) -> None:
        from cv_superpoint.drawing import draw_keypoints
        from cv_superpoint.reading import write_bytes, write_picture

        if self.format != "npz":
            write_bytes(self.out / f"{name}.csv", as_csv(features))
        if self.format != "csv":
            write_bytes(self.out / f"{name}.npz", as_npz(features))
        if self.overlay:
            write_picture(self.out / f"{name}.keypoints.png", draw_keypoints(image, features))


def as_csv(features: Features) -> bytes:
    """A line with x, y, score and size of each keypoint, after a line with these names."""
    table = np.c_[features.keypoints, features.scores, features.sizes]
    lines = io.StringIO()
    np.savetxt(lines, table, fmt="%.9g", delimiter=",", header="x,y,score,size", comments="")
    return lines.getvalue().encode()


def as_npz(features: Features) -> bytes:
    """The fields of Features under their names; ``image_size`` is (height, width)."""
    data = io.BytesIO()
    np.savez_compressed(
        data,
        keypoints=features.keypoints,
        scores=features.scores,
        descriptors=features.descriptors,
        sizes=features.sizes,
        octaves=features.octaves,
        image_size=np.array(features.image_size),
    )
    return data.getvalue()
