"""Stage 2, homographic adaptation: a detector labels photographs (section 5 of the paper).

The detector looks at many random warps of a photograph; its heatmaps are warped back and averaged,
each pixel over the views that show it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cv_superpoint.backends import choose, make_backend
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.arrays import find, logits_to_heatmap
from cv_superpoint.decoding.tensors import logits_to_heatmap as logits_to_heatmap_tensor
from cv_superpoint.errors import PictureError
from cv_superpoint.files import replace_file
from cv_superpoint.files.entries import read_file
from cv_superpoint.geometry import (
    HomographyConfig,
    Matrix,
    sample_homography,
    valid_mask,
    warp_image,
)
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.network.weights import NetworkWeights
from train.data.images import ImageConfig, load_image, tell_once, to_tensor
from train.data.on_device import to_device, warp_batch
from train.data.pairs import LabelledImage
from train.runtime.process import wants_bfloat16

log = logging.getLogger(__name__)

Heatmap = npt.NDArray[np.float32]
HeatmapFunction = Callable[[npt.NDArray[np.uint8]], list[Heatmap]]


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Configuration of the stage.

    Attributes:
        images: Working size of the photographs.
        views: Warps per photograph, the first of which is the identity.
        batch_size: Views that go through the network together.
        upright: Warps of the even views.
        turned: Warps of the odd views.
        border: Pixels next to the borders, of the photograph and of the views, that do not count.
        smallest_count: Views that a pixel must be seen in.
        threshold: Smallest averaged probability that is stored.
        most_points: Points stored per photograph.
        points_per_image: The threshold that is finally used gives this median number of points.
        minutes: Stop labelling new photographs after this long; 0 labels them all.
    """

    images: ImageConfig = field(default_factory=ImageConfig)
    views: int = 100
    batch_size: int = 4
    upright: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.5, 1.25), rotation=0.5, corner_jitter=0.12, translation=0.1
        )
    )
    turned: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.5, 1.25), rotation=1.57, corner_jitter=0.12, translation=0.1
        )
    )
    border: float = 3.0
    smallest_count: int = 3
    threshold: float = 0.002
    most_points: int = 600
    points_per_image: int = 160
    minutes: float = 0.0


