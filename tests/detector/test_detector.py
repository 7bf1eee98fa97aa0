"""Sizes, padding, borders, tiles and memory, on photographs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import needs_proc

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import Detector
from cv_superpoint.detector.tiles import make_tiles
from cv_superpoint.network.architecture import NetworkConfig, receptive_margin

MARGIN = receptive_margin(NetworkConfig())
PHOTOGRAPH = skimage.data.astronaut()[:, :, 1].copy()


def configured(detector: SuperPointFeature2D, **changes: Any) -> Detector:
    """The array-first detector behind the face, with some parameters changed."""
    config, names = detector.detector.config, {field.name for field in fields(Decoding)}
    decoding = {name: value for name, value in changes.items() if name in names}
    others = {name: value for name, value in changes.items() if name not in names}
    decoded = replace(config.decoding, **decoding)
    return detector.detector.configured(replace(config, decoding=decoded, **others))


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 400))
def test_any_size_gives_keypoints_inside_its_margin(
    detector: SuperPointFeature2D, height: int, width: int, seed: int
) -> None:
    image = PHOTOGRAPH[seed : seed + height, seed : seed + width]
    for margin in (0, 4):
        features = configured(detector, border_margin=margin).extract(image)
        assert features.image_size == image.shape
        nearest = np.rint(features.keypoints)
        assert np.all(nearest >= margin)
        last = np.array(image.shape[::-1]) - 1 - margin
        assert np.all(nearest <= last)
        assert features.descriptors.shape == (len(features), 256)


def test_one_pixel_and_thin_images(detector: SuperPointFeature2D) -> None:
    for shape in [(1, 1), (1, 700), (700, 1), (3, 5), (7, 9), (8, 8)]:
        image = PHOTOGRAPH.ravel()[: shape[0] * shape[1]].reshape(shape)
        keypoints, descriptors = detector.detectAndCompute(image)
        assert keypoints == ()
        assert descriptors is None


def test_the_same_patch_is_found_at_the_same_place_whatever_the_padding(
    detector: SuperPointFeature2D,
) -> None:
    """Cutting 1 to 7 pixels off the right and the bottom moves nothing far from there."""
    whole = detector.extract(PHOTOGRAPH[:160, :240])
    for cut in (1, 4, 7):
        part = detector.extract(PHOTOGRAPH[: 160 - cut, : 240 - cut])
        limit = np.array((240, 160)) - 64
        a = whole.keypoints[np.all(whole.keypoints < limit, axis=1)]
        b = part.keypoints[np.all(part.keypoints < limit, axis=1)]
        assert len(a) > 20
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_shifting_by_a_cell_shifts_the_keypoints(detector: SuperPointFeature2D) -> None:
    first = detector.extract(PHOTOGRAPH[:256, :256])
    second = detector.extract(PHOTOGRAPH[16:272, 8:264])
    inner = np.all((first.keypoints > 80) & (first.keypoints < 190), axis=1)
    moved = first.keypoints[inner] - (8, 16)
    distance = np.abs(moved[:, None] - second.keypoints[None]).max(axis=2).min(axis=1)
    assert inner.sum() > 10
    assert distance.max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tile=st.integers(8, 20),
    radius=st.integers(0, 30),
)
def test_cores_cover_the_image_once(height: int, width: int, tile: int, radius: int) -> None:
    size = (8 * height, 8 * width)
    tiles = make_tiles(size, tile_size=8 * tile, reach=radius, margin=MARGIN)
    covered = np.zeros(size, int)
    for piece in tiles:
        top, left, bottom, right = piece.core
        covered[top:bottom, left:right] += 1
        assert piece.top <= top < bottom <= piece.bottom <= size[0]
        assert piece.left <= left < right <= piece.right <= size[1]
        assert bottom - top <= 8 * tile or len(tiles) == 1
    assert np.all(covered == 1)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
@pytest.mark.parametrize("count", [-1, 60])
def test_tiles_give_the_keypoints_of_the_whole_image(
    detector: SuperPointFeature2D, count: int, scales: tuple[float, ...]
) -> None:
    """The stated tolerance: 0.01 px, 1e-4 of probability, 1e-3 of a descriptor."""
    image = PHOTOGRAPH[20:221, 60:381]
    mask = np.ones_like(image)
    mask[60:100, 100:220] = 0
    whole = configured(detector, max_keypoints=count, scales=scales).extract(image, mask)
    tiled = configured(detector, max_keypoints=count, scales=scales, tile_size=128)
    pieces = tiled.extract(image, mask)
    assert len(whole) == len(pieces) >= 60
    order = np.lexsort(np.rint(whole.keypoints).T), np.lexsort(np.rint(pieces.keypoints).T)
    a, b = whole[order[0]], pieces[order[1]]
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.01)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    np.testing.assert_allclose(a.descriptors, b.descriptors, atol=1e-3)
    described = tiled.describe(image, a.keypoints, a.sizes)
    np.testing.assert_allclose(described, a.descriptors, atol=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss, in KiB on Linux")
def test_memory_is_bounded_by_the_tile() -> None:
    """A 2-megapixel image through 256-pixel tiles needs far less than its untiled 1 GB."""
    script = """
import resource, numpy as np, skimage.data
from cv_superpoint import SuperPointFeature2D
from cv_superpoint.detector import Detector
from dataclasses import replace
face = SuperPointFeature2D.create(2000, backend="ncnn", threads=1)
core = face.detector.configured(replace(face.detector.config, tile_size=256))
photograph = skimage.data.astronaut()[:, :, 0]
core.extract(photograph)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = len(core.extract(np.tile(photograph, (2, 4))))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(found, (after - before) // 1024)
"""
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found, mebibytes = map(int, output.split())
    assert found == 2000
    assert mebibytes < 150


@needs_proc
def test_memory_of_a_large_image_is_given_back() -> None:
    """Strips need little; the maps between them, 120 MiB here, go when the call ends."""
    script = """
import numpy as np, skimage.data
from cv_superpoint import SuperPointFeature2D
def resident(kind):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) // 1024
detector = SuperPointFeature2D.create(100, backend="ncnn", threads=1)
photograph = skimage.data.astronaut()[:, :, 0]
detector.extract(photograph[:64, :64])
before = resident("VmRSS")
detector.extract(np.tile(photograph, (2, 2))[:1000, :1000])
print(before, resident("VmHWM"), resident("VmRSS"))
"""
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak, after = map(int, output.split())
    assert peak < before + 300
    assert after < before + 120


def test_features_select_rows(detector: SuperPointFeature2D) -> None:
    features = detector.extract(PHOTOGRAPH)
    np.testing.assert_array_equal(features[3].keypoints, features.keypoints[3:4])
    np.testing.assert_array_equal(features[2:5].scores, features.scores[2:5])
    keep = features.scores > np.median(features.scores)
    assert len(features[keep]) == keep.sum()
    keypoints = features.to_keypoints()
    assert [keypoint.pt for keypoint in keypoints] == [
        tuple(p) for p in features.keypoints.tolist()
    ]
