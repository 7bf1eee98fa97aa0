from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from cv_superpoint import backends
from cv_superpoint.backends import cache
from cv_superpoint.decoding.tensors import logits_to_heatmap
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.network.weights import NetworkWeights
from train.data.images import ImageConfig, load_image
from train.data.photographs import look_at
from train.stages.adapt import (
    AdaptConfig,
    adapt,
    aggregate,
    aggregate_on_device,
    cache_folder,
    heatmap_function,
    label_file,
    median_threshold,
    read_labels,
    sample_views,
)

CONFIG = AdaptConfig(images=ImageConfig(shorter_side=64, longest_side=96), views=3)


def brightness(images: np.ndarray) -> list[np.ndarray]:
    """A detector that fires where the image is bright: it can be checked by eye."""
    return [image.astype(np.float32) / 255 for image in images]


def test_heatmaps_come_back_to_where_they_were() -> None:
    image = np.zeros((96, 128), np.uint8)
    points = np.array([[40, 30], [90, 60], [64, 48]])
    image[points[:, 1], points[:, 0]] = 255
    image = cv2.GaussianBlur(image, (0, 0), 1.5)
    image = (image.astype(np.float32) / image.max() * 255).astype(np.uint8)
    config = AdaptConfig(views=30)
    views = sample_views(np.random.default_rng(0), (96, 128), config)
    heatmap = aggregate(image, views, brightness, config)
    for x, y in points:
        patch = heatmap[y - 5 : y + 6, x - 5 : x + 6]
        rows, columns = np.mgrid[-5:6, -5:6]
        offset = np.array([(patch * columns).sum(), (patch * rows).sum()]) / patch.sum()
        assert np.abs(offset).max() < 0.1


def test_reflected_borders_do_not_count() -> None:
    image = np.full((64, 96), 255, np.uint8)
    config = AdaptConfig(views=20)
    heatmap = aggregate(
        image, sample_views(np.random.default_rng(0), (64, 96), config), brightness, config
    )
    np.testing.assert_allclose(heatmap[4:-4, 4:-4], 1, atol=0.02)
    assert heatmap[:3].max() == 0


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photographs" / "deep"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "camera.png"), data.camera())
    cv2.imwrite(str(folder / "coffee.JPG"), data.coffee()[..., ::-1])
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    return look_at(tmp_path / "photographs", tmp_path / "seen.json", tmp_path).paths


def test_labels_are_cached_by_weights_settings_and_content(
    tmp_path: Path, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = SuperPointNet().eval()
    folder = adapt(NetworkWeights.of(net), photographs, tmp_path, CONFIG, seed=0)
    files = {path: label_file(folder, path).stat().st_mtime_ns for path in photographs}
    assert len(files) == 2
    monkeypatch.setattr("train.stages.adapt.load_image", None)  # nothing may be labelled again
    assert adapt(NetworkWeights.of(net), photographs, tmp_path, CONFIG, seed=0) == folder
    assert files == {path: label_file(folder, path).stat().st_mtime_ns for path in photographs}
    assert cache_folder(tmp_path, NetworkWeights.of(SuperPointNet()), CONFIG, 0) != folder
    assert cache_folder(tmp_path, NetworkWeights.of(net), AdaptConfig(views=4), 0) != folder


def test_reading_without_labels_says_what_to_do(tmp_path: Path, photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="run adapt"):
        read_labels(tmp_path, photographs, CONFIG)


def test_threshold_gives_the_wanted_median() -> None:
    rows = [np.linspace(1, 0, n, dtype=np.float32) for n in (50, 100, 200)]
    threshold = median_threshold(rows, 40)
    assert np.median([(row >= threshold).sum() for row in rows]) == 40


def test_photographs_are_grey_and_fit_the_cells(photographs: list[Path]) -> None:
    for path in photographs:
        image = load_image(path, CONFIG.images)
        assert image.shape[0] % 8 == 0
        assert image.shape[1] % 8 == 0
        assert min(image.shape) == 64
        assert image.dtype == np.uint8


def test_empty_folder_and_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no picture in this folder"):
        look_at(tmp_path, tmp_path / "seen.json", tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.png"):
        load_image(tmp_path / "broken.png", CONFIG.images)


def test_damaged_label_is_made_anew(
    tmp_path: Path, photographs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    net = SuperPointNet().eval()
    folder = adapt(NetworkWeights.of(net), photographs, tmp_path, CONFIG, seed=0)
    good = {path: np.load(label_file(folder, path)) for path in photographs}
    for path, content in zip(photographs, (b"", b"\x93NUMPY cut short"), strict=True):
        label_file(folder, path).write_bytes(content)
    with pytest.raises(ValueError, match="none of the 2 images is labelled"):
        read_labels(folder, photographs, CONFIG)
    assert "is damaged and does not count" in caplog.text
    adapt(NetworkWeights.of(net), photographs, tmp_path, CONFIG, seed=0)
    for path in photographs:
        np.testing.assert_array_equal(np.load(label_file(folder, path)), good[path])


@pytest.mark.parametrize(
    ("colour", "precision", "tolerance"),
    [(False, "float32", 1e-4), (True, "float32", 1e-4), (False, "bfloat16", 0.02)],
)
def test_aggregation_on_the_device_is_the_same(
    colour: bool, precision: str, tolerance: float
) -> None:
    torch.manual_seed(0)
    net = SuperPointNet(NetworkConfig(in_channels=3 if colour else 1)).eval()
    image = data.coffee()[:96, :128] if colour else data.camera()[200:296, 200:328]
    config = AdaptConfig(views=7, batch_size=3)
    views = sample_views(np.random.default_rng(0), (96, 128), config)
    expected = aggregate(image, views, heatmap_function(NetworkWeights.of(net), precision), config)
    result = aggregate_on_device(image, views, net, config, precision)
    np.testing.assert_array_equal(result > 0, expected > 0)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=2e-5)


def test_compiled_network_of_other_weights_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    with_openvino = backends.choose(backend="openvino", device="cpu", precision="float32")
    monkeypatch.setattr("train.stages.adapt.choose", lambda **_: with_openvino)
    image = data.camera()[None, 200:264, 200:288]
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = SuperPointNet(NetworkConfig()).eval()
        with torch.inference_mode():
            logits = net(torch.from_numpy(image.copy())[None] / 255)[0]
        expected = logits_to_heatmap(logits)[0].numpy()
        found = heatmap_function(NetworkWeights.of(net), "float32")(image)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
