"""``cv-superpoint stitch``: a panorama."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cv_superpoint.cli.options import DetectorOptions
from cv_superpoint.cli.output import DONE, PARTLY, Output


@dataclass(frozen=True, kw_only=True)
class Stitch:
    """Put overlapping pictures, taken from one place, together to a panorama.

    Attributes:
        images: Two or more picture files, or a folder of them, overlapping by about a third.
        out: Picture to write.
        megapixels: Larger pictures are shrunk to this.
        json: Print one JSON object instead of text.
    """

    images: Positional[tuple[Path, ...]]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("panorama.png")
    megapixels: float = 1.0
    json: bool = False
    detector: DetectorOptions = field(default_factory=lambda: DetectorOptions(max_keypoints=1500))

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.errors import PictureError
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.files.listing import DRAWINGS, list_pictures
        from cv_superpoint.interop.stitching import stitch
        from cv_superpoint.reading import picture_or_why, write_picture

        without = DRAWINGS | {"panorama"}
        listing = list_pictures(self.images, output=self.out, without=without)
        keep_inputs([path for path, _ in listing.pictures], [self.out])
        read = [picture_or_why(path) for path, _ in listing.pictures]
        pictures = [each for each in read if not isinstance(each, PictureError)]
        broken = [str(each) for each in listing.left_out]
        broken += [str(each) for each in read if isinstance(each, PictureError)]
        output.left_out(broken, listing.own)
        panorama = stitch(pictures, self.detector.create(), megapixels=self.megapixels)
        write_picture(self.out, panorama.image, made="panorama")
        height, width = panorama.image.shape[:2]
        for pair in panorama.pairs:
            if pair.inliers:
                output.say(
                    f"pictures {pair.first + 1} and {pair.second + 1}: {pair.inliers} of "
                    f"{pair.matches} matches agree"
                )
        output.say(f"wrote {self.out} ({width} x {height})")
        output.result(
            {
                "out": str(self.out),
                "size": [height, width],
                "keypoints": panorama.keypoints,
                "pairs": [asdict(pair) for pair in panorama.pairs],
                "focal_lengths": panorama.focal_lengths,
                "broken": broken,
            }
        )
        return PARTLY if broken else DONE
