from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from torch.utils.data import DataLoader

from cv_superpoint.geometry import HomographyConfig, sample_homography
from cv_superpoint.synthetic.photometric import (
    PhotometricConfig,
    cast_shadow,
    compress,
    few_photons,
    photometric,
)
from cv_superpoint.synthetic.polygons import Shape, shrink
from cv_superpoint.synthetic.samples import SyntheticConfig, draw_sample
from cv_superpoint.synthetic.shapes import SHAPES
from train.data.synthetic import SyntheticShapes

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
    assert (max(counts) == 0) == (name in ("ellipses", "noise"))


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


def test_workers_draw_the_same_samples() -> None:
    data = SyntheticShapes(2, SMALL)
    loader = DataLoader(data, batch_size=4, sampler=range(8), num_workers=2)
    for number, batch in enumerate(loader):
        for row in range(4):
            item = data[4 * number + row]
            assert (batch["image"][row] == item["image"]).all()
            assert (batch["targets"][row] == item["targets"]).all()


CORNERS = ("checkerboard", "polygon", "polygons", "overlaps", "house", "cube", "stripes")


@pytest.mark.parametrize("name", CORNERS)
def test_vertices_are_not_half_a_pixel_off(name: str) -> None:
    """Whatever the shape and its direction, OpenCV's corners lie around the vertices."""
    config = SyntheticConfig(shapes=(name,), clean=True)
    errors = []
    for index in range(60):
        sample = draw_sample(11, index, config)
        points = sample.keypoints
        if not len(points):
            continue
        gaps = np.linalg.norm(points[:, None] - points, axis=2) + 99 * np.eye(len(points))
        inner = ((points > 6) & (points < (153, 113))).all(axis=1)
        points = points[(gaps.min(axis=1) > 7) & inner]
        if not len(points):
            continue
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 30, 0.01)
        start = points.astype(np.float32)[:, None].copy()
        errors.append(cv2.cornerSubPix(sample.image, start, (3, 3), (-1, -1), stop)[:, 0] - points)
    error = np.concatenate(errors)
    error = error[np.linalg.norm(error, axis=1) < 2]
    assert len(error) > 100
    assert np.median(np.linalg.norm(error, axis=1)) < 0.4
    # Corners of all directions: what a direction adds cancels, an offset of the drawing does not.
    assert np.abs(error.mean(axis=0)).max() < 0.08


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"noise"}))
def test_drawing_is_the_exact_coverage(name: str) -> None:
    """Against a hard fill at sixteen times the size, averaged."""
    size, scale = (64, 80), 16
    errors = []
    for index in range(6):
        rng = np.random.default_rng(index)
        homography = sample_homography(rng, size, HomographyConfig(rotation=np.pi))
        shape = SHAPES[name](rng, size, 100.0).warped(homography)
        large = np.full((size[0] * scale, size[1] * scale), 100, np.uint8)
        for polygon, shade in shape.fills:
            # A hard fill holds every pixel that its outline touches: half a pixel too much.
            outline = shrink((polygon + 0.5) * scale - 0.5, [len(polygon)], 0.5)
            cv2.fillPoly(large, [np.rint(outline * 256).astype(np.int32)], (shade,), cv2.LINE_8, 8)
        exact = cv2.resize(large.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        drawn = shape.draw(np.full(size, 100, np.uint8)).astype(np.float32)
        spread = cv2.dilate(exact, np.ones((3, 3))) - cv2.erode(exact, np.ones((3, 3)))
        errors.append((drawn - exact)[spread > 5])
    error = np.concatenate(errors)
    assert len(error) > 100
    assert np.abs(error).mean() < 4
    assert abs(error.mean()) < 1


def test_what_is_covered_is_no_keypoint() -> None:
    """A vertex below a later polygon changes nothing in the drawing, so it must not be a point."""
    hidden = 0
    for seed in range(60):
        shape = SHAPES["overlaps"](np.random.default_rng(seed), (120, 160), 100.0)
        points = shape.keypoints
        for position, (polygon, _) in enumerate(shape.fills):
            for vertex in polygon:
                covers = [other.astype(np.float32) for other, _ in shape.fills[position + 1 :]]
                below = [cv2.pointPolygonTest(cover, tuple(vertex), True) for cover in covers]
                if below and max(below) > 0:
                    hidden += 1
                    assert np.linalg.norm(points - vertex, axis=1).min() > 1
    assert hidden > 20


def test_crossing_outlines_are_keypoints() -> None:
    """T-junctions: points where two outlines meet and no third polygon lies above."""
    junctions = 0
    for seed in range(40):
        shape = SHAPES["overlaps"](np.random.default_rng(seed), (120, 160), 100.0)
        vertices = np.concatenate([polygon for polygon, _ in shape.fills])
        for point in shape.keypoints:
            if np.linalg.norm(vertices - point, axis=1).min() < 1e-9:
                continue
            outlines = [polygon.astype(np.float32) for polygon, _ in shape.fills]
            distances = [cv2.pointPolygonTest(outline, tuple(point), True) for outline in outlines]
            assert sorted(np.abs(distances))[1] < 1e-3
            assert max(distances) < 1e-3 or np.argmax(distances) < len(distances) - 1
            junctions += 1
    assert junctions > 20


@pytest.mark.parametrize("name", ["checkerboard", "stripes", "cube"])
def test_ground_does_not_shine_through_the_seams(name: str) -> None:
    """Parts in white on black: nothing darker than the parts lies well inside their union."""
    for seed in range(12):
        shape = SHAPES[name](np.random.default_rng(seed), (120, 160), 0.0)
        white = Shape([(polygon, 255.0) for polygon, _ in shape.fills])
        drawn = white.draw(np.zeros((120, 160), np.uint8))
        hull = cv2.convexHull(np.concatenate([p for p, _ in shape.fills]).astype(np.float32))
        inner = np.zeros((120, 160), np.uint8)
        cv2.fillConvexPoly(inner, np.rint(hull).astype(np.int32), 1)
        inner = cv2.erode(inner, np.ones((7, 7)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        # The seam of a cube is closed where its faces meet and open at its far end.
        assert np.percentile(drawn[inner > 0], 0.5 if name != "cube" else 3) > 250
        assert drawn[inner > 0].min() > 225


def test_noise_has_no_keypoints() -> None:
    config = SyntheticConfig(shapes=("noise",), clean=True)
    samples = [draw_sample(0, index, config) for index in range(20)]
    assert not any(len(sample.keypoints) for sample in samples)
    spread = [np.diff(sample.image.astype(float), axis=1).std() for sample in samples]
    assert max(spread) > 30
    assert min(spread) < 8


def test_points_behind_the_camera_are_never_drawn() -> None:
    shape = SHAPES["cube"](np.random.default_rng(0), (64, 80), 100.0)
    assert shape.warped(np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1.0]])) is None
    moved = shape.warped(np.array([[1, 0, 5], [0, 1, 0], [0, 0, 1.0]]))
    assert moved is not None
    np.testing.assert_allclose(moved.keypoints, shape.keypoints + np.array([5, 0]))


