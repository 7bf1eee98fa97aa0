"""The decoding gives the bits of a plain one in float32, in every order of memory."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_decode import keypoints, logits_to_heatmap, maxima, refine, sample

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.decoding.arrays import _sum
from cv_superpoint.detector.features import make_keypoints
from cv_superpoint.pictures.arrays import interleave, pad, window_maximum

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))
KINDS = st.sampled_from(["smooth", "few levels", "flat", "extreme", "peaked"])


def make_logits(kind: str, size: tuple[int, int], seed: int) -> np.ndarray:
    """(h, w, 65) without NaN, whose differences are finite."""
    rng = np.random.default_rng(seed)
    shape = (*size, 65)
    if kind == "flat":
        values = np.full(shape, rng.choice([0.0, -1e30, 1e30]))
    elif kind == "few levels":
        values = rng.integers(0, 3, shape)
    elif kind == "extreme":
        values = rng.choice([0.0, -1e38, 1e38, 1e-45, -1e-38, 88.7, -103.9], shape)
    else:
        values = rng.normal(size=shape) * (3 if kind == "smooth" else 30)
    return values.astype(np.float32)


def orders_of_memory(logits: np.ndarray) -> list[np.ndarray]:
    """The same cells: channels last, channels first, rows longer than they are wide, reversed."""
    h, w, count = logits.shape
    first = np.ascontiguousarray(logits.transpose(2, 0, 1))
    padded = np.zeros((count, h * w + 3), np.float32)
    padded[:, : h * w] = first.reshape(count, -1)
    strided = padded[:, : h * w].reshape(count, h, w).transpose(1, 2, 0)
    return [logits, first.transpose(1, 2, 0), strided, logits[:, :, ::-1].copy()[:, :, ::-1]]


@settings(max_examples=60, deadline=None)
@given(kind=KINDS, size=SIZES, seed=st.integers(0, 2**32 - 1))
def test_heatmaps_have_the_same_bits_in_every_order_of_memory(
    kind: str, size: tuple[int, int], seed: int
) -> None:
    logits = make_logits(kind, size, seed)
    expected = logits_to_heatmap(logits)
    for cells in orders_of_memory(logits):
        before = cells.copy()
        np.testing.assert_array_equal(decode.logits_to_heatmap(cells), expected)
        np.testing.assert_array_equal(decode.logits_to_heatmap(cells, interleave), expected)
        np.testing.assert_array_equal(cells, before)


@settings(max_examples=80, deadline=None)
@given(count=st.integers(1, 450), columns=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_sums_are_those_of_values_side_by_side(count: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(0, 4, (count, columns)).astype(np.float32)
    side_by_side = np.ascontiguousarray(values.T)
    np.testing.assert_array_equal(_sum(values), side_by_side.sum(axis=1))


@settings(max_examples=60, deadline=None)
@given(
    kind=KINDS,
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    radii=st.tuples(st.integers(0, 9), st.integers(0, 6)),
    threshold=st.sampled_from([0.0, 1e-5, 0.015, 0.35]),
    seed=st.integers(0, 2**32 - 1),
)
def test_keypoints_have_the_same_bits(
    kind: str,
    size: tuple[int, int],
    cut: tuple[int, int],
    radii: tuple[int, int],
    threshold: float,
    seed: int,
) -> None:
    whole = logits_to_heatmap(make_logits(kind, size, seed))
    heatmap = whole[: len(whole) - cut[0], : whole.shape[1] - cut[1]]  # and not contiguous
    decoding = Decoding(score_threshold=threshold, nms_radius=radii[0], score_radius=radii[1])
    rows, columns, scores = decode.keypoints(heatmap, decoding, window_maximum)
    expected = keypoints(heatmap, threshold, *radii)
    assert list(zip(rows.tolist(), columns.tolist(), scores, strict=True)) == expected
    assert scores.dtype == np.float32
    points = decode.refine(heatmap, rows, columns)
    for (row, column, _), point in zip(expected, points, strict=True):
        np.testing.assert_array_equal(point, refine(heatmap, row, column))
    # What lies outside suppresses, but does not come back.
    box = (3, 2, len(heatmap) - 1, heatmap.shape[1] - 5)
    rows, columns, scores = decode.keypoints(heatmap, decoding, window_maximum, box)
    inside = [one for one in expected if box[0] <= one[0] < box[2] and box[1] <= one[1] < box[3]]
    assert list(zip(rows.tolist(), columns.tolist(), scores, strict=True)) == inside


@pytest.mark.parametrize("pairs", [1, 2, 20, 31, 32, 33, 200])
@pytest.mark.parametrize("radius", [1, 4])
def test_ties_are_broken_alike_however_many_there_are(pairs: int, radius: int) -> None:
    """Few are compared in pairs, many by maps of ranks."""
    rng = np.random.default_rng(pairs)
    heatmap = (0.1 * rng.random((90, 120))).astype(np.float32)
    # Far from each other, near, and in chains; of different heights.
    for value in np.linspace(0.5, 0.9, pairs, dtype=np.float32):
        row, column = rng.integers(0, 85), rng.integers(0, 110)
        heatmap[row, column] = value
        heatmap[row + rng.integers(0, 5), column + rng.integers(0, 10)] = value
    found = decode.local_maxima(heatmap, 0.2, radius, window_maximum)
    assert np.stack(found, axis=1).tolist() == [list(one) for one in maxima(heatmap, 0.2, radius)]


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    length=st.sampled_from([5, 16, 48]),
    count=st.sampled_from([0, 1, 7, 300]),
    zero=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_descriptors_are_the_mean_of_unit_cells_in_every_order_of_memory(
    size: tuple[int, int], length: int, count: int, zero: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    h, w = size
    dense = rng.normal(size=(h, w, length)) * rng.lognormal(0, 2, (h, w, 1))
    dense = dense.astype(np.float32)
    if zero:
        dense[rng.random((h, w)) < 0.5] = 0
    points = rng.uniform(-5, 8 * max(h, w) + 5, (count, 2)).astype(np.float32)
    expected = np.array([sample(dense, *point) for point in points])
    expected = expected.reshape(count, dense.shape[2])
    lengths = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    first = np.ascontiguousarray(dense.transpose(2, 0, 1)).transpose(1, 2, 0)
    reverse = np.ascontiguousarray(dense[:, ::-1])[:, ::-1]
    reference = decode.sample_descriptors(dense, points)
    # Where cells nearly cancel each other, their rounding is what is left.
    assert np.all(np.abs(reference - expected / lengths) * lengths < 5e-7)
    for other in (first, reverse):
        np.testing.assert_array_equal(decode.sample_descriptors(other, points), reference)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.floats(0, float(np.finfo(np.float32).max), width=32)
        | st.sampled_from([0.0, 1e-45, 0.25, 0.5]),
        max_size=40,
    ),
    count=st.integers(-1, 45),
)
def test_the_strongest_are_those_of_a_stable_sort(values: list[float], count: int) -> None:
    scores = np.array(values, np.float32)
    expected = np.argsort(-scores, kind="stable")
    found = decode.strongest(scores, count)
    np.testing.assert_array_equal(found, expected[: len(scores) if count < 0 else count])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 16), (9, 8), (16, 23), (75, 90)])
def test_padding_repeats_the_border(size: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(0)
    shape = size if channels == 1 else (*size, channels)
    image = rng.integers(0, 256, shape, np.uint8)
    below, right = -size[0] % 8, -size[1] % 8
    margins = ((0, below), (0, right), (0, 0))[: image.ndim]
    for view in (image, image[::-1, ::-1], np.asfortranarray(image)):
        padded = pad(view)
        np.testing.assert_array_equal(padded, np.pad(view, margins, mode="edge"))
        assert padded.flags.c_contiguous


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_keypoint_objects_are_those_of_the_constructor(levels: int, count: int) -> None:
    rng = np.random.default_rng(count)
    points, scores = rng.uniform(0, 5000, (count, 2)), rng.random(count)
    octaves = rng.integers(0, levels, count).astype(np.int32)
    sizes = (8 / np.array([0.7, 1.0, 1.4]))[octaves]
    columns = [values.astype(np.float32) for values in (points, scores, sizes)]
    rows = zip(*(values.tolist() for values in (*columns, octaves)), strict=True)
    expected = [cv2.KeyPoint(*point, size, -1, score, one) for point, score, size, one in rows]

    def fields(keypoint: cv2.KeyPoint) -> tuple[object, ...]:
        names = ("pt", "size", "angle", "response", "octave", "class_id")
        return tuple(getattr(keypoint, name) for name in names)

    found = make_keypoints(*columns, octaves)
    assert isinstance(found, tuple)
    assert [fields(one) for one in found] == [fields(one) for one in expected]


def test_a_descriptor_does_not_depend_on_the_other_points() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(20, 30, 64)).astype(np.float32)
    points = rng.uniform(0, 160, (700, 2)).astype(np.float32)
    together = decode.sample_descriptors(dense, points)
    for rows in (slice(0, 1), slice(255, 258), slice(500, None), slice(None, None, -1)):
        np.testing.assert_array_equal(
            decode.sample_descriptors(dense, points[rows]), together[rows]
        )
