"""``cv-superpoint detect``: keypoints of pictures as tables and as pictures to look at."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, FAILED, PARTLY, Output
from cv_superpoint.files.names import shown
from cv_superpoint.opencv.options import DetectorOptions

if TYPE_CHECKING:
    from cv_superpoint.detector.features import Features

OVERLAY = ".keypoints.png"


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Find keypoints: a table, descriptors and an overlay picture for each image.

    Attributes:
        images: Picture files, or folders that are searched with their subfolders.
        out: Folder for the results, which have the names of the pictures.
        format: Which tables are written.
        overlay: Whether pictures with the keypoints are written.
        upright: Pictures are turned as their files say, as viewers do; --no-upright takes the
            pixels as they are stored, as COLMAP and hloc do.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "detect one.jpg",
            "detect photographs --weights superpoint-lite -k 2000 -o keypoints",
        ),
        results=(
            "NAME.csv: x, y, score, size of every keypoint, the strongest first, in pixels",
            "NAME.npz: keypoints, scores, descriptors, sizes, octaves, image_size, descriptor_kind",
            "NAME.keypoints.png: the picture with a circle at each keypoint",
        ),
        first=(
            "out",
            "format",
            "json",
            "max_keypoints",
            "threshold",
            "weights",
            "descriptor_format",
        ),
    )

    images: Positional[tuple[Path, ...]]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("keypoints")
    format: Literal["csv", "npz", "both"] = "both"
    overlay: bool = True
    upright: bool = True
    json: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.errors import PictureError
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.files.listing import list_pictures
        from cv_superpoint.files.writing import WriteError, make_folder
        from cv_superpoint.pictures.reading import picture_or_why

        listing = list_pictures(self.images, output=self.out)
        found = listing.pictures
        if not found:
            raise PictureError("name at least one picture or folder")
        counts = Counter(name for _, name in found)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise PictureError(
                f"{', '.join(twice)}: more than one picture has this name, and their results "
                "would be one file; name a folder that holds them all"
            )
        keep_inputs([path for path, _ in found], self._results(name for _, name in found))
        make_folder(self.out)
        detector = self.detector.create().detector  # weights without descriptors are welcome
        records: list[dict[str, Any]] = []
        broken = [{"image": str(each.path), "why": str(each)} for each in listing.left_out]
        for path, name in output.progress(found, len(found), "detect"):
            picture = picture_or_why(path, upright=self.upright)
            if isinstance(picture, PictureError):
                broken.append({"image": str(path), "why": str(picture)})
                continue
            features = detector.extract(picture.pixels)
            try:
                self._write(name, picture.pixels, features)
            except WriteError as error:
                if not error.is_about_the_name:
                    raise
                broken.append({"image": str(path), "why": str(error)})
                continue
            records.append(output.picture(path, picture) | {"keypoints": len(features)})
            output.say(f"{shown(str(path))}: {len(features)} keypoints")
        output.left_out((each["why"] for each in broken), listing.own)
        output.result({"out": str(self.out), "images": records, "broken": broken})
        output.say(f"wrote {self.out} ({len(records)} of {len(records) + len(broken)} pictures)")
        return DONE if not broken else PARTLY if records else FAILED

    def _results(self, names: Iterable[str]) -> Iterator[Path]:
        for name in names:
            yield from (self.out / f"{name}{ending}" for ending in (".csv", ".npz", OVERLAY))

    def _write(self, name: str, image: Any, features: Features) -> None:
        from cv_superpoint.files.writing import write_file
        from cv_superpoint.matching.drawing import draw_keypoints
        from cv_superpoint.pictures.reading import write_picture

        if self.format != "npz":
            write_file(self.out / f"{name}.csv", as_csv(features))
        if self.format != "csv":
            write_file(self.out / f"{name}.npz", as_npz(features))
        if self.overlay:
            picture = draw_keypoints(image, features)
            write_picture(self.out / f"{name}{OVERLAY}", picture, made="drawing")


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
        descriptor_kind=np.array(features.descriptor_kind),
    )
    return data.getvalue()
