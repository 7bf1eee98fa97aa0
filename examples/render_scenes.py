"""Scenes with depth and known poses, for `cv-superpoint evaluate --protocol pose`.

python examples/render_scenes.py scenes                                  photographs of scikit-image
python examples/render_scenes.py scenes --photographs path/to/photographs --pairs 200
cv-superpoint evaluate --data scenes --protocol pose --detectors superpoint,sift,orb

Each pair shows a room of textured planes, boxes and boards from two places. The folder has
SuperGlue's layout: pictures, and pairs.txt with intrinsics and poses. --stereo adds the two
photographs of a motorcycle that scikit-image has of the Middlebury stereo set.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from pictures import Image, photograph, read

from cv_superpoint.evaluation.scenes import SceneConfig, pair_line, render_scenes, write_scenes

NAMES = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "page"),
    *("rocket", "text", "immunohistochemistry", "retina", "hubble_deep_field"),
)
FOCAL, BASELINE = 994.978, 193.001
"""Pixels and millimetres, of scikit-image's page of stereo_motorcycle()."""
CENTRES = ((311.193, 254.877), (342.279, 254.877))


def textures(folder: Path | None) -> list[Image]:
    """Grey photographs of a folder, or of scikit-image."""
    if folder is None:
        return [grey(photograph(name)) for name in NAMES]
    return [grey(read(str(path))) for path in sorted(folder.iterdir()) if path.is_file()]


def grey(image: Image) -> Image:
    """A picture in one channel; those of scikit-image may have that already."""
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def add_stereo(folder: Path) -> None:
    """The motorcycle's pair behind the others."""
    load: Any = skimage.data.stereo_motorcycle
    left, right, _ = load()
    names = ["motorcycle_left.png", "motorcycle_right.png"]
    for name, picture in zip(names, (left, right), strict=True):
        cv2.imwrite(str(folder / name), np.ascontiguousarray(picture[..., ::-1]))
    intrinsics = [np.array([[FOCAL, 0, x], [0, FOCAL, y], [0, 0, 1]]) for x, y in CENTRES]
    t_0to1 = np.eye(4)
    t_0to1[0, 3] = -BASELINE / 1000
    with (folder / "pairs.txt").open("a") as file:
        file.write(pair_line(names, intrinsics, t_0to1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--photographs", type=Path, help="folder of pictures for the surfaces")
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width")
    parser.add_argument("--stereo", action="store_true", help="add the motorcycle's pair")
    args = parser.parse_args()
    config = SceneConfig(seed=args.seed, size=(args.size[0], args.size[1]))
    path = write_scenes(args.out, render_scenes(textures(args.photographs), args.pairs, config))
    if args.stereo:
        add_stereo(args.out)
    print(f"wrote {args.pairs + args.stereo} pairs and {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
