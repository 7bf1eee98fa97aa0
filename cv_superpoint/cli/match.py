"""``cv-superpoint match``: two pictures, their matches, and the geometry between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, FAILED, Output
from cv_superpoint.errors import SuperPointError
from cv_superpoint.matching.verdict import LIMIT
from cv_superpoint.opencv.options import DetectorOptions

if TYPE_CHECKING:
    from cv_superpoint.matching import MatchResult
    from cv_superpoint.matching.matchers import Matcher


@dataclass(frozen=True, kw_only=True)
class Match:
    """Match two pictures and find the homography or essential matrix between them.

    The exit code is 1 where chance explains the matches that agree, as with unrelated pictures.

    Attributes:
        image0: First picture.
        image1: Second picture.
        out: Folder for matches.png, matches.csv and, for a homography, overlay.png.
        model: homography for flat scenes and turning cameras, essential or fundamental for others.
        focal: Focal length in pixels for the essential matrix, of one camera or two (default: 1.2
            times the longer side, a guess); the principal point is the middle of the picture.
        pixels: Error in pixels up to which a match is an inlier.
        rotations: Turns of picture 1 to try, of 0 90 180 270, where it may lie sideways.
        max_ratio: Ratio test, such as 0.95; none by default.
        max_distance: Distance test, such as 0.8; none by default.
        matcher: mutual (nearest neighbours), ratio (the same with a ratio test), guided (again
            along the first homography), flann, lightglue (learned, of the weights in use), a
            matcher's file, or module:factory of one of yours.
        estimator: How homography or fundamental matrix are found: least-squares (a homography
            only), magsac, ransac; the best one measured by default.
        refine: Place the matches by the pixels around them.
        align: Let the homography make all of the overlap agree, for scenes that are flat all over.
        upright: Pictures are turned as their files say, as viewers do; --no-upright takes the
            pixels as they are stored, as COLMAP and hloc do.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "match one.jpg two.jpg",
            "match one.jpg two.jpg --weights superpoint-lite --refine -o out",
        ),
        results=(
            "matches.png: both pictures, inliers joined by green lines, other matches by red ones",
            "matches.csv: x0, y0, x1, y1, cosine, inlier (0 or 1) of every match, in pixels",
            "overlay.png: picture 0 warped onto picture 1, where there is a homography",
            "printed: counts, the matrix, and whether chance explains it (exit code 1)",
        ),
        first=(
            "out",
            "model",
            "matcher",
            "refine",
            "rotations",
            "json",
            "max_keypoints",
            "weights",
        ),
    )

    image0: Positional[Path]
    image1: Positional[Path]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("matches")
    model: Literal["homography", "essential", "fundamental"] = "homography"
    focal: tuple[float, ...] = ()
    pixels: float = 3.0
    rotations: tuple[int, ...] = (0,)
    max_ratio: float | None = None
    max_distance: float | None = None
    matcher: str = "mutual"
    estimator: Literal["least-squares", "magsac", "ransac"] | None = None
    refine: bool = False
    align: bool = False
    upright: bool = True
    json: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.matching import match_pair
        from cv_superpoint.pictures.reading import load_picture

        results = (self.out / name for name in ("matches.png", "matches.csv", "overlay.png"))
        keep_inputs((self.image0, self.image1), results)
        paths = self.image0, self.image1
        pictures = [load_picture(path, upright=self.upright) for path in paths]
        records = [output.picture(*each) for each in zip(paths, pictures, strict=True)]
        images = pictures[0].pixels, pictures[1].pixels
        result = match_pair(
            *images,
            self.detector.create(),
            rotations=self.rotations,
            model="homography" if self.model == "homography" else "fundamental",
            threshold=self.pixels,
            max_ratio=self.max_ratio,
            max_distance=self.max_distance,
            matcher=self._matcher(),
            estimator=self.estimator,
            refine=self.refine,
            align=self.align,
        )
        inliers, geometry = result.inliers, self._geometry(result)
        alarms = result.log_false_alarms
        if self.model == "essential":
            inliers, geometry, alarms = essential(
                result, self.focal, self.pixels, tries=len(self.rotations)
            )
        self._write(images, result, inliers)
        self._report(output, records, result, inliers, geometry, alarms)
        if not geometry:
            output.warn(f"no {self.model}: too few matches agree; more keypoints may help (-k)")
            return FAILED
        output.say(f"wrote {self.out}")
        if not alarms <= LIMIT:
            output.warn(
                f"the {self.model} is not reliable: of unrelated pictures as many matches agree by "
                "chance; more keypoints (-k) or turns (--rotations 0 90 180 270) may help"
            )
            return FAILED
        return DONE

    def _matcher(self) -> Matcher | None:
        """None for nearest neighbours, which the tests of ratio and distance are for."""
        from cv_superpoint.matching.matchers import build_matcher

        return None if self.matcher == "mutual" else build_matcher(self.matcher)

    def _write(
        self, images: tuple[Any, Any], result: MatchResult, inliers: NDArray[np.bool_]
    ) -> None:
        from cv_superpoint.files import write_file
        from cv_superpoint.matching.drawing import draw_matches, draw_overlay
        from cv_superpoint.pictures.reading import write_picture

        picture = draw_matches(
            *images, result.points0, result.points1, inliers=inliers, outliers=True
        )
        write_picture(self.out / "matches.png", picture, made="drawing")
        write_file(self.out / "matches.csv", as_csv(result, inliers))
        if result.homography is not None:
            overlay = draw_overlay(*images, result.homography)
            write_picture(self.out / "overlay.png", overlay, made="drawing")

    def _report(
        self,
        output: Output,
        records: list[dict[str, Any]],
        result: MatchResult,
        inliers: NDArray[np.bool_],
        geometry: dict[str, Any],
        alarms: float,
    ) -> None:
        counts = len(result.features0), len(result.features1)
        output.say(f"keypoints {counts[0]} and {counts[1]}")
        turn = f", picture 1 turned by {result.rotation} degrees" if result.rotation else ""
        output.say(f"matches   {len(result)}, inliers {inliers.sum()}{turn}")
        for name, matrix in geometry.items():
            text = np.array2string(np.array(matrix), precision=6, suppress_small=True)
            output.say(f"{name}\n{text}")
        if geometry:
            verdict = "yes" if alarms <= LIMIT else "no"
            output.say(f"reliable  {verdict} (chance gives 10^{alarms:.1f} such models)")
        output.result(
            {
                "keypoints": counts,
                "matches": len(result),
                "inliers": int(inliers.sum()),
                "reliable": alarms <= LIMIT,
                "log_false_alarms": alarms if math.isfinite(alarms) else None,
                "rotation": result.rotation,
                "pictures": records,
                "out": str(self.out),
                **geometry,
            }
        )

    def _geometry(self, result: MatchResult) -> dict[str, Any]:
        matrix = result.homography if self.model == "homography" else result.fundamental
        return {} if matrix is None else {self.model: matrix.tolist()}


