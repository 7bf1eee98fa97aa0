"""``cv-superpoint match``: two pictures, their matches, and the geometry between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from cv_superpoint.cli.options import DetectorOptions
from cv_superpoint.cli.output import DONE, FAILED, Output

if TYPE_CHECKING:
    from cv_superpoint.matching import MatchResult


@dataclass(frozen=True, kw_only=True)
class Match:
    """Match two pictures and find the homography or essential matrix between them.

    Attributes:
        image0: First picture.
        image1: Second picture.
        out: Folder for matches.png (inliers green, others red), matches.csv (x0, y0, x1, y1,
            cosine, inlier) and, for a homography, overlay.png: picture 0 warped onto picture 1.
        model: homography for flat scenes and turning cameras, essential or fundamental for others.
        focal: For the essential matrix: focal length in pixels, of one camera or two (default: 1.2
            times the longer side, a guess); the principal point is the middle of the picture.
        pixels: Error in pixels up to which a match is an inlier.
        rotations: Turns of picture 1 to try, of 0 90 180 270, where it may lie sideways.
        max_ratio: Ratio test, such as 0.95; none by default.
        max_distance: Distance test, such as 0.8; none by default.
        json: Print one JSON object instead of text.
    """

    image0: Positional[Path]
    image1: Positional[Path]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("matches")
    model: Literal["homography", "essential", "fundamental"] = "homography"
    focal: tuple[float, ...] = ()
    pixels: float = 3.0
    rotations: tuple[int, ...] = (0,)
    max_ratio: float | None = None
    max_distance: float | None = None
    json: bool = False
    detector: DetectorOptions = field(default_factory=DetectorOptions)

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.drawing import draw_matches, draw_overlay
        from cv_superpoint.files import write_file
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.matching import match_pair
        from cv_superpoint.reading import read_picture, write_picture

        results = (self.out / name for name in ("matches.png", "matches.csv", "overlay.png"))
        keep_inputs((self.image0, self.image1), results)
        images = read_picture(self.image0), read_picture(self.image1)
        result = match_pair(
            *images,
            self.detector.create(),
            rotations=self.rotations,
            model="homography" if self.model == "homography" else "fundamental",
            threshold=self.pixels,
            max_ratio=self.max_ratio,
            max_distance=self.max_distance,
        )
        inliers, geometry = result.inliers, self._geometry(result)
        if self.model == "essential":
            inliers, geometry = essential(result, self.focal, self.pixels)
        picture = draw_matches(
            *images, result.points0, result.points1, inliers=inliers, outliers=True
        )
        write_picture(self.out / "matches.png", picture, made="drawing")
        write_file(self.out / "matches.csv", as_csv(result, inliers))
        if result.homography is not None:
            overlay = draw_overlay(*images, result.homography)
            write_picture(self.out / "overlay.png", overlay, made="drawing")
        counts = len(result.features0), len(result.features1)
        output.say(f"keypoints {counts[0]} and {counts[1]}")
        turn = f", picture 1 turned by {result.rotation} degrees" if result.rotation else ""
        output.say(f"matches   {len(result)}, inliers {inliers.sum()}{turn}")
        for name, matrix in geometry.items():
            text = np.array2string(np.array(matrix), precision=6, suppress_small=True)
            output.say(f"{name}\n{text}")
        output.result(
            {
                "keypoints": counts,
                "matches": len(result),
                "inliers": int(inliers.sum()),
                "rotation": result.rotation,
                "out": str(self.out),
                **geometry,
            }
        )
        if not geometry:
            output.warn(f"no {self.model}: too few matches agree; more keypoints may help (-k)")
            return FAILED
        output.say(f"wrote {self.out}")
        return DONE

    def _geometry(self, result: MatchResult) -> dict[str, Any]:
        matrix = result.homography if self.model == "homography" else result.fundamental
        return {} if matrix is None else {self.model: matrix.tolist()}


def essential(
    result: MatchResult, focal: tuple[float, ...], pixels: float
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Inliers, and the essential matrix with the rotation and direction of motion in it."""
    from cv_superpoint.matching import CONFIDENCE

    none = np.zeros(len(result), np.bool_)
    if len(focal) > 2 or any(not length > 0 for length in focal):
        raise ValueError(f"focal must be one or two positive lengths in pixels, got {focal}")
    if len(result) < 5:
        return none, {}
    sizes = result.features0.image_size, result.features1.image_size
    lengths = (focal * 2)[:2] or tuple(1.2 * max(size) for size in sizes)
    rays = []
    for points, (height, width), length in zip(
        (result.points0, result.points1), sizes, lengths, strict=True
    ):
        middle = np.array(((width - 1) / 2, (height - 1) / 2))
        rays.append((points.astype(np.float64) - middle) / length)
    limit = pixels / float(np.mean(lengths))
    matrix, mask = cv2.findEssentialMat(
        rays[0], rays[1], np.eye(3), cv2.USAC_MAGSAC, CONFIDENCE, limit
    )
    if matrix is None or matrix.shape != (3, 3):
        return none, {}
    inliers = mask.reshape(-1) > 0
    _, rotation, translation, _ = cv2.recoverPose(
        matrix, rays[0][inliers], rays[1][inliers], np.eye(3)
    )
    # Its scale means nothing; singular values of 1 are customary.
    matrix *= np.sqrt(2) / np.linalg.norm(matrix)
    return inliers, {
        "essential": matrix.tolist(),
        "rotation_matrix": rotation.tolist(),
        "direction": translation.reshape(-1).tolist(),
    }


def as_csv(result: MatchResult, inliers: NDArray[np.bool_]) -> bytes:
    """A line for each match, after a line with the names of the columns."""
    lines = ["x0,y0,x1,y1,cosine,inlier"]
    rows = np.c_[result.points0, result.points1, result.similarity]
    lines += [
        ",".join(f"{value:.9g}" for value in row) + f",{int(inlier)}"
        for row, inlier in zip(rows.tolist(), inliers.tolist(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
