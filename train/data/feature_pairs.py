"""Features of the views of scenes, kept in files, and the pairs that are made of them.

A detector is slow and a matcher learns from each scene many times, so features are extracted once:
one file for each scene, written whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cv_superpoint.files import replace_file
from cv_superpoint.matching.lightglue.matcher import normalised
from cv_superpoint.opencv.feature2d import SuperPointFeature2D
from train.data.scenes import (
    UNKNOWN,
    UNMATCHED,
    Photograph,
    SceneConfig,
    SceneView,
    scene_views,
    true_matches,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How the features are extracted.

    Attributes:
        scenes: Number of scenes.
        scene: How scenes are made.
        keypoints: Largest number of keypoints of a view, the strongest.
        threshold: Smallest score, as a share of what the weights recommend, so that a matcher also
            learns from weak keypoints.
        near: Pixels within which mutually nearest keypoints are the same.
        far: Pixels beyond which a keypoint has no counterpart; between the two nothing is known.
    """

    scenes: int = 1600
    scene: SceneConfig = field(default_factory=SceneConfig)
    keypoints: int = 512
    threshold: float = 0.5
    near: float = 3.0
    far: float = 5.0

    def __post_init__(self) -> None:
        if self.scenes < 2:
            raise ValueError(f"scenes must be at least 2, got {self.scenes}")
        if not 0 < self.near <= self.far:
            raise ValueError(f"near must be in (0, far], got {self.near} and far {self.far}")


@dataclass(frozen=True, kw_only=True)
class MatchPairConfig:
    """How pairs are made of the features.

    Attributes:
        keypoints: Largest number of rows of an image, the strongest keypoints. The number is drawn
            for each batch, evenly on a logarithmic scale, so that a matcher learns from small and
            large sets and few rows are padding.
        fewest: Smallest number of rows.
        unrelated: Share of the pairs that show two scenes, of which nothing matches.
    """

    keypoints: int = 512
    fewest: int = 96
    unrelated: float = 0.08

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.keypoints:
            raise ValueError(f"fewest must be in [1, {self.keypoints}], got {self.fewest}")


def features_folder(run_dir: Path, digest: str, config: FeaturesConfig, seed: int) -> Path:
    """Where the files are: another place for other weights, settings or seeds."""
    described = json.dumps([digest, asdict(config), seed], sort_keys=True)
    return run_dir / "features" / hashlib.sha256(described.encode()).hexdigest()[:16]


def extract_scenes(
    detector: SuperPointFeature2D,
    photograph: Photograph,
    count: int,
    folder: Path,
    config: FeaturesConfig,
    seed: int,
) -> None:
    """Write the files of all scenes that have none yet.

    Args:
        detector: Detector whose features they are.
        photograph: Function that reads one of them.
        count: Photographs.
        folder: Where the files go.
        config: How many, and of what.
        seed: Seed of the scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, told = time.monotonic(), time.monotonic()
    for scene in range(config.scenes):
        path = scene_file(folder, scene)
        if path.exists():
            continue
        views = scene_views(seed, scene, count, photograph, config.scene)
        content = _extract(detector, views, config)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **content)
        replace_file(path, buffer.getvalue())
        if time.monotonic() - told > 30:
            told = time.monotonic()
            log.info("features of %d of %d scenes, %.0f s", scene, config.scenes, told - started)


def scene_file(folder: Path, scene: int) -> Path:
    """The file of a scene."""
    return folder / f"{scene:06d}.npz"


def scene_files(folder: Path, config: FeaturesConfig) -> list[Path]:
    """The files of all scenes, in their order."""
    return [scene_file(folder, scene) for scene in range(config.scenes)]


def _extract(
    detector: SuperPointFeature2D, views: Sequence[SceneView], config: FeaturesConfig
) -> dict[str, npt.NDArray[Any]]:
    found = [detector.extract(view.image) for view in views]
    content: dict[str, npt.NDArray[Any]] = {}
    for number, features in enumerate(found):
        content[f"points{number}"] = normalised(features.keypoints, features.image_size[::-1])
        content[f"descriptors{number}"] = features.descriptors.astype(np.float16)
    for first, second in combinations(range(len(views)), 2):
        labels = true_matches(
            found[first].keypoints,
            found[second].keypoints,
            views[first],
            views[second],
            near=config.near,
            far=config.far,
        )
        for side, rows in zip((first, second), labels, strict=True):
            content[f"matches{first}-{second}-{side}"] = rows
    return content


class FeaturePairs(Dataset[dict[str, Tensor]]):
    """Map-style endless set: item -> the keypoints of two images, and which belong together.

    An item holds ``points0`` (K, 2), ``descriptors0`` (K, D), ``valid0`` (K), ``matches0`` (K), the
    same of image 1, padded to K rows. Item i depends on ``(seed, i)``, ``together`` and the files
    only.

    Args:
        seed: Seed of the pairs.
        files: Files of the scenes.
        views: Views in each file.
        config: How pairs are made.
        together: Pairs of a batch; those of one batch have the same number of rows.
    """

    def __init__(
        self, seed: int, files: Sequence[Path], views: int, config: MatchPairConfig, together: int
    ) -> None:
        self.seed = seed
        self.files = files
        self.views = views
        self.config = config
        self.together = together

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        scene, other = rng.choice(len(self.files), 2, replace=False)
        sides = rng.choice(self.views, 2, replace=False)
        related = rng.random() >= self.config.unrelated
        scenes = (scene, scene if related else other)
        low, high = sorted(sides)
        most = self._rows(index // self.together)
        item: dict[str, Tensor] = {}
        kept = []
        for name, number, side in zip("01", scenes, sides, strict=True):
            with np.load(self.files[number]) as content:
                points, rows = content[f"points{side}"], content[f"descriptors{side}"]
                matches = (
                    content[f"matches{low}-{high}-{side}"].astype(np.int64)
                    if related
                    else np.full(len(points), UNMATCHED)
                )
            kept.append(min(len(points), most))
            item |= _padded(name, points, rows, matches, most)
        for name, count in zip("01", reversed(kept), strict=True):
            # The strongest come first: the counterpart of others was not kept.
            matches = item[f"matches{name}"]
            item[f"matches{name}"] = matches.masked_fill(matches >= count, UNMATCHED)
        return item

    def _rows(self, batch: int) -> int:
        """Rows of the images of a batch."""
        rng = np.random.default_rng((self.seed, batch, 1))
        fewest, most = self.config.fewest, self.config.keypoints
        rows: int = round(fewest * (most / fewest) ** rng.uniform())
        return rows


def _padded(
    name: str,
    points: npt.NDArray[np.float32],
    descriptors: npt.NDArray[np.float16],
    matches: npt.NDArray[np.int64],
    rows: int,
) -> dict[str, Tensor]:
    """The strongest keypoints of an image in this number of rows."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": np.zeros((rows, 2), np.float32),
        "descriptors": np.zeros((rows, descriptors.shape[1]), np.float32),
        "matches": np.full(rows, UNKNOWN, np.int64),
    }
    given: list[npt.NDArray[Any]] = [points, descriptors, matches]
    for array, values in zip(arrays.values(), given, strict=True):
        array[: len(values)] = values[:rows]
    tensors = {f"{key}{name}": torch.from_numpy(array) for key, array in arrays.items()}
    return {**tensors, f"valid{name}": torch.arange(rows) < len(points)}
