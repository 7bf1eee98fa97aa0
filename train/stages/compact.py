"""What makes the descriptors of trained weights shorter, fitted to photographs.

Not a stage of a run: it takes weights that are finished, and leaves them as they are. The file lies
beside theirs (``NAME.compact.safetensors``) and holds principal components, for fewer numbers, and
planes, for bits.

A bit tells on which side of a plane a descriptor lies. The planes' normals are random rotations,
one after the other, of the space in which noise is the same in all directions, half of the way: the
covariance of what two views of one point differ by, to the power of -1/4. Before, all directions
would get as many bits, also those that say little of a point (docs/descriptors.md has the trials).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.checks import as_count
from cv_superpoint.decoding.descriptors import BITS, Compaction, DescriptorFormat, Encoder
from cv_superpoint.detector.features import Features
from cv_superpoint.evaluation.datasets import ImagePair
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs, warp_pair
from cv_superpoint.geometry import inside, warp_points
from cv_superpoint.matching.nearest import mutual_nearest
from cv_superpoint.opencv.feature2d import SuperPointFeature2D
from cv_superpoint.weights import LoadedWeights, load_weights
from cv_superpoint.weights.compact import compact_path, parse_compaction, save_compaction

log = logging.getLogger(__name__)

KEYPOINTS = 500
SIZE = (360, 480)
NEAR = 3.0
"""Pixels that the two views of a point lie apart at most."""
PLANES = 2 * BITS
"""The most bits that can be asked for; half of them are the default."""
LEAST_NOISE = 0.01
"""Share of the noisiest direction's noise that every direction is taken to have at least."""
_CHECKED = 5
"""One photograph of so many is held out, to measure the result on."""

Array = NDArray[np.float64]
Pair = tuple[Features, Features, Array]


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """Fit principal components and planes for bits to finished weights.

    Attributes:
        images: Folder of photographs.
        weights: Bundled name or file; by default the bundled set.
        output: File to write; by default next to the weights.
        photographs: Number of photographs, taken evenly from the folder.
        views: Warped pairs of each photograph.
        seed: Seed of the warps and of the rotations.
        threads: Threads of the network.
    """

    images: Path
    weights: str | None = None
    output: Path | None = None
    photographs: int = 150
    views: int = 3
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("photographs", "views"):
            as_count(name, getattr(self, name), 1)


@dataclass(kw_only=True)
class Moments:
    """Sums over descriptors and over the differences of two views of one point.

    Attributes:
        dim: Length of a descriptor.
    """

    dim: int
    count: int = 0
    matched: int = 0
    total: Array = field(init=False)
    squares: Array = field(init=False)
    noise: Array = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.dim)
        self.squares = np.zeros((self.dim, self.dim))
        self.noise = np.zeros((self.dim, self.dim))

    def add(self, pair: Pair) -> None:
        """Take in a pair's descriptors."""
        rows = [each.descriptors.astype(np.float64) for each in pair[:2]]
        for each in rows:
            self.count += len(each)
            self.total += each.sum(axis=0)
            self.squares += each.T @ each
        matched = same_points(pair)
        difference = rows[0][matched[:, 0]] - rows[1][matched[:, 1]]
        self.matched += len(difference)
        self.noise += difference.T @ difference

    def fit(self, seed: int) -> dict[str, Array]:
        """The arrays of :class:`Compaction`.

        Raises:
            ValueError: If there are too few descriptors.
        """
        if min(self.count, self.matched) < 10 * self.dim:
            raise ValueError(
                f"the photographs give {self.count} descriptors and {self.matched} pairs of them, "
                f"and at least {10 * self.dim} are needed; give more photographs, or --views"
            )
        mean = self.total / self.count
        variances, vectors = np.linalg.eigh(self.squares / self.count - np.outer(mean, mean))
        components = vectors[:, np.argsort(-variances)].T
        # The sign of an eigenvector has no meaning; so that it is the same everywhere.
        strongest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], 1)
        planes = _rotations(self.dim, seed) @ _whitening(self.noise / self.matched)
        planes /= np.linalg.norm(planes, axis=1, keepdims=True)
        return {
            "mean": mean,
            "components": components * np.sign(strongest),
            "planes": planes,
            "offsets": planes @ mean,
        }


