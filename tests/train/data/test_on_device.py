"""Pairs made in batches by torch against those made one by one by numpy and OpenCV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch.utils.data import DataLoader

from cv_superpoint.geometry import (
    HomographyConfig,
    sample_homographies,
    sample_homography,
    valid_mask,
    warp_image,
    warp_points,
)
from cv_superpoint.synthetic.photometric import PhotometricConfig
from train.data import labels, on_device
from train.data.images import ImageConfig, load_image
from train.data.on_device import DevicePairs, ViewBatch
from train.data.pairs import LabelledImage, PairConfig, WarpedPairs

SIZE = (96, 128)
SIZES = ImageConfig(shorter_side=120, longest_side=200)
QUIET = PairConfig(size=SIZE, photometric=PhotometricConfig(probability=0.0))
STILL = HomographyConfig(scale=(1, 1), rotation=0, corner_jitter=0, translation=0)
STRONG = HomographyConfig(scale=(0.4, 1.5), rotation=3.1, corner_jitter=0.2, translation=0.3)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Photographs of three sizes, with random keypoints; one has none."""
    folder = tmp_path_factory.mktemp("photographs")
    images = []
    for k, name in enumerate(("astronaut", "coffee", "chelsea", "rocket")):
        photo = cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2BGR)
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), np.rot90(photo) if k == 1 else photo)
        keypoints = np.random.default_rng(k).uniform(0, 119, (0 if k == 3 else 80 + k, 2))
        images.append(LabelledImage(path, keypoints.astype(np.float32)))
    return images


@pytest.mark.parametrize("colour", [False, True])
def test_batch_is_what_the_loader_collates(photographs: list[LabelledImage], colour: bool) -> None:
    sizes = ImageConfig(shorter_side=120, longest_side=200, colour=colour)
    config = PairConfig(size=SIZE)
    loader = DataLoader(WarpedPairs(0, photographs, sizes, config), 5, sampler=range(5))
    expected = next(iter(loader))
    batch = DevicePairs(0, photographs, sizes, config, "cpu").batch(0, 5)
    assert batch.keys() == expected.keys()
    for name, value in expected.items():
        assert batch[name].shape == value.shape, name
        assert batch[name].dtype == value.dtype, name
    for name in "01":
        torch.testing.assert_close(batch[f"targets{name}"].sum(dim=1), torch.ones(5, 12, 16))


@pytest.mark.parametrize("colour", [False, True])
def test_a_share_of_the_pairs_are_drawings(photographs: list[LabelledImage], colour: bool) -> None:
    sizes = replace(SIZES, colour=colour)
    alone, mixed = replace(QUIET, drawings=1.0), replace(QUIET, drawings=0.3)
    for config, fewest, most in ((alone, 0, 0), (mixed, 17, 39), (QUIET, 40, 40)):
        loader = DataLoader(WarpedPairs(1, photographs, sizes, config), 40, sampler=range(40))
        on_device = DevicePairs(1, photographs, sizes, config, "cpu").batch(0, 40)
        for batch in (next(iter(loader)), on_device):
            # Descriptors learn from photographs only, the detector from every pair.
            described = batch["visible"].any(dim=1)
            assert fewest <= described.sum() <= most
            labelled = batch["targets0"][:, :64].sum(dim=(1, 2, 3)) > 0
            assert labelled.sum() > 20


def test_vertices_of_drawings_lie_on_corners(photographs: list[LabelledImage]) -> None:
    config = replace(QUIET, drawings=1.0, mild=STILL, strong=STILL)
    pairs = WarpedPairs(2, photographs, SIZES, config)
    strengths, ordinary = [], []
    for index in range(30):
        view = pairs.views(index)[0]
        response = cv2.cornerMinEigenVal(view.image, 3)
        near = cv2.dilate(response, np.ones((3, 3), np.uint8))
        x, y = np.rint(view.keypoints).astype(int).T
        strengths.extend(near[y, x])
        ordinary.extend(near.ravel())
    assert np.median(strengths) > np.quantile(ordinary, 0.95)