def test_corner_labels_are_near_the_vertices() -> None:
    """The two ways of labelling agree on clear corners, and differ as documented."""
    drawn = SyntheticConfig(shapes=("checkerboard", "polygon", "cube"))
    found = SyntheticConfig(shapes=drawn.shapes, labels="corners")
    distances = []
    for index in range(30):
        vertices, corners = (draw_sample(4, index, config) for config in (drawn, found))
        np.testing.assert_array_equal(vertices.image, corners.image)
        if len(vertices.keypoints):
            gaps = np.linalg.norm(corners.keypoints[:, None] - vertices.keypoints, axis=2)
            distances += gaps.min(axis=1).tolist()
    assert len(distances) > 100
    assert np.median(distances) < 0.5
    # The detector answers on the curved outline of ellipses too, where there is no corner.
    ellipses = SyntheticConfig(shapes=("ellipses",), labels="corners")
    assert sum(len(draw_sample(4, index, ellipses).keypoints) for index in range(10)) > 0
    noise = SyntheticConfig(shapes=("noise",), labels="corners")
    assert len(draw_sample(4, 0, noise).keypoints) == 0


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_colour_keeps_the_grey_drawing(name: str) -> None:
    grey = SyntheticConfig(size=(64, 80), shapes=(name,), clean=True)
    colour = SyntheticConfig(size=(64, 80), shapes=(name,), clean=True, colour=True)
    saturation = 0.0
    for index in range(4):
        first, second = draw_sample(0, index, grey), draw_sample(0, index, colour)
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        assert second.image.shape == (64, 80, 3)
        if name != "noise":
            luma = cv2.cvtColor(second.image, cv2.COLOR_RGB2GRAY).astype(int)
            assert np.abs(luma - first.image).max() <= 12
            assert np.abs(luma - first.image).mean() < 1.5
        saturation = max(saturation, float(np.ptp(second.image.astype(int), axis=2).max()))
    assert saturation > 25


