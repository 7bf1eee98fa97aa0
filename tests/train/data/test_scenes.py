"""Scenes of several planes: what is said to match shows the same."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.geometry import warp_points
from cv_superpoint.synthetic.photometric import PhotometricConfig
from train.data.feature_pairs import (
    UNKNOWN,
    UNMATCHED,
    FeaturePairs,
    FeaturesConfig,
    MatchPairConfig,
    extract_scenes,
    scene_files,
)
from train.data.scenes import ALONE, SceneConfig, SceneView, scene_views, true_matches

PHOTOGRAPHS = [
    cv2.resize(cv2.cvtColor(photo(), cv2.COLOR_RGB2GRAY), (384, 288))
    for photo in (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)
] + [cv2.resize(skimage.data.camera(), (320, 320))]
PLAIN = SceneConfig(views=3, photometric=PhotometricConfig(probability=0.0), covered=0.5)


def views(scene: int, config: SceneConfig = PLAIN) -> list[SceneView]:
    return scene_views(3, scene, len(PHOTOGRAPHS), PHOTOGRAPHS.__getitem__, config)


@pytest.mark.parametrize("scene", range(4))
def test_a_view_shows_its_layers_where_its_homographies_say(scene: int) -> None:
    for view in views(scene):
        shown = set(np.unique(view.regions)) - {ALONE}
        assert shown <= set(range(len(view.homographies)))
        assert view.image.shape == view.regions.shape
        y, x = np.nonzero(cv2.erode((view.regions == 0).astype(np.uint8), np.ones((9, 9))))
        if len(x) == 0:
            continue
        points = np.stack([x, y], axis=1)[:: max(1, len(x) // 200)]
        source = warp_points(np.linalg.inv(view.homographies[0]), points).astype(np.float32)
        photo = cv2.GaussianBlur(PHOTOGRAPHS[scene], (0, 0), 1.5)
        there = cv2.remap(photo, *source.T[:, None], cv2.INTER_LINEAR)[0].astype(float)
        image = cv2.GaussianBlur(view.image, (0, 0), 1.5)
        here = image[points[:, 1], points[:, 0]].astype(float)
        assert np.median(np.abs(here - there)) < 12


def test_the_same_seed_gives_the_same_views_and_another_gives_others() -> None:
    again, other = views(1), scene_views(4, 1, 4, PHOTOGRAPHS.__getitem__, PLAIN)
    for first, second in zip(views(1), again, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
    assert not np.array_equal(again[0].image, other[0].image)


def test_true_matches_agree_with_a_plain_loop() -> None:
    first, second = views(2)[:2]
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, (first.image.shape[1] - 1, first.image.shape[0] - 1), (300, 2))
    across = second.homographies[0] @ np.linalg.inv(first.homographies[0])
    nearby = warp_points(across, points0) + rng.normal(0, 2, points0.shape)
    h, w = second.image.shape
    kept = ((nearby > 0) & (nearby < (w - 1, h - 1))).all(axis=1)
    points1 = nearby[kept].astype(np.float32)
    points0 = points0.astype(np.float32)
    found0, found1 = true_matches(points0, points1, first, second)

    def layer(view: SceneView, point: np.ndarray) -> int:
        return int(view.regions[round(float(point[1])), round(float(point[0]))])

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        number = layer(first, a)
        if number == ALONE or layer(second, b) != number:
            return np.inf
        matrix = second.homographies[number] @ np.linalg.inv(first.homographies[number])
        there, back = (
            warp_points(matrix, a[None])[0],
            warp_points(np.linalg.inv(matrix), b[None])[0],
        )
        return float(max(np.hypot(*(there - b)), np.hypot(*(back - a))))

    right = 0
    for i, j in enumerate(found0):
        if j < 0:
            continue
        assert found1[j] == i
        # A keypoint at the edge of a layer may lie on either side of it once it is rounded.
        right += distance(points0[i], points1[j]) <= 3.0
    matched = int((found0 >= 0).sum())
    assert matched > 20
    assert right >= 0.97 * matched
    assert set(found0[found0 < 0]) <= {UNMATCHED, UNKNOWN}


def test_no_keypoints_are_no_error() -> None:
    first, second = views(0)[:2]
    none, one = np.empty((0, 2), np.float32), np.array([[5.0, 5.0]], np.float32)
    assert [len(rows) for rows in true_matches(none, one, first, second)] == [0, 1]
    assert true_matches(one, none, first, second)[0].tolist() == [UNMATCHED]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list:
    detector = SuperPointFeature2D.create(120, weights="superpoint-lite", **PINNED)
    config = FeaturesConfig(scenes=3, scene=PLAIN, keypoints=120)
    folder = tmp_path_factory.mktemp("features")
    extract_scenes(detector, PHOTOGRAPHS.__getitem__, len(PHOTOGRAPHS), folder, config, 0)
    return scene_files(folder, config)


def test_extraction_goes_on_where_it_stopped(files: list) -> None:
    kept, lost = files[0].read_bytes(), files[1].read_bytes()
    stamp = files[0].stat().st_mtime_ns
    files[1].unlink()
    detector = SuperPointFeature2D.create(120, weights="superpoint-lite", **PINNED)
    config = FeaturesConfig(scenes=3, scene=PLAIN, keypoints=120)
    folder = files[0].parent
    extract_scenes(detector, PHOTOGRAPHS.__getitem__, len(PHOTOGRAPHS), folder, config, 0)
    assert files[0].read_bytes() == kept
    assert files[0].stat().st_mtime_ns == stamp
    assert files[1].read_bytes() == lost


def test_pairs_are_padded_and_their_labels_name_each_other(files: list) -> None:
    pairs = FeaturePairs(0, files, PLAIN.views, MatchPairConfig(keypoints=100, fewest=30), 5)
    matched, rows = 0, []
    for index in range(30):
        item = pairs[index]
        again = pairs[index]
        assert all(torch.equal(item[name], again[name]) for name in item)
        rows.append(len(item["valid0"]))
        for side in "01":
            assert len(item[f"valid{side}"]) == rows[-1]
            count = int(item[f"valid{side}"].sum())
            assert item[f"valid{side}"][:count].all()
            assert (item[f"points{side}"][:count].abs() <= 1).all()
            lengths = item[f"descriptors{side}"][:count].norm(dim=1)
            torch.testing.assert_close(lengths, torch.ones(count), rtol=0, atol=5e-3)
            assert (item[f"matches{side}"][count:] == UNKNOWN).all()
        for i in torch.nonzero(item["matches0"] >= 0)[:, 0]:
            j = item["matches0"][i]
            assert item["valid1"][j]
            assert item["matches1"][j] == i
            matched += 1
    assert matched > 50
    # Pairs of one batch have the same number of rows, other batches have others.
    assert 30 <= min(rows) < max(rows) <= 100
    assert all(len(set(rows[k : k + 5])) == 1 for k in range(0, 30, 5))


def test_unrelated_pairs_match_nowhere(files: list) -> None:
    config = MatchPairConfig(keypoints=100, fewest=30, unrelated=1.0)
    pairs = FeaturePairs(0, files, PLAIN.views, config, 1)
    for index in range(4):
        assert (pairs[index]["matches0"] < 0).all()
