"""How fast one core makes what training learns from: drawings, warped pairs, labels of views."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import publish
from benchmarks.measure import Timing, in_turn, machine, photographs
from cv_superpoint.network.torch_network import fold_batchnorm
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.synthetic.samples import SyntheticConfig
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs
from train.data.synthetic import SyntheticShapes
from train.learning.model import TrainingNetwork
from train.stages.adapt import AdaptConfig, aggregate, heatmap_function, sample_views

DRAWINGS, PAIRS, VIEWS = 50, 8, 8
"""Number of each in one call."""

Call = Callable[[Any], object]


def _drawings(colour: bool) -> Call:
    samples = SyntheticShapes(0, SyntheticConfig(size=(120, 160), colour=colour))
    indices = itertools.count()
    return lambda _: [samples[next(indices)] for _ in range(DRAWINGS)]


def _pairs(folder: Path) -> tuple[Call, Call]:
    """Makers of pairs: a worker, and batches as on a device (meant for accelerators)."""
    path = folder / "photograph.png"
    cv2.imwrite(str(path), photographs(None, (400, 600), 1)[0])
    keypoints = np.random.default_rng(0).uniform(0, 239, (160, 2)).astype(np.float32)
    images = [LabelledImage(path, keypoints)] * PAIRS
    pairs = WarpedPairs(0, images, ImageConfig(), PairConfig())
    batches = DevicePairs(0, images, ImageConfig(), PairConfig(), "cpu")
    return lambda _: [pairs[index] for index in range(PAIRS)], lambda _: batches.batch(0, PAIRS)


def _views() -> Call:
    image = photographs(None, (240, 320), 1)[0]
    config = AdaptConfig(views=VIEWS)
    views = sample_views(np.random.default_rng(0), (240, 320), config)
    heatmaps_of = heatmap_function(NetworkWeights.of(fold_batchnorm(TrainingNetwork(0).net)))
    return lambda _: aggregate(image, views, heatmaps_of, config)


def measure_data(rounds: int) -> dict[str, tuple[Timing, int]]:
    """Timing of a call, and what it makes, by name; in turn, in one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    height, width = PairConfig().size
    with tempfile.TemporaryDirectory() as folder:
        by_worker, by_device = _pairs(Path(folder))
        made: dict[str, tuple[Call, int]] = {
            "drawings, 120 x 160, grey": (_drawings(False), DRAWINGS),
            "drawings, 120 x 160, colour": (_drawings(True), DRAWINGS),
            f"pairs, {height} x {width}, by a worker": (by_worker, PAIRS),
            f"pairs, {height} x {width}, as on a device": (by_device, PAIRS),
            "adaptation, views of 240 x 320": (_views(), VIEWS),
        }
        timings = in_turn({name: call for name, (call, _) in made.items()}, [None], rounds)
    return {name: (timings[name], count) for name, (_, count) in made.items()}


def data(*, rounds: int = 5) -> None:
    """Time what training learns from, by processor time in one thread.

    Args:
        rounds: Calls of each, in turn, after a warm-up.
    """
    rows = [
        [name, f"{count / timing.processor:.1f}", f"{1e3 * timing.processor / count:.1f}"]
        for name, (timing, count) in measure_data(rounds).items()
    ]
    print(f"{publish.facts(machine('cpu', 1))}.\n")
    print(publish.table(["one core makes", "a second", "ms each"], rows))