def test_coloured_samples_are_batches_of_three_channels() -> None:
    data = SyntheticShapes(0, SyntheticConfig(size=(64, 80), colour=True))
    item = data[3]
    assert item["image"].shape == (3, 64, 80)
    sample = draw_sample(0, 3, data.config)
    np.testing.assert_array_equal(item["image"].numpy().transpose(1, 2, 0), sample.image)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_photometric_changes_keep_the_shape(channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 48, *channels), dtype=np.uint8)
    before = image.copy()
    everything = PhotometricConfig(probability=1.0, night=1.0, shadow=1.0, jpeg=1.0)
    changed = photometric(np.random.default_rng(1), image, everything)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    same = photometric(np.random.default_rng(1), image, PhotometricConfig(probability=0.0))
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("photons", [20.0, 500.0])
def test_few_photons_are_the_noise_of_a_dark_scene(photons: float) -> None:
    grey = np.full((200, 200), 128, np.float32)
    grey[:, :20] = 255
    dark = few_photons(np.random.default_rng(0), grey, (photons, photons))
    left, right = dark[:, :20] / 255, dark[:, 20:] / 255
    # A Poisson count's variance is its mean: signal to noise is the root of the photons caught.
    ratio = (right.mean() / right.std()) ** 2 / (left.mean() / left.std()) ** 2
    assert ratio == pytest.approx(128 / 255, rel=0.1)
    assert (left.mean() / left.std()) ** 2 <= photons
    assert (left.mean() / left.std()) ** 2 > 0.25 * photons
    assert right.mean() / left.mean() == pytest.approx(128 / 255, rel=0.05)


def test_a_shadow_darkens_a_part_and_has_an_edge() -> None:
    camera = skimage.data.camera()
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        factors = cast_shadow(rng, np.ones((96, 128), np.float32))
        assert 0.25 < factors.min() <= factors.max() <= 1 + 1e-6
        shares.append((factors < 0.8).mean())
        shaded = cast_shadow(np.random.default_rng(seed), np.ones((96, 128, 3), np.float32))
        np.testing.assert_array_equal(shaded[..., 1], factors)
    assert 0.1 < np.mean(shares) < 0.7
    config = PhotometricConfig(probability=0.0, shadow=1.0)
    shadowed = photometric(np.random.default_rng(3), camera, config)
    assert (shadowed <= camera).all()


def test_compression_loses_more_at_lower_quality_and_keeps_colours() -> None:
    photo = skimage.data.astronaut()
    losses = [np.abs(compress(photo, q).astype(float) - photo).mean() for q in (15, 40, 70, 95)]
    assert losses == sorted(losses, reverse=True)
    # Red stays red.
    np.testing.assert_allclose(compress(photo, 15).mean((0, 1)), photo.mean((0, 1)), atol=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"night": 1.5}, {"jpeg": -0.1}, {"photons": (0.0, 10.0)}, {"photons": (30.0, 10.0)},
        {"quality": (0, 50)}, {"quality": (90, 50)},
    ],
)  # fmt: skip
def test_strengths_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PhotometricConfig(**wrong)


def test_changes_that_are_off_draw_no_random_number() -> None:
    """Drawings and warps of a seed stay what they were before the changes existed."""
    image = skimage.data.camera()[::4, ::4]
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    photometric(first, image, PhotometricConfig(probability=0.0, night=0.0, shadow=0.0, jpeg=0.0))
    for _ in range(8):
        second.random()
    assert first.bit_generator.state == second.bit_generator.state