def essential(
    result: MatchResult, focal: tuple[float, ...], pixels: float, *, tries: int = 1
) -> tuple[NDArray[np.bool_], dict[str, Any], float]:
    """Inliers, the essential matrix with the motion in it, and the logarithm of false alarms.

    Args:
        result: Matches of two pictures.
        focal: Lengths in pixels, of one camera or two; none takes 1.2 times the longer side.
        pixels: Distance by which an inlier may miss its epipolar line.
        tries: Sets of matches that these are the best of.
    """
    from cv_superpoint.matching.estimators import CONFIDENCE, robust_model
    from cv_superpoint.matching.verdict import log_false_alarms

    none: tuple[Any, dict[str, Any], float] = (np.zeros(len(result), np.bool_), {}, math.inf)
    if len(focal) > 2 or any(not length > 0 for length in focal):
        raise SuperPointError(f"focal must be one or two positive lengths in pixels, got {focal}")
    if len(result) < 5:
        return none
    sizes = result.features0.image_size, result.features1.image_size
    lengths = (focal * 2)[:2] or tuple(1.2 * max(size) for size in sizes)
    to_rays = [
        np.array(
            [
                [1 / length, 0, (1 - width) / 2 / length],
                [0, 1 / length, (1 - height) / 2 / length],
                [0, 0, 1],
            ]
        )
        for (height, width), length in zip(sizes, lengths, strict=True)
    ]
    rays = [
        points.astype(np.float64) @ matrix[:2, :2] + matrix[:2, 2]
        for points, matrix in zip((result.points0, result.points1), to_rays, strict=True)
    ]
    limit = pixels / float(np.mean(lengths))
    matrix, inliers = robust_model(
        lambda method: cv2.findEssentialMat(rays[0], rays[1], np.eye(3), method, CONFIDENCE, limit)
    )
    if matrix is None:
        return none
    fundamental = to_rays[1].T @ matrix @ to_rays[0]
    alarms = log_false_alarms(
        result.features0, result.features1, result.matches, fundamental, "essential", tries=tries
    )
    _, rotation, translation, _ = cv2.recoverPose(
        matrix, rays[0][inliers], rays[1][inliers], np.eye(3)
    )
    # Its scale means nothing; singular values of 1 are customary.
    matrix *= np.sqrt(2) / np.linalg.norm(matrix)
    geometry = {
        "essential": matrix.tolist(),
        "rotation_matrix": rotation.tolist(),
        "direction": translation.reshape(-1).tolist(),
    }
    return inliers, geometry, alarms


def as_csv(result: MatchResult, inliers: NDArray[np.bool_]) -> bytes:
    """A line for each match, after a line with the names of the columns."""
    lines = ["x0,y0,x1,y1,cosine,inlier"]
    rows = np.c_[result.points0, result.points1, result.similarity]
    lines += [
        ",".join(f"{value:.9g}" for value in row) + f",{int(inlier)}"
        for row, inlier in zip(rows.tolist(), inliers.tolist(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
