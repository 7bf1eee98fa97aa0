"""The torch backend: what the GPU path does with batches, tried wherever the tests run."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint.backends.torch import TorchBackend, choose_device
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.weights import load_weights

PHOTOGRAPH = skimage.data.camera()
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
)


def make_detector(backend: TorchBackend) -> Detector:
    config = DetectorConfig(max_keypoints=200)
    return Detector(backend, channels=1, descriptor_dim=256, config=config)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_true_batches_of_mixed_sizes_give_single_results(device: str) -> None:
    """On a GPU equal padded sizes share a call; the grouping must put every result in its place."""
    single = TorchBackend(load_weights(), device="cpu")
    batched = TorchBackend(load_weights(), device=device)
    batched.batched = True
    images = [
        PHOTOGRAPH[:120, :160],
        PHOTOGRAPH[100:203, 50:250],
        PHOTOGRAPH[200:317, 200:359],  # pads to the first one's size
        PHOTOGRAPH[300:420, 100:260],
        PHOTOGRAPH[30:37, 30:40],
    ]
    masks = [None, np.ones((103, 200), np.uint8), None, np.eye(120, 160, dtype=np.uint8), None]
    expected = make_detector(single).extract_batch(images, masks)
    found = make_detector(batched).extract_batch(images, masks)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.01)
        np.testing.assert_allclose(one.descriptors, other.descriptors, atol=1e-3)
        assert one.image_size == other.image_size


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bfloat16"),
        pytest.param("cuda", "float16", marks=CUDA.marks),
        pytest.param("cuda", "bfloat16", marks=CUDA.marks),
    ],
)
def test_lower_precision_is_close(device: str, precision: str) -> None:
    image = PHOTOGRAPH[None, 100:260, 100:340, None].copy()
    exact = TorchBackend(load_weights(), device="cpu").run(image)
    rough = TorchBackend(load_weights(), device=device, precision=precision).run(image)
    cosine = (exact[1] * rough[1]).sum(axis=-1)
    assert np.median(cosine) > 0.99
    assert np.median(np.abs(exact[0] - rough[0])) < 0.2


def test_half_precision_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="not for the CPU"):
        TorchBackend(load_weights(), device="cpu", precision="float16")


def test_auto_finds_a_device() -> None:
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


def test_description_tells_why() -> None:
    assert "chosen by device='auto'" in TorchBackend(load_weights()).describe()
    text = TorchBackend(load_weights(), device="cpu", precision="bfloat16").describe()
    assert "bfloat16 as asked" in text