def test_labels_lie_on_their_corners_at_every_zoom(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:400:25, 0:600:25].reshape(2, -1) + rng.uniform(8, 16, (2, 16 * 24))
    picture = np.zeros((400, 600), np.float32)
    np.add.at(picture, (y.round().astype(int), x.round().astype(int)), 1)
    picture = cv2.GaussianBlur(picture, (0, 0), 3)
    path = tmp_path / "dots.png"
    cv2.imwrite(str(path), np.rint(picture / picture.max() * 255).astype(np.uint8))
    # A third of the size; 6 px are cut off at either end.
    sizes = ImageConfig(shorter_side=136, longest_side=192)
    factor = 136 / 400
    keypoints = np.stack([(x.round() + 0.5) * factor - 0.5 - 6, (y.round() + 0.5) * factor - 0.5])
    images = [LabelledImage(path, keypoints.T.astype(np.float32))]
    config = replace(QUIET, mild=STILL, strong=STILL, zooms=(1.0, 1.5, 2.0), size=(96, 96))
    singles = DataLoader(WarpedPairs(0, images, sizes, config), 12, sampler=range(12))
    on_device = DevicePairs(0, images, sizes, config, "cpu").batch(0, 12)
    for batch in (next(iter(singles)), on_device):
        for index in range(12):
            image = batch["image0"][index, 0].numpy()
            targets = batch["targets0"][index, :-1].numpy()
            strongest = targets.max(axis=0) > 0.3
            cells = np.argwhere(strongest)
            channel = targets.argmax(axis=0)[strongest]
            rows, columns = cells[:, 0] * 8 + channel // 8, cells[:, 1] * 8 + channel % 8
            # Dots are 8.5 px apart at the smallest size, 17 px at the largest.
            assert len(cells) > (60, 30, 15)[index % 3]
            dilated = cv2.dilate(image, np.ones((7, 7), np.uint8))[rows, columns]
            assert np.mean(image[rows, columns] > 0.75 * dilated) > 0.97
            assert np.median(image[rows, columns]) > 150


def test_batches_depend_on_seed_step_and_rank_only(photographs: list[LabelledImage]) -> None:
    config = PairConfig(size=SIZE)
    pairs = DevicePairs(3, photographs, SIZES, config, "cpu")
    later = pairs.batch(7, 3)
    pairs.batch(0, 3)
    again = next(DevicePairs(3, photographs, SIZES, config, "cpu").batches(7, 3))
    for name, value in later.items():
        assert torch.equal(value, again[name]), name
    others = [DevicePairs(4, photographs, SIZES, config, "cpu").batch(7, 3), pairs.batch(8, 3)]
    others.append(
        DevicePairs(3, photographs, SIZES, config, "cpu", rank=1, world_size=2).batch(7, 3)
    )
    assert not any(torch.equal(later["image0"], other["image0"]) for other in others)


def test_every_photograph_comes_once_an_epoch(photographs: list[LabelledImage]) -> None:
    """Images without any warp are cut-outs, which show the photograph that they come from."""
    config = PairConfig(size=(120, 120), mild=STILL, strong=STILL, photometric=QUIET.photometric)
    seen = []
    for rank in (0, 1):
        pairs = DevicePairs(1, photographs, SIZES, config, "cpu", rank=rank, world_size=2)
        for image in pairs.batch(0, 2)["image0"][:, 0].numpy():
            scores = [
                cv2.matchTemplate(load_image(photo.path, SIZES)[8:-8], image[16:-16, 8:-8], 5)
                for photo in photographs
            ]
            seen.append(int(np.argmax([score.max() for score in scores])))
    assert sorted(seen) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_warp_is_opencvs(name: str) -> None:
    photo = cv2.cvtColor(getattr(skimage.data, name)()[:200, :280], cv2.COLOR_RGB2GRAY)
    # OpenCV rounds positions to 1/32 px, so the comparison needs soft edges.
    photo = cv2.GaussianBlur(photo, (0, 0), 3)
    homographies = sample_homographies(np.random.default_rng(0), SIZE, STRONG, 6)
    place = torch.zeros(6, 1, 220, 300, dtype=torch.uint8)
    place[:, 0, :200, :280] = torch.from_numpy(photo)
    inverse = np.linalg.inv(homographies)
    depth = homographies @ [(280 - 1) / 2, (200 - 1) / 2, 1]
    inverse *= depth[:, 2, None, None]
    sizes = torch.tensor([[200.0, 280.0]]).double().expand(6, 2)
    warped, valid = on_device.warp_batch(place, sizes, torch.from_numpy(inverse), SIZE, 3.0)
    for k, homography in enumerate(homographies):
        expected = warp_image(photo, homography, SIZE).astype(float)
        difference = np.abs(warped[k, 0].numpy() - expected)
        assert np.percentile(difference, 99.9) <= 1
        np.testing.assert_array_equal(
            valid[k].numpy(), valid_mask(homography, photo.shape, SIZE, 3.0)
        )
    assert 0.2 < valid.float().mean() < 0.95


