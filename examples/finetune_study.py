"""When fine-tuning gains: pictures of another kind, weights before and after, paired intervals.

python examples/finetune_study.py documents                     drawn pages of text
python examples/finetune_study.py stars                         drawn star fields
python examples/finetune_study.py retina                        tiles of a picture of scikit-image
python examples/finetune_study.py hubble                        the same
python examples/finetune_study.py night --photographs TRAIN --held-out-photographs OTHERS
python examples/finetune_study.py thermal --photographs TRAIN --held-out-photographs OTHERS

It makes RUN_DIR/train and RUN_DIR/held_out, trains by the recipe finetune on the first, and
compares on warps of the second (protocol warp): the same number of strongest keypoints of each
set, so that no threshold decides; with --also, on pictures of other folders as well. The mean of
the weights before and after, RUN_DIR/mean.safetensors, takes part. Further options go to
python -m train, such as --threads 1. A second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray
from pictures import Image, read
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.evaluation.differences import difference_table
from cv_superpoint.evaluation.measure import PairResult, evaluate_pairs
from cv_superpoint.evaluation.predictions import Feature2D, detect
from cv_superpoint.evaluation.protocols import PROTOCOLS, Fit
from cv_superpoint.evaluation.results import show, summarise, table
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.weights import load_weights, save_weights

SIZE = (320, 448)
"""(height, width) of what is drawn and of photographs: a third more than the pairs show."""
TILE = (180, 240)
LOW = 0.005
"""A score below which 300 keypoints are found nearly everywhere."""
COLUMNS = (
    "keypoints", "repeatability", "localisation_error", "match_precision", "matching_score",
    "accuracy_1", "accuracy_3", "accuracy_5", "auc_3",
)  # fmt: skip
KINDS = (0.8, 0.1, 0.1)
"""Shares of small words, of capitalised ones and of numbers."""
Random: TypeAlias = np.random.Generator


def as_bytes(values: NDArray[Any]) -> Image:
    """Rounded and clipped grey levels."""
    levels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def document(random: Random) -> Image:
    """A page of columns of words, of a vocabulary of its own; sizes of a scan at low resolution."""
    height, width = SIZE
    page = Pillow.new("L", (width, height), int(random.integers(200, 246)))
    pen = ImageDraw.Draw(page)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(2, 10))) for _ in range(60)]
    columns = int(random.integers(1, 4))
    for column in range(columns):
        left, right = ((column + end) * (width - 10) // columns for end in (0, 1))
        y = int(random.integers(2, 24))
        while y < height:
            size = int(random.choice([9, 10, 11, 12, 13, 18], p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1]))
            for _ in range(int(random.integers(1, 10)) if size < 18 else 1):
                draw_line(pen, random, words, (left + 10, y, right), size)
                y += round(1.3 * size)
            if random.random() < 0.3:
                pen.line((left + 10, y, right, y), fill=60)
            y += int(random.integers(0, 18))
    return np.asarray(page, np.uint8)


def draw_line(
    pen: ImageDraw.ImageDraw,
    random: Random,
    words: list[str],
    place: tuple[int, int, int],
    size: int,
) -> None:
    """Words and numbers from the left end (x, y) up to the right end."""
    x, y, right = place
    font = ImageFont.load_default(size)
    while True:
        word = str(random.choice(words))
        word = str(random.choice([word, word.capitalize(), str(random.integers(99999))], p=KINDS))
        end = x + pen.textlength(word + " ", font=font)
        if end > right:
            return
        pen.text((x, y), word, fill=int(random.integers(10, 60)), font=font)
        x = round(end)


def star_field(random: Random) -> Image:
    """Points of light at random, few of them bright, on a dark sky."""
    height, width = SIZE
    sky = np.full(SIZE, 20.0)
    count = int(random.integers(150, 700))
    # As many stars above a brightness as its power -1.1.
    brightness = np.minimum(12 * (1 - random.random(count)) ** (-1 / 1.1), 3000)
    for x, y, peak in zip(
        *random.uniform(0, (width, height), (count, 2)).T, brightness, strict=True
    ):
        rows = np.arange(max(int(y) - 8, 0), min(int(y) + 9, height))
        columns = np.arange(max(int(x) - 8, 0), min(int(x) + 9, width))
        spread = np.exp(-((rows - y)[:, None] ** 2 + (columns - x) ** 2) / (2 * 1.1**2))
        sky[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += peak * spread
    return as_bytes(sky)


def thermal(photo: Image, random: Random | None = None) -> Image:
    """A picture as of a cheap thermal camera: inverted, blurred, flat, with one shot's noise."""
    blurred = cv2.GaussianBlur(photo, (0, 0), 2).astype(np.float32)
    return as_bytes(127 + 0.6 * (127 - blurred) + shot_noise(photo, random))


