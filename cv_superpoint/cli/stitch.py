"""``cv-superpoint stitch``: a panorama."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, PARTLY, Output
from cv_superpoint.opencv.options import DetectorOptions

if TYPE_CHECKING:
    from cv_superpoint.interop.stitching import Panorama

_NAMED = 8
"""Pictures of which an error tells the names."""


@dataclass(frozen=True, kw_only=True)
class Stitch:
    """Put overlapping pictures together to a panorama.

    Attributes:
        images: Two or more picture files, or a folder of them, overlapping by about a third.
        out: Picture to write.
        model: rotation for a camera that turned in one place, plane for a flat scene (a wall, a
            page, a map) from anywhere.
        megapixels: Larger pictures are shrunk to this.
        refine: Place the keypoints by the pixels around them before the cameras are found.
        matcher: mutual, ratio, guided, lightglue (learned), a file or module:factory, as of the
            command match; by default OpenCV's nearest neighbours with a ratio test.
        upright: Pictures are turned as their files say, as viewers do; --no-upright takes the
            pixels as they are stored, as COLMAP and hloc do.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "stitch left.jpg middle.jpg right.jpg",
            "stitch photographs --model plane --weights superpoint-lite -o wall.png",
        ),
        results=(
            "panorama.png: the panorama, black where no picture reaches",
            "printed: which pictures belong together, and by how many matches",
        ),
        first=(
            "out",
            "model",
            "megapixels",
            "refine",
            "json",
            "max_keypoints",
            "weights",
        ),
    )

    images: Positional[tuple[Path, ...]]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("panorama.png")
    model: Literal["rotation", "plane"] = "rotation"
    megapixels: float = 1.0
    refine: bool = False
    matcher: str | None = None
    upright: bool = True
    json: bool = False
    detector: DetectorOptions = field(default_factory=lambda: DetectorOptions(max_keypoints=1500))

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.errors import PictureError
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.files.listing import DRAWINGS, list_pictures
        from cv_superpoint.files.names import shown
        from cv_superpoint.pictures.reading import check_ending, picture_or_why, write_picture

        check_ending(self.out)
        without = DRAWINGS | {"panorama"}
        listing = list_pictures(self.images, output=self.out, without=without)
        keep_inputs([path for path, _ in listing.pictures], [self.out])
        broken = [str(each) for each in listing.left_out]
        pictures: dict[str, Any] = {}
        records: list[dict[str, Any]] = []
        for path, _ in listing.pictures:
            picture = picture_or_why(path, upright=self.upright)
            if isinstance(picture, PictureError):
                broken.append(str(picture))
            else:
                pictures[str(path)] = picture.pixels
                records.append(output.picture(path, picture))
        output.left_out(broken, listing.own)
        panorama = self._stitch(pictures)
        write_picture(self.out, panorama.image, made="panorama")
        height, width = panorama.image.shape[:2]
        names = [shown(name) for name in pictures]
        for pair in panorama.pairs:
            if pair.inliers:
                output.say(
                    f"{names[pair.first]} and {names[pair.second]}: {pair.inliers} of "
                    f"{pair.matches} matches agree"
                )
        for index in sorted(set(range(len(names))) - set(panorama.used)):
            output.say(f"{names[index]}: shows the same as a picture before it")
        output.say(f"wrote {self.out} ({width} x {height})")
        output.result(
            {
                "out": str(self.out),
                "size": [height, width],
                "pictures": records,
                "used": panorama.used,
                "keypoints": panorama.keypoints,
                "pairs": [asdict(pair) for pair in panorama.pairs],
                "focal_lengths": panorama.focal_lengths,
                "broken": broken,
            }
        )
        return PARTLY if broken else DONE

    def _stitch(self, pictures: dict[str, Any]) -> Panorama:
        from cv_superpoint.interop.stitching import StitchError, stitch
        from cv_superpoint.matching.matchers import build_matcher

        try:
            return stitch(
                list(pictures.values()),
                self.detector.create(),
                megapixels=self.megapixels,
                model=self.model,
                refine=self.refine,
                matcher=None if self.matcher is None else build_matcher(self.matcher),
            )
        except StitchError as error:
            numbered = [f"{index} is {name}" for index, name in enumerate(pictures, 1)]
            more = [f"and {len(numbered) - _NAMED} more"] if len(numbered) > _NAMED else []
            legend = ", ".join(numbered[:_NAMED] + more)
            raise StitchError(f"{error} ({legend})" if legend else str(error)) from error