def _rotations(dim: int, seed: int) -> Array:
    """(PLANES, dim) rows of random rotations, those of each orthonormal."""
    rng = np.random.default_rng(seed)
    squares = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(-(-PLANES // dim))]
    return np.asarray(np.concatenate(squares)[:PLANES], np.float64)


def _whitening(noise: Array) -> Array:
    values, vectors = np.linalg.eigh(noise)
    values = np.maximum(values, LEAST_NOISE * values.max())
    return np.asarray((vectors * values**-0.25) @ vectors.T, np.float64)


def same_points(pair: Pair) -> NDArray[np.intp]:
    """(M, 2) rows of keypoints that are each other's nearest, and near, where both views agree."""
    first, second, h_0to1 = pair
    if len(first) == 0 or len(second) == 0:
        return np.empty((0, 2), np.intp)
    places = warp_points(h_0to1, first.keypoints.astype(np.float64))
    apart = np.linalg.norm(places[:, None] - second.keypoints[None], axis=2)
    nearest = apart.argmin(axis=1)
    rows = np.flatnonzero(
        (apart.argmin(axis=0)[nearest] == np.arange(len(first))) & (apart.min(axis=1) <= NEAR)
    )
    return np.stack([rows, nearest[rows]], axis=1)


def described_pairs(config: CompactConfig, detector: SuperPointFeature2D) -> Iterator[Pair]:
    """Features of both views of each pair, and the homography between them."""
    warps = WarpConfig(size=SIZE, pairs_per_image=config.views, seed=config.seed)
    folder = WarpedPhotographs(root=config.images, config=warps)
    chosen = np.linspace(0, len(folder.paths) - 1, config.photographs).round().astype(int)
    folder.paths[:] = [folder.paths[index] for index in sorted({*chosen.tolist()})]
    for name, photograph in folder.photographs():
        for number in range(config.views):
            pair: ImagePair = warp_pair(photograph, name, number, warps)
            first, second = detector.extractBatch(list(pair.images))
            yield first, second, np.asarray(pair.h_0to1, np.float64)
    for skipped in folder.left_out:
        log.warning("%s left out: %s", skipped.name, skipped.reason)


def measure(pairs: list[Pair], encoder: Encoder) -> tuple[float, float]:
    """Match precision, and correct matches as a share of the keypoints in the shared view."""
    precision, score = [], []
    for first, second, h_0to1 in pairs:
        rows = [encoder(each.descriptors) for each in (first, second)]
        matches = mutual_nearest(*rows, binary=encoder.format.binary)[0]
        places = warp_points(h_0to1, first.keypoints.astype(np.float64))
        shared = int(inside(places, SIZE).sum())
        apart = np.linalg.norm(places[matches[:, 0]] - second.keypoints[matches[:, 1]], axis=1)
        right = int((apart <= NEAR).sum())
        if len(matches):
            precision.append(right / len(matches))
        if shared and len(second):
            score.append(right / min(shared, len(second)))
    return float(np.mean(precision)), float(np.mean(score))


def fit(config: CompactConfig) -> tuple[Path, dict[str, Any]]:
    """Fit, write the file and log what it is worth on the photographs that were held out.

    Returns:
        The file, and its entry for the manifest of bundled weights.

    Raises:
        ValueError: If there are too few photographs or descriptors, or no folder for the file.
    """
    weights = load_weights(config.weights)
    weights.check_descriptors()
    path = config.output or compact_path(weights.path)
    if not path.parent.is_dir():  # before the work, not after it
        raise ValueError(f"there is no folder {path.parent} for {path.name}; make it first")
    detector = SuperPointFeature2D.create(
        KEYPOINTS, weights=config.weights, scales=1, precision="float32", threads=config.threads
    )
    moments, checked = Moments(dim=weights.config.descriptor_dim), []
    for index, pair in enumerate(described_pairs(config, detector)):
        if index // config.views % _CHECKED == _CHECKED - 1:
            checked.append(pair)
        else:
            moments.add(pair)
    recipe = (
        f"python -m train compact --photographs {config.photographs} --views {config.views} "
        f"--seed {config.seed}: {moments.count} descriptors, {moments.matched} pairs"
    )
    sha256 = save_compaction(path, weights, recipe=recipe, **moments.fit(config.seed))
    compaction = parse_compaction(path.read_bytes(), path, moments.dim, None)
    if checked:
        _tell(weights, compaction, checked)
    return path, {"file": path.name, "sha256": sha256}


def _tell(weights: LoadedWeights, compaction: Compaction, checked: list[Pair]) -> None:
    full = weights.config.descriptor_dim
    formats = [DescriptorFormat(), DescriptorFormat(kind="uint8")]
    formats += [DescriptorFormat(dim=dim) for dim in (128, 64, 48, 32) if dim < full]
    formats += [DescriptorFormat(kind="binary", dim=dim) for dim in (512, 256, 128)]
    log.info("%d pairs of photographs that were held out:", len(checked))
    for each in formats:
        precision, score = measure(checked, Encoder.of(each, full, compaction))
        name = f"{each.kind} {each.numbers(full)}"
        log.info("%-12s match precision %.3f, matching score %.3f", name, precision, score)


def manifest_lines(entry: dict[str, Any]) -> str:
    """The entry of ``weights/manifest.json``."""
    return f'"compact": {json.dumps(entry)}'
