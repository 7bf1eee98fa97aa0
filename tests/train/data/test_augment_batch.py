from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint.synthetic.photometric import PhotometricConfig, compress, photometric
from train.data import augment_batch


def _only(**change: float | tuple[float, float]) -> PhotometricConfig:
    nothing = {
        "brightness": 0.0, "contrast": (1.0, 1.0), "gamma": (1.0, 1.0), "noise": 0.0,
        "speckle": 0.0, "blur": 0.0, "motion": 0, "shade": 0.0, "tint": 0.0,
    }  # fmt: skip
    return PhotometricConfig(probability=1.0, **{**nothing, **change})


STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.mean,
    "deviation": np.std,
    "gradient": lambda image: float(np.abs(np.diff(image, axis=1)).mean()),
}


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 40.0}, {"contrast": (0.5, 1.4)}, {"gamma": (0.6, 1.6)}, {"noise": 12.0},
        {"speckle": 0.05}, {"blur": 1.2}, {"motion": 5}, {"shade": 0.5}, {"night": 0.9},
        {"shadow": 0.9},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_changes_are_distributed_as_on_the_cpu(change: dict[str, float]) -> None:
    photo = cv2.resize(skimage.data.camera(), (80, 64), interpolation=cv2.INTER_AREA)
    config = _only(**change)
    count = 400
    batch = torch.from_numpy(photo).float().expand(count, 1, -1, -1)
    changed = augment_batch.photometric_batch(batch, config, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    singles = [photometric(rng, photo, config) for _ in range(count)]
    for name, statistic in STATISTICS.items():
        first = np.array([statistic(image.astype(float)) for image in changed[:, 0].numpy()])
        second = np.array([statistic(image.astype(float)) for image in singles])
        scale = second.std() + 0.05
        assert abs(first.mean() - second.mean()) < 0.35 * scale, name
        assert abs(first.std() - second.std()) < 0.35 * scale, name


@pytest.mark.parametrize("quality", [15, 40, 70])
@pytest.mark.parametrize("colour", [False, True])
def test_compression_is_that_of_opencv(quality: int, colour: bool) -> None:
    photo = skimage.data.astronaut()[:200, :300] if colour else skimage.data.camera()[:200, :300]
    config = replace(_only(), probability=0.0, jpeg=1.0, quality=(quality, quality))
    batch = torch.from_numpy(photo.copy()).float().reshape(200, 300, -1).permute(2, 0, 1)[None]
    generator = torch.Generator().manual_seed(0)
    [changed] = augment_batch.photometric_batch(batch, config, generator)
    other = compress(photo, quality).astype(float).reshape(200, 300, -1)
    difference = np.abs(changed.permute(1, 2, 0).numpy().astype(float) - other)
    loss = np.abs(photo.reshape(200, 300, -1) - other)
    # kornia rounds coefficients almost, so that a gradient passes.
    assert difference.mean() < 0.5 * loss.mean()


def test_no_change_is_no_change_and_nothing_moves() -> None:
    photo = torch.from_numpy(skimage.data.camera()[::8, ::8].copy()).float()[None, None]
    generator = torch.Generator().manual_seed(0)
    same = augment_batch.photometric_batch(photo, PhotometricConfig(probability=0.0), generator)
    assert torch.equal(same, photo.to(torch.uint8))
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    dot = cv2.GaussianBlur(dot, (0, 0), 2)
    batch = torch.from_numpy(dot).float().expand(20, 1, -1, -1)
    changed = augment_batch.photometric_batch(batch, _only(blur=1.2, motion=5), generator)
    rows, columns = np.mgrid[:41, :41]
    for image in changed[:, 0].numpy().astype(float):
        centre = [(image * grid).sum() / image.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(centre, (20, 20), atol=0.05)


def test_missing_kornia_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kornia.filters", None)
    with pytest.raises(ImportError, match=r"cv-superpoint\[train\]"):
        augment_batch.photometric_batch(
            torch.zeros(1, 1, 16, 16), PhotometricConfig(), torch.Generator()
        )
