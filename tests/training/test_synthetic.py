import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from train.data.augment import PhotometricConfig, photometric
from train.data.shapes import SHAPES, Shape
from train.data.synthetic import SyntheticConfig, SyntheticShapes, draw_sample

SMALL = SyntheticConfig(size=(64, 80))


def test_sample_depends_on_seed_and_index_only() -> None:
    forward = [draw_sample(3, i, SMALL) for i in range(12)]
    backward = [draw_sample(3, i, SMALL) for i in reversed(range(12))][::-1]
    for first, second in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
    assert not np.array_equal(forward[0].image, draw_sample(4, 0, SMALL).image)


def test_loader_and_direct_access_agree() -> None:
    data = SyntheticShapes(0, SMALL)
    batch = next(iter(DataLoader(data, batch_size=3, sampler=range(5, 8))))
    for row in range(3):
        item = data[5 + row]
        assert (batch["image"][row] == item["image"]).all()
        assert (batch["targets"][row] == item["targets"]).all()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_shape_draws_inside_the_frame(name: str) -> None:
    config = SyntheticConfig(size=(64, 80), shapes=(name,))
    counts = []
    for index in range(10):
        sample = draw_sample(0, index, config)
        assert sample.image.shape == (64, 80)
        assert sample.image.dtype == np.uint8
        assert (sample.keypoints >= 0).all()
        assert (sample.keypoints <= (79, 63)).all()
        counts.append(len(sample.keypoints))
    assert (max(counts) == 0) == (name in ("ellipses", "nothing"))


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.8])
def test_drawn_edges_lie_where_the_vertices_say(offset: float) -> None:
    corners = np.array([[20, 12], [50, 12], [50, 44], [20, 44]]) + offset
    image = Shape([(corners, 255.0)]).draw(np.zeros((64, 80), np.uint8)).astype(float) / 255
    # A polygon's area runs between pixel centres; its centroid is the mean of its corners.
    assert abs(image.sum() - 30 * 32) < 0.03 * 30 * 32
    columns, rows = np.meshgrid(np.arange(80), np.arange(64))
    centroid = np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()
    np.testing.assert_allclose(centroid, corners.mean(axis=0), atol=0.08)


def test_vertices_are_corners_for_opencv_too() -> None:
    """Sub-pixel corners of the drawn checkerboards agree with the vertices."""
    config = SyntheticConfig(size=(120, 160), shapes=("checkerboard",), clean=True)
    errors = []
    for index in range(15):
        sample = draw_sample(1, index, config)
        points = sample.keypoints[
            ((sample.keypoints > 6) & (sample.keypoints < (153, 113))).all(axis=1)
        ]
        refined = cv2.cornerSubPix(
            sample.image,
            points.astype(np.float32)[:, None].copy(),
            (3, 3),
            (-1, -1),
            (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 30, 0.01),
        )[:, 0]
        errors.append(refined - points)
    error = np.concatenate(errors)
    assert len(error) > 100
    assert np.abs(np.median(error, axis=0)).max() < 0.05
    assert np.median(np.linalg.norm(error, axis=1)) < 0.3


def test_photometric_changes_do_not_move_anything() -> None:
    image = np.zeros((41, 41), np.uint8)
    image[20, 20] = 255
    image = cv2.GaussianBlur(image, (0, 0), 2)
    config = PhotometricConfig(
        probability=1.0, noise=0.0, speckle=0.0, shade=0.0, brightness=0.0, contrast=(1.0, 1.0)
    )
    changed = photometric(np.random.default_rng(0), image, config).astype(float)
    columns, rows = np.meshgrid(np.arange(41), np.arange(41))
    centroid = np.array([(changed * columns).sum(), (changed * rows).sum()]) / changed.sum()
    np.testing.assert_allclose(centroid, (20, 20), atol=0.05)


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="spiral"):
        SyntheticConfig(shapes=("spiral",))