def test_points_are_warped_as_by_numpy() -> None:
    rng = np.random.default_rng(1)
    homographies = sample_homographies(rng, SIZE, STRONG, 8) * rng.choice([-2.0, 1.0], (8, 1, 1))
    homographies[0, 2, 0] = -0.02
    points = rng.uniform(-50, 200, (8, 30, 2))
    result = on_device.transform(torch.from_numpy(homographies), torch.from_numpy(points))
    expected = np.stack([warp_points(h, p) for h, p in zip(homographies, points, strict=True)])
    expected[np.isinf(expected)] = np.nan  # what the batch has where numpy has infinity
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9)
    assert np.isnan(expected[0]).any()


@pytest.mark.parametrize("soft", [True, False])
def test_targets_are_those_of_numpy(soft: bool) -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 1, (3, 40, 2)) * (SIZE[1] - 1, SIZE[0] - 1)
    kept = rng.random((3, 40)) < 0.8
    view = ViewBatch(
        torch.empty(0), torch.empty(0), torch.from_numpy(points), torch.from_numpy(kept)
    )
    generator = torch.Generator().manual_seed(0)
    label = on_device.one_per_cell(view, SIZE, generator)
    targets = on_device.cell_targets(view.points, label, SIZE, soft=soft).numpy()
    for k in range(3):
        chosen = points[k][label[k].numpy()]
        every = points[k][kept[k]]
        occupied = {tuple(p) for p in (np.round(every) // 8).astype(int)}
        assert len(chosen) == len(occupied)
        assert {tuple(p) for p in (np.round(chosen) // 8).astype(int)} == occupied
        expected = labels.labels_from_points(rng, chosen, SIZE, soft=soft)
        np.testing.assert_allclose(targets[k], expected, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_a_cells_label_is_drawn_by_lot() -> None:
    points = torch.tensor([[[3.0, 3.0], [5.0, 5.0]]]).double().expand(400, 2, 2)
    view = ViewBatch(torch.empty(0), torch.empty(0), points, torch.ones(400, 2, dtype=torch.bool))
    label = on_device.one_per_cell(view, SIZE, torch.Generator().manual_seed(0))
    assert (label.sum(dim=1) == 1).all()
    assert 150 < int(label[:, 0].sum()) < 250


def test_labels_lie_on_the_structure_they_mark(tmp_path: Path) -> None:
    """Dots in a picture, labelled: the centroid of the soft target is that of the warped dot."""
    canvas = np.zeros((160, 200), np.float32)
    dots = np.array([[60.3, 50.7], [140.2, 60.1], [70.5, 110.4], [130.8, 120.2]])
    rows, columns = np.mgrid[:160, :200]
    for x, y in dots:
        canvas += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    path = tmp_path / "dots.png"
    cv2.imwrite(str(path), canvas.clip(0, 255).astype(np.uint8))
    warp = HomographyConfig(scale=(0.9, 1.1), rotation=1.0, corner_jitter=0.05, translation=0.05)
    config = PairConfig(
        size=(160, 200), mild=warp, strong=warp, photometric=QUIET.photometric, border=0.0
    )
    sizes = ImageConfig(shorter_side=160, longest_side=200)
    images = [LabelledImage(path, dots.astype(np.float32))]
    batch = DevicePairs(0, images, sizes, config, "cpu").batch(0, 6)
    errors = []
    for k in range(6):
        heat = batch["targets0"][k, :-1].reshape(8, 8, 20, 25).permute(2, 0, 3, 1)
        heat = heat.reshape(160, 200).numpy()
        image = batch["image0"][k, 0].numpy().astype(float)
        count, _, _, where = cv2.connectedComponentsWithStats((heat > 0).astype(np.uint8))
        for x, y in where[1:count]:
            if not (12 < x < 187 and 12 < y < 147):
                continue
            near = np.s_[int(y) - 9 : int(y) + 11, int(x) - 9 : int(x) + 11]
            centres = [
                (weights[near] * grid[near]).sum() / weights[near].sum()
                for weights in (heat, image)
                for grid in (columns, rows)
            ]
            errors.append(np.array(centres[:2]) - centres[2:])
    assert len(errors) > 12
    assert np.abs(errors).max() < 0.15
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_corresponding_points_show_the_same_place(
    photographs: list[LabelledImage], seed: int
) -> None:
    batch = DevicePairs(seed, photographs, SIZES, QUIET, "cpu").batch(0, 4)
    for k in range(4):
        points0, points1 = batch["points0"][k].numpy(), batch["points1"][k].numpy()
        visible = batch["visible"][k].numpy()
        assert visible.sum() > 10
        homography = batch["homography"][k].double().numpy()
        expected = warp_points(homography, points0[visible])
        np.testing.assert_allclose(points1[visible], expected, atol=0.01)
        assert (np.round(points0[visible]) < (SIZE[1], SIZE[0])).all()
        cells = np.round(points0).astype(int)[visible] // 8
        places = np.flatnonzero(visible)
        np.testing.assert_array_equal(cells[:, 1] * 16 + cells[:, 0], places)
    # A cell with a label is described at its label.
    heat = batch["targets0"][:, :-1].sum(dim=1).flatten(1) > 0.99
    fractions = batch["points0"][heat & batch["visible"]]
    assert len(fractions) > 5


def test_only_points_valid_in_both_images_are_visible() -> None:
    """Image 0 is valid in its upper half, image 1 in its left half, the points stay in place."""
    masks = [torch.zeros(1, *SIZE, dtype=torch.bool) for _ in range(2)]
    masks[0][:, :48], masks[1][:, :, :64] = True, True
    nowhere = torch.zeros(1, 1, 2).double(), torch.zeros(1, 1, dtype=torch.bool)
    views = [ViewBatch(torch.empty(0), mask, *nowhere) for mask in masks]
    still = torch.eye(3).double()[None]
    generator = torch.Generator().manual_seed(0)
    points, there, visible = on_device.correspondences(*views, still, SIZE, generator)
    torch.testing.assert_close(points, there)
    x, y = points[visible].round().T
    assert ((x < 64) & (y < 48)).all()
    # Six by eight cells; those at the frame's border may have drawn a point just outside.
    assert 35 <= int(visible.sum()) <= 48


def test_images_agree_with_their_homography(photographs: list[LabelledImage]) -> None:
    """Warping image 0 by the item's homography gives image 1 where both show the photograph."""
    mild = HomographyConfig(scale=(1.0, 1.3), rotation=0.3, corner_jitter=0.05)
    config = PairConfig(size=SIZE, mild=mild, strong=mild, photometric=QUIET.photometric)
    batch = DevicePairs(0, photographs, SIZES, config, "cpu").batch(0, 4)
    for k in range(4):
        first, second = (batch[f"image{i}"][k, 0].numpy() for i in (0, 1))
        homography = batch["homography"][k].double().numpy()
        valid = batch["valid1"][k].numpy().repeat(8, axis=0).repeat(8, axis=1)
        valid &= valid_mask(homography, SIZE, SIZE, 2)
        predicted = warp_image(first, homography, SIZE).astype(float)
        difference = np.abs(predicted - second)[valid]
        assert valid.sum() > 1000
        # Twice interpolated against once: edges differ a little, displaced ones would a lot.
        assert difference.mean() < 5
        shifted = np.abs(np.roll(predicted, (2, 2), (0, 1)) - second)[valid]
        assert difference.mean() < 0.6 * shifted.mean()


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    """Stripes too fine to be seen at the smaller scale become grey, not coarser stripes."""
    photo = np.tile(np.uint8([40, 210]), (240, 160))
    cv2.imwrite(str(tmp_path / "stripes.png"), photo)
    images = [LabelledImage(tmp_path / "stripes.png", np.zeros((0, 2), np.float32))]
    sizes = ImageConfig(shorter_side=240, longest_side=320)
    smaller = HomographyConfig(scale=(0.45, 0.55), rotation=0.3, corner_jitter=0.05)
    config = PairConfig(size=SIZE, mild=smaller, strong=smaller, photometric=QUIET.photometric)
    by_worker = [WarpedPairs(0, images, sizes, config)[k] for k in range(4)]
    on_device = DevicePairs(0, images, sizes, config, "cpu").batch(0, 4)
    aliased = warp_image(photo, np.diag([0.45, 0.45, 1.0]), SIZE).std()
    for k in range(4):
        for item in (by_worker[k], {name: value[k] for name, value in on_device.items()}):
            valid = item["valid0"].numpy().repeat(8, axis=0).repeat(8, axis=1)
            grey = item["image0"][0].numpy()[valid]
            assert grey.std() < 0.3 * aliased
            assert abs(grey.mean() - 125) < 3


def test_homographies_are_distributed_alike() -> None:
    rng = np.random.default_rng(0)
    config = PairConfig().strong
    many = sample_homographies(rng, SIZE, config, 3000)
    singles = np.stack([sample_homography(rng, SIZE, config) for _ in range(3000)])
    corners = np.array([[0.0, 0], [127, 0], [127, 95], [63.5, 47.5]])
    warped = [np.stack([warp_points(h, corners) for h in hs]) for hs in (many, singles)]
    for statistic in (np.mean, np.std):
        first, second = (statistic(w, axis=0) for w in warped)
        np.testing.assert_allclose(first, second, atol=4)
