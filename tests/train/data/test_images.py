from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from cv_superpoint.geometry import warp_image
from cv_superpoint.pictures.arrays import to_channels
from train.data.images import ImageConfig, load_enlarged, load_image, to_tensor
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs
from train.data.photographs import look_at


@pytest.mark.parametrize(
    ("colour", "shape"), [(False, (96, 136)), (True, (96, 136, 3))], ids=["grey", "colour"]
)
def test_photographs_are_cut_to_working_size(
    tmp_path: Path, bgr: np.ndarray, colour: bool, shape: tuple[int, ...]
) -> None:
    sizes = ImageConfig(shorter_side=96, longest_side=140, colour=colour)
    for name, picture in (("colour.png", bgr), ("grey.png", bgr[..., 1]), ("alpha.png", None)):
        path = tmp_path / name
        alpha = np.dstack([bgr, np.full(bgr.shape[:2], 200, np.uint8)])
        cv2.imwrite(str(path), alpha if picture is None else picture)
        # 240 x 320 becomes 96 x 128; 240 x 400 would be cut.
        assert load_image(path, sizes).shape == (96, 128, *shape[2:])
    wide = tmp_path / "wide.png"
    cv2.imwrite(str(wide), np.hstack([bgr, bgr]))
    assert load_image(wide, sizes).shape == shape
    assert len(look_at(tmp_path, tmp_path / "seen.json", tmp_path)) == 4


def test_colour_is_what_inference_feeds_the_network(tmp_path: Path, bgr: np.ndarray) -> None:
    """A network trained on colour must see the channels in the order that it will see later."""
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), bgr)
    sizes = ImageConfig(shorter_side=240, longest_side=320, colour=True)
    image = load_image(path, sizes)
    np.testing.assert_array_equal(image, to_channels(bgr, 3))
    tensor = to_tensor(image)
    assert tensor.shape == (3, 240, 320)
    # The astronaut's suit is orange: red first.
    assert tensor[0].float().mean() > tensor[2].float().mean() + 10


@pytest.mark.parametrize("zoom", [1.0, 1.25, 1.5, 2.0])
@pytest.mark.parametrize("shape", [(331, 517), (517, 331), (240, 320)])
def test_a_larger_picture_shows_the_same_place(
    tmp_path: Path, shape: tuple[int, int], zoom: float
) -> None:
    photo = cv2.resize(skimage.data.camera(), shape[::-1], interpolation=cv2.INTER_AREA)
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), photo)
    sizes = ImageConfig(shorter_side=200, longest_side=260)
    base = load_image(path, sizes)
    larger, frame = load_enlarged(path, sizes, zoom)
    np.testing.assert_allclose(np.diag(frame)[:2], zoom, rtol=0.005)
    assert np.abs(np.array(larger.shape) - np.array(base.shape) * zoom).max() <= 8
    back = warp_image(
        cv2.GaussianBlur(larger, (0, 0), 0.3 * zoom), np.linalg.inv(frame), base.shape
    )
    inner = (slice(10, -10), slice(10, -10))
    images = [image[inner].astype(np.float64) for image in (base, back)]
    (x, y), response = cv2.phaseCorrelate(*images)
    assert response > 0.8
    assert max(abs(x), abs(y)) < 0.05
    if zoom == 1:
        np.testing.assert_array_equal(larger, base)
        np.testing.assert_allclose(frame, np.eye(3), atol=1e-12)


def test_coloured_pairs(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2BGR))
    keypoints = np.random.default_rng(0).uniform(0, 119, (50, 2)).astype(np.float32)
    images = [LabelledImage(path, keypoints)]
    config = PairConfig(size=(96, 128))
    items = [
        WarpedPairs(0, images, ImageConfig(shorter_side=120, colour=colour), config)[2]
        for colour in (False, True)
    ]
    assert items[0]["image0"].shape == (1, 96, 128)
    assert items[1]["image0"].shape == items[1]["image1"].shape == (3, 96, 128)
    assert items[1]["image0"].dtype == torch.uint8


def test_unreadable_photograph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        load_image(path, ImageConfig())
