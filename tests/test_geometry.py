import cv2
import numpy as np
import pytest

from cv_superpoint.geometry import (
    HomographyConfig,
    inside,
    resize_matrix,
    sample_homography,
    valid_mask,
    warp_image,
    warp_points,
)

SIZE = (96, 128)


def dot_image(x: float, y: float) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.0**2)).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    return np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()


@pytest.mark.parametrize("seed", range(8))
def test_points_and_images_move_together(seed: int) -> None:
    config = HomographyConfig(scale=(0.8, 1.2), rotation=0.5, corner_jitter=0.05, flip=0.5)
    homography = sample_homography(np.random.default_rng(seed), SIZE, config)
    warped = warp_image(dot_image(60.3, 45.8), homography, SIZE, border=cv2.BORDER_CONSTANT)
    expected = warp_points(homography, np.array([[60.3, 45.8]]))[0]
    assert np.abs(centroid(warped) - expected).max() < 0.1


def test_resize_moves_pixel_edges_not_centres() -> None:
    half = cv2.resize(dot_image(60.0, 44.0), (64, 48), interpolation=cv2.INTER_AREA)
    expected = warp_points(resize_matrix(0.5, 0.5), np.array([[60.0, 44.0]]))[0]
    np.testing.assert_allclose(expected, (29.75, 21.75))
    assert np.abs(centroid(half) - expected).max() < 0.01


def test_sampling_depends_on_the_generator_only() -> None:
    config = HomographyConfig()
    first, second = (sample_homography(np.random.default_rng(5), SIZE, config) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_valid_mask_is_where_points_come_from(scale: float) -> None:
    config = HomographyConfig(scale=(0.6, 0.8), rotation=1.0, corner_jitter=0.15)
    homography = sample_homography(np.random.default_rng(2), SIZE, config)
    mask = valid_mask(homography * scale, SIZE, SIZE, border=3)
    columns, rows = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    source = warp_points(np.linalg.inv(homography), pixels)
    np.testing.assert_array_equal(mask.ravel(), inside(source, SIZE, 3))
    assert 0.1 < mask.mean() < 0.9


def test_points_behind_the_camera_are_infinite() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]])
    points = warp_points(homography, np.array([[10.0, 5.0], [100.0, 5.0]]))
    assert np.isfinite(points[0]).all()
    assert np.isinf(points[1]).all()


def test_impossible_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be"):
        HomographyConfig(scale=(1.2, 0.8))
