"""What trains on a GPU does not wait for it: no value is read by the host, no shape is a value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from capture import NotRecordableError, Unsynchronised
from torch.utils.data import default_collate

from cv_superpoint.synthetic.photometric import PhotometricConfig
from train.data.augment_batch import blur
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig
from train.recipes import smoke
from train.stages.joint import Joint, JointConfig

SIZES = ImageConfig(shorter_side=96, longest_side=128)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    path = tmp_path_factory.mktemp("photographs") / "camera.png"
    cv2.imwrite(str(path), skimage.data.camera())
    points = np.random.default_rng(0).uniform(5, 90, (60, 2)).astype(np.float32)
    return [LabelledImage(path, points)] * 3


def step_on_meta(config: JointConfig, photographs: list[LabelledImage]) -> set[str]:
    """Loss and gradient of tensors without values, so that reading one fails."""
    task = Joint(config, 0, photographs, [Path(photographs[0].path)], SIZES)
    batch = default_collate([task.dataset()[i] for i in range(2)])
    task.network.to("meta")
    task.log_scale = task.network.log_scale
    on_meta = {name: value.to("meta") for name, value in batch.items()}
    with Unsynchronised():
        loss, _ = task.loss(on_meta)
        loss.backward()
    return {name for name, one in task.network.named_parameters() if one.grad is not None}


TERMS = {"reprojection_weight": 1.0, "spread_weight": 0.05, "agreement_weight": 0.5}


@pytest.mark.parametrize("terms", [{}, TERMS, {"descriptor_loss": "dense_hinge"}])
def test_loss_and_gradient(photographs: list[LabelledImage], terms: dict[str, Any]) -> None:
    found = step_on_meta(replace(smoke().joint, **terms), photographs)
    assert ("log_scale" in found) == ("descriptor_loss" not in terms)
    assert any("encoder.0.conv" in name for name in found)


@pytest.mark.parametrize("colour", [False, True])
def test_pairs_on_the_device(photographs: list[LabelledImage], colour: bool) -> None:
    sizes = replace(SIZES, colour=colour)
    changes = PhotometricConfig(night=0.5, shadow=0.5)
    config = PairConfig(size=(96, 128), drawings=0.2, photometric=changes, zooms=(1.0, 1.5))
    pairs = DevicePairs(0, photographs, sizes, config, "cpu")
    with Unsynchronised():
        pairs.batch(0, 4)


def test_a_blur_is_that_of_kornia_without_its_look_at_the_deviations() -> None:
    filters = pytest.importorskip("kornia.filters")
    images = torch.rand(3, 2, 40, 50, generator=torch.Generator().manual_seed(0))
    deviation = torch.tensor([0.01, 0.7, 1.5])
    expected = filters.gaussian_blur2d(images, (13, 13), deviation[:, None].expand(-1, 2))
    with Unsynchronised():
        found = blur(images, deviation, 1.5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    with Unsynchronised(), pytest.raises(NotRecordableError, match="the host reads"):
        filters.gaussian_blur2d(images, (13, 13), deviation[:, None].expand(-1, 2))
