"""Training data per second on one core: `make bench`.

Processor time, so that what else runs on the machine hardly counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint.synthetic.samples import SyntheticConfig
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs
from train.data.synthetic import SyntheticShapes

ROUNDS = 5


def tell(benchmark: Any, capsys: Any, what: str, items: int) -> None:
    rate = items / benchmark.stats.stats.median
    benchmark.extra_info["per_second"] = rate
    with capsys.disabled():
        print(f"\n{what}: {rate:.0f} per second and core")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_synthetic_rendering(benchmark: Any, capsys: Any, colour: bool) -> None:
    """Drawing, photometric changes and cell targets of a 120 x 160 image."""
    samples = SyntheticShapes(0, SyntheticConfig(size=(120, 160), colour=colour))
    indices = iter(range(10**6))

    def draw() -> None:
        for _ in range(100):
            samples[next(indices)]

    benchmark.group = "synthetic samples, 120 x 160, a hundred"
    benchmark.pedantic(draw, rounds=ROUNDS, warmup_rounds=1)
    tell(benchmark, capsys, "synthetic samples", 100)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("where", ["worker", "device"])
def test_pairs(benchmark: Any, capsys: Any, tmp_path: Path, where: str) -> None:
    """Warped pairs of 192 x 256; the device path is meant for accelerators, timed here on a CPU."""
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY))
    keypoints = np.random.default_rng(0).uniform(0, 239, (160, 2)).astype(np.float32)
    images = [LabelledImage(path, keypoints)] * 8
    if where == "worker":
        pairs = WarpedPairs(0, images, ImageConfig(), PairConfig())

        def make() -> None:
            for index in range(8):
                pairs[index]
    else:
        batches = DevicePairs(0, images, ImageConfig(), PairConfig(), "cpu")

        def make() -> None:
            batches.batch(0, 8)

    benchmark.group = "pairs of 192 x 256, eight"
    benchmark.pedantic(make, rounds=ROUNDS, warmup_rounds=1)
    tell(benchmark, capsys, f"pairs by {where}", 8)