class _DetectorHalf(torch.nn.Module):
    def __init__(self, net: SuperPointNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net.detect(self.net.encode(images))


def heatmap_function(weights: NetworkWeights, precision: str = "auto") -> HeatmapFunction:
    """A folded network as a function, in the fastest backend for the CPU that is installed.

    Args:
        weights: Weights of the network.
        precision: "float32", "bfloat16", or "auto": what is fastest.

    Returns:
        A function from (B, H, W) or (B, H, W, 3) uint8 images to their (H, W) heatmaps.
    """
    # bfloat16, where a CPU multiplies in it, is precise enough for an average of many views.
    choice = choose(
        backend="auto", device="cpu", precision=precision, measured=("float32", "bfloat16")
    )
    backend = make_backend(weights, choice, threads=torch.get_num_threads())

    def heatmaps_of(images: npt.NDArray[np.uint8]) -> list[Heatmap]:
        logits, _ = backend.run(images[..., None] if images.ndim == 3 else images)
        return [logits_to_heatmap(cells) for cells in logits]

    return heatmaps_of


def sample_views(
    rng: np.random.Generator, size: tuple[int, int], config: AdaptConfig
) -> list[Matrix]:
    """Homographies from a photograph to its views, the identity first."""
    warps = (config.upright, config.turned)
    return [np.eye(3)] + [
        sample_homography(rng, size, warps[k % 2]) for k in range(config.views - 1)
    ]


def aggregate(
    image: npt.NDArray[np.uint8],
    views: list[Matrix],
    heatmaps_of: HeatmapFunction,
    config: AdaptConfig,
) -> Heatmap:
    """Average of the heatmaps of all views, in the photograph's pixels.

    Args:
        image: (H, W) or (H, W, 3), multiples of 8.
        views: Homographies from ``image`` to views of the same size.
        heatmaps_of: Images -> heatmaps.
        config: Borders and counts.

    Returns:
        (H, W) float32; 0 where fewer than ``smallest_count`` views count.
    """
    size = (image.shape[0], image.shape[1])
    total = np.zeros(size, np.float32)
    count = np.zeros(size, np.float32)
    for start in range(0, len(views), config.batch_size):
        batch = views[start : start + config.batch_size]
        heatmaps = heatmaps_of(np.stack([warp_image(image, view, size) for view in batch]))
        for view, heatmap in zip(batch, heatmaps, strict=True):
            back = np.asarray(np.linalg.inv(view), dtype=np.float64)
            seen = valid_mask(back, size, size, config.border)
            total += warp_image(heatmap, back, size, border=cv2.BORDER_CONSTANT) * seen
            count += seen
    enough = count >= min(config.smallest_count, len(views))
    enough &= valid_mask(np.eye(3), size, size, config.border)
    result = np.where(enough, total / np.maximum(count, 1), 0)
    return result.astype(np.float32)


def aggregate_on_device(
    image: npt.NDArray[np.uint8],
    views: list[Matrix],
    net: SuperPointNet,
    config: AdaptConfig,
    precision: str = "auto",
) -> Heatmap:
    """The same as :func:`aggregate`, on the network's device and in batches throughout.

    ``precision`` is as of :func:`train.runtime.process.wants_bfloat16`.
    """
    size = (image.shape[0], image.shape[1])
    result = average_on_device(image, views, net, config, precision)
    enough = valid_mask(np.eye(3), size, size, config.border)
    return np.where(enough, result.cpu().numpy(), 0).astype(np.float32)


def average_on_device(
    image: npt.NDArray[np.uint8],
    views: list[Matrix],
    net: SuperPointNet,
    config: AdaptConfig,
    precision: str = "auto",
) -> torch.Tensor:
    """What :func:`aggregate_on_device` gives, with the photograph's borders, left on the device."""
    half, device = _DetectorHalf(net).eval(), next(net.parameters()).device
    size = (image.shape[0], image.shape[1])
    photo = to_tensor(image)[None].to(device)
    sizes = to_device(np.array([size], np.float64), device)
    total, count = (torch.zeros(size, device=device) for _ in range(2))
    bfloat16 = wants_bfloat16(precision, device)
    for start in range(0, len(views), config.batch_size):
        forward = np.stack(views[start : start + config.batch_size])
        # Depths must be positive inside the photograph and inside the view.
        forward = forward * np.sign(forward[:, 2] @ [size[1] / 2, size[0] / 2, 1])[:, None, None]
        there, back = (to_device(m, device) for m in (np.linalg.inv(forward), forward))
        n = len(forward)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            images, _ = warp_batch(photo.expand(n, -1, -1, -1), sizes.expand(n, 2), there, size, 0)
            heat = logits_to_heatmap_tensor(half(images.round() / 255).float())
            mapped, seen = warp_batch(heat[:, None], sizes.expand(n, 2), back, size, config.border)
            total += (mapped[:, 0] * seen).sum(dim=0)
            count += seen.sum(dim=0)
    return torch.where(count >= min(config.smallest_count, len(views)), total / count, 0)


def cache_folder(run_dir: Path, weights: NetworkWeights, config: AdaptConfig, seed: int) -> Path:
    """Where the labels of these weights and settings are kept: other ones never mix in."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.tensors.items()):
        digest.update(name.encode() + value.tobytes())
    settings = {k: v for k, v in asdict(config).items() if k not in ("minutes", "points_per_image")}
    digest.update(json.dumps([settings, seed], sort_keys=True).encode())
    return run_dir / "labels" / digest.hexdigest()[:16]


def label_file(folder: Path, image: Path) -> Path:
    """The label file of an image, found by the image's content.

    Raises:
        PictureError: If the image cannot be read.
    """
    return folder / f"{hashlib.sha256(read_file(image)).hexdigest()[:24]}.npy"


def adapt(
    weights: NetworkWeights,
    paths: list[Path],
    run_dir: Path,
    config: AdaptConfig,
    seed: int,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Label photographs that have no labels yet, in random order.

    Args:
        weights: Weights of a folded network.
        paths: Paths of the photographs.
        run_dir: The labels go to a folder in ``run_dir / "labels"``.
        config: Views, thresholds, time.
        seed: Seed of the order and the views.
        shard: (k, n): this process does every n-th photograph from the k-th on.

    Returns:
        The folder of the labels: one (N, 3) float32 array of (x, y, probability) per photograph.
    """
    folder = cache_folder(run_dir, weights, config, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if torch.cuda.is_available():
        net = weights.net.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
        label = partial(aggregate_on_device, net=net, config=config)
    else:
        label = partial(aggregate, heatmaps_of=heatmap_function(weights), config=config)
    started, new = time.perf_counter(), 0
    order = np.random.default_rng((seed, 2)).permutation(len(paths))
    order = order[shard[0] :: shard[1]]
    for done, position in enumerate(order):
        try:
            target = label_file(folder, paths[position])
            if read_label(target) is not None:
                continue
            seconds = time.perf_counter() - started
            if config.minutes and seconds > 60 * config.minutes:
                log.info("out of time: %d of %d photographs are labelled", done, len(order))
                break
            image = load_image(paths[position], config.images)
        except PictureError as error:
            tell_once(error)
            continue
        rng = np.random.default_rng((seed, int(position)))
        views = sample_views(rng, (image.shape[0], image.shape[1]), config)
        _write_label(target, label(image, views), config)
        new += 1
        if new % 25 == 0:
            speed = new / (time.perf_counter() - started)
            left = (len(order) - done - 1) / speed
            if config.minutes:
                left = min(left, 60 * config.minutes - new / speed)
            log.info(
                "labelled %d of %d photographs, %.2f a second, %.0f min left",
                done + 1, len(order), speed, left / 60,
            )  # fmt: skip
    return folder


def _write_label(target: Path, heatmap: Heatmap, config: AdaptConfig) -> None:
    # Averages over views are smooth: their maximum says as much as a window around it.
    decoding = Decoding(
        max_keypoints=config.most_points, score_threshold=config.threshold, score_radius=0
    )
    points, scores = find(heatmap, decoding)
    file = io.BytesIO()
    np.save(file, np.column_stack([points, scores]).astype(np.float32))
    replace_file(target, file.getvalue())


def read_label(file: Path) -> npt.NDArray[np.float32] | None:
    """The points of a label file, (N, 3); None if it is missing or damaged."""
    try:
        array: npt.NDArray[np.float32] = np.load(file)
        if not (array.ndim == 2 and array.shape[1] == 3 and array.dtype == np.float32):
            raise ValueError(f"{array.dtype} of the shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("not finite")
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy parses a header in several layers, each with its own
        log.warning("%s is damaged and does not count (%s); adapt makes it anew", file, error)
        return None
    return array


def read_labels(folder: Path, paths: list[Path], config: AdaptConfig) -> list[LabelledImage]:
    """Photographs that have labels, with a threshold that gives the wanted median number.

    Raises:
        ValueError: If none of the photographs has labels.
    """
    arrays = []
    for path in paths:
        try:
            array = read_label(label_file(folder, path))
        except PictureError as error:
            tell_once(error)
            continue
        if array is not None:
            arrays.append((path, array))
    if not arrays:
        raise ValueError(f"none of the {len(paths)} images is labelled in {folder}; run adapt")
    threshold = median_threshold([array[:, 2] for _, array in arrays], config.points_per_image)
    log.info("%d labelled photographs, label threshold %.4f", len(arrays), threshold)
    return [LabelledImage(path, array[array[:, 2] >= threshold, :2]) for path, array in arrays]


def median_threshold(scores: list[npt.NDArray[np.float32]], wanted: int) -> float:
    """The threshold at which the median image has ``wanted`` scores (rows sorted, best first)."""
    nth = [float(row[wanted - 1]) if len(row) >= wanted else 0.0 for row in scores]
    return float(np.median(nth))