def night(photo: Image, random: Random | None = None) -> Image:
    """A seventh of the light; with the noise of one shot."""
    return as_bytes(12 + 0.15 * photo.astype(np.float32) + shot_noise(photo, random))


def shot_noise(photo: Image, random: Random | None) -> NDArray[Any]:
    """Up to as much as the protocol adds to a view; 0 without a source of randomness."""
    if random is None:
        return np.zeros(photo.shape)
    return random.normal(0, random.uniform(0, WarpConfig().noise), photo.shape)


DRAWN: dict[str, Callable[[Random], Image]] = {"documents": document, "stars": star_field}
CHANGED: dict[str, Callable[[Image, Random | None], Image]] = {"thermal": thermal, "night": night}
TILED = {"retina": "retina", "hubble": "hubble_deep_field"}


def photographs(folder: Path, count: int, random: Random) -> Iterator[Image]:
    """Grey photographs of a folder in random order, cut to the size."""
    names = sorted(map(str, folder.iterdir()))
    fit = Fit(rule="cover", size=SIZE)
    for position in random.permutation(len(names))[:count]:
        grey = cv2.cvtColor(read(names[position]), cv2.COLOR_BGR2GRAY)
        yield fit.apply(grey)[0].astype(np.uint8)


def tiles(name: str, part: str) -> Iterator[Image]:
    """Tiles of the left half to train on, half a tile apart; of the right half, without overlap."""
    rgb: Any = getattr(skimage.data, name)()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if name == "retina":  # the middle of the round picture
        grey = grey[150:1260, 150:1260]
    middle, step = grey.shape[1] // 2, 2 if part == "train" else 1
    half = grey[:, :middle] if part == "train" else grey[:, middle:]
    height, width = TILE
    for top in range(0, half.shape[0] - height + 1, height // step):
        for left in range(0, half.shape[1] - width + 1, width // step):
            yield np.asarray(half[top : top + height, left : left + width], np.uint8)


def make(domain: str, part: str, folder: Path | None, count: int) -> Iterator[Image]:
    """The pictures of a part ("train" or "held_out") of a domain, the same in every call."""
    random = np.random.default_rng(zlib.crc32(f"{domain} {part}".encode()))
    if domain in DRAWN:
        return (DRAWN[domain](random) for _ in range(count))
    if domain in TILED:
        return tiles(TILED[domain], part)
    if folder is None:
        raise SystemExit(f"{domain} needs --photographs and --held-out-photographs")
    # Two views of a scene share no noise: the protocol adds each one's own.
    noise = random if part == "train" else None
    return (CHANGED[domain](photo, noise) for photo in photographs(folder, count, random))


def save(pictures: Iterable[Image], folder: Path) -> None:
    """One PNG file each, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        if not cv2.imwrite(str(folder / f"{number:04}.png"), picture):
            raise SystemExit(f"cannot write to {folder}")


def train(run_dir: Path, weights: str, options: list[str]) -> Path:
    """A run of the recipe finetune on the pictures of ``run_dir``; returns the exported file."""
    command = [sys.executable, "-m", "train", "--recipe", "finetune", "--start", weights]
    command += ["--images", str(run_dir / "train"), "--run-dir", str(run_dir), "--held-out", "4"]
    # Its log is what is seen of it.
    if subprocess.run([*command, *options], check=False).returncode:
        raise SystemExit("the training stopped; its last line says why")
    return run_dir / "superpoint.safetensors"


def halfway(before: str, after: Path, target: Path) -> Path:
    """Write the mean of both sets' weights, which keeps more of what the first could.

    After Wortsman et al., "Robust fine-tuning of zero-shot models", 2022. Its threshold is the mean
    of both: try others.
    """
    first, second = load_weights(before), load_weights(after)
    net, old = second.net, first.net.state_dict()
    net.load_state_dict({name: (old[name] + value) / 2 for name, value in net.state_dict().items()})
    threshold = (first.score_threshold + second.score_threshold) / 2
    recipe = f"mean of {before} and {after.name}"
    radius = second.score_radius
    save_weights(net, target, score_threshold=threshold, score_radius=radius, recipe=recipe)
    return target


def compare(
    folder: Path, detectors: dict[str, Feature2D], pairs: int
) -> dict[str, list[PairResult]]:
    """Every detector on the same warps of the pictures of a folder."""
    source = WarpedPhotographs(root=folder, config=WarpConfig(pairs_per_image=pairs))
    return {
        label: list(evaluate_pairs(source, partial(detect, detector), PROTOCOLS["warp"]))
        for label, detector in detectors.items()
    }


def tables(results: dict[str, list[PairResult]], before: str) -> str:
    """The figures of each, and the paired differences of the sets from one of them."""
    rows = []
    for label, found in results.items():
        measured = summarise(found, resamples=0)["all"]
        rows.append([label, *(show(key, measured[key].value) for key in COLUMNS)])
    heading = ["", *(key.replace("_", " ") for key in COLUMNS)]
    bases = {label: before for label in results if label not in (before, "sift")}
    return "\n".join([*table(heading, rows), difference_table(results, bases, COLUMNS)])


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Own options, and those of the training."""
    parser = argparse.ArgumentParser(
        description="Measure what fine-tuning gains in a domain.",
        epilog="Further options go to python -m train, such as --threads 1.",
        allow_abbrev=False,
    )
    parser.add_argument("domain", choices=[*DRAWN, *TILED, *CHANGED])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--weights", default="superpoint", help="weights to start from")
    parser.add_argument("--photographs", type=Path, help="folder of those to train on")
    parser.add_argument("--held-out-photographs", type=Path, help="folder of those to compare on")
    parser.add_argument("--pictures", type=int, default=240, help="number to train on")
    parser.add_argument("--held-out-pictures", type=int, default=64, help="number to compare on")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        help="other pictures to compare on: folders, retina, hubble",
    )
    parser.add_argument("--pairs-per-image", type=int, default=2)
    parser.add_argument(
        "--keypoints", type=int, nargs="+", default=[300], help="numbers of the strongest"
    )
    return parser.parse_known_args()


def main() -> int:
    args, options = parse()
    run_dir, before = args.run_dir, args.weights
    save(make(args.domain, "train", args.photographs, args.pictures), run_dir / "train")
    held_out = make(args.domain, "held_out", args.held_out_photographs, args.held_out_pictures)
    save(held_out, run_dir / "held_out")
    tuned = train(run_dir, before, options)
    mean = halfway(before, tuned, run_dir / "mean.safetensors")
    weights = {before: before, "fine-tuned": str(tuned), "mean of both": str(mean)}
    folders = [run_dir / "held_out"]
    for name in args.also:
        folders.append(run_dir / name if name in TILED else Path(name))
        if name in TILED:
            save(tiles(TILED[name], "held_out"), folders[-1])
    for folder, keypoints in product(folders, args.keypoints):
        detectors: dict[str, Feature2D] = {
            label: SuperPointFeature2D.create(
                maxKeypoints=keypoints, weights=name, scoreThreshold=LOW, scales=(1.0,)
            )
            for label, name in weights.items()
        }
        detectors["sift"] = cv2.SIFT.create(keypoints)
        results = compare(folder, detectors, args.pairs_per_image)
        print(f"{folder}, {keypoints} keypoints\n{tables(results, before)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
