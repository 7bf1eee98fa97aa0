import numpy as np
import pytest

from cv_superpoint.geometry import warp_points
from cv_superpoint.synthetic.photometric import PhotometricConfig
from train.data.pairs import PairConfig, correspondences, make_pair

QUIET = PairConfig(size=(96, 128), photometric=PhotometricConfig(probability=0.0))


def smooth_photo() -> np.ndarray:
    """Grey levels that tell the place: a slope, so that points can be compared by value."""
    rows, columns = np.mgrid[:160, :200]
    return (rows * 0.6 + columns * 0.7).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_matching_points_show_the_same_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(10, 150, (40, 2)).astype(np.float32)
    first, second = make_pair(rng, smooth_photo(), keypoints, QUIET)
    points0, points1, visible = correspondences(rng, first, second)
    assert points0.shape == points1.shape == (12 * 16, 2)
    assert visible.sum() > 20
    values = []
    for view, points in ((first, points0), (second, points1)):
        x, y = np.round(points[visible]).astype(int).T
        values.append(view.image[y, x].astype(float))
    assert np.abs(values[0] - values[1]).max() < 6


def test_labels_follow_the_warp() -> None:
    rng = np.random.default_rng(1)
    keypoints = rng.uniform(10, 150, (40, 2)).astype(np.float32)
    for view in make_pair(rng, smooth_photo(), keypoints, QUIET):
        expected = warp_points(view.homography, keypoints)
        distances = np.linalg.norm(view.keypoints[:, None] - expected[None], axis=2).min(axis=1)
        assert len(view.keypoints) > 3
        assert distances.max() < 1e-6


def test_a_cells_point_is_its_keypoint() -> None:
    rng = np.random.default_rng(3)
    keypoints = np.array([[80.0, 80.0], [100.0, 60.0]], dtype=np.float32)
    first, second = make_pair(rng, smooth_photo(), keypoints, QUIET)
    points0, _, visible = correspondences(rng, first, second)
    for keypoint in first.keypoints:
        distance = np.linalg.norm(points0 - keypoint, axis=1).min()
        assert distance < 1e-3 or not visible.all()
