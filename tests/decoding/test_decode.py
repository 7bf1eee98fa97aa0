"""The decoders: against brute force, against each other, on random and on hard maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding import arrays as decode
from cv_superpoint.decoding import tensors as torch_decode
from cv_superpoint.decoding.tensors import NO_KEYPOINT
from cv_superpoint.pictures.arrays import window_maximum


def unit(dense: np.ndarray, axis: int) -> np.ndarray:
    """Unit descriptors, as a network gives them; the decoder on the host takes any length."""
    return (dense / np.linalg.norm(dense, axis=axis, keepdims=True)).astype(np.float32)


def brute_force_maxima(heatmap: np.ndarray, threshold: float, radius: int) -> list[list[int]]:
    maxima = []
    for y, x in np.argwhere(heatmap > threshold):
        window = heatmap[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        if heatmap[y, x] == window.max():
            maxima.append((y, x))
    return [
        [int(y), int(x)]
        for index, (y, x) in enumerate(maxima)
        if not any(
            heatmap[v, u] == heatmap[y, x] and abs(v - y) <= radius and abs(u - x) <= radius
            for v, u in maxima[:index]
        )
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.integers(0, 6),
    levels=st.sampled_from([2, 3, 8, 1000]),
)
def test_maxima_equal_brute_force_with_ties(
    seed: int, height: int, width: int, radius: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    heatmap = rng.integers(0, levels, (height, width)).astype(np.float32) / levels
    rows, columns = decode.local_maxima(heatmap, 0.1, radius)
    others = decode.local_maxima(heatmap, 0.1, radius, window_maximum)
    np.testing.assert_array_equal((rows, columns), others)
    found = np.stack([rows, columns], axis=1).tolist()
    if radius == 0:
        assert found == np.argwhere(heatmap > 0.1).tolist()
    else:
        assert found == brute_force_maxima(heatmap, 0.1, radius)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    nms_radius=st.integers(0, 5),
    data=st.data(),
)
def test_scores_are_sums_of_windows(
    seed: int, size: tuple[int, int], nms_radius: int, data: st.DataObject
) -> None:
    """No keypoint is lost for the low peak that a wide one has."""
    score_radius = data.draw(st.integers(0, nms_radius))
    threshold = data.draw(st.sampled_from([0.0, 0.3, 0.9]))
    rng = np.random.default_rng(seed)
    heatmap = (0.4 * rng.random(size) ** 4).astype(np.float32)
    decoding = Decoding(score_threshold=threshold, nms_radius=nms_radius, score_radius=score_radius)
    rows, columns, scores = decode.keypoints(heatmap, decoding)
    expected = {}
    for y, x in brute_force_maxima(heatmap, 0, nms_radius):
        top, left = max(0, y - score_radius), max(0, x - score_radius)
        window = heatmap[top : y + score_radius + 1, left : x + score_radius + 1]
        total = window.sum(dtype=np.float64)
        if total > threshold:
            expected[y, x] = total
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == list(expected)
    np.testing.assert_allclose(scores, list(expected.values()), rtol=1e-5)
    found, maps = torch_decode.keypoint_scores(torch.from_numpy(heatmap)[None], decoding)
    np.testing.assert_array_equal(found[0].nonzero(), np.stack([rows, columns], axis=1))
    np.testing.assert_allclose(maps[0][found[0]], scores, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 5)])
@pytest.mark.parametrize("radius", [8, 9, 2**31])
def test_a_window_ends_with_the_image(shape: tuple[int, int], radius: int) -> None:
    """However large the radius, it takes no more time or memory than the image does."""
    heatmap = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    best = np.unravel_index(heatmap.argmax(), shape)
    for found in (
        decode.local_maxima(heatmap, 0.05, radius),
        decode.local_maxima(heatmap, 0.05, radius, window_maximum),
    ):
        np.testing.assert_array_equal(np.array(found)[:, 0], best)
    maps = torch_decode.local_maxima(torch.from_numpy(heatmap)[None], 0.05, radius)
    assert maps.nonzero().tolist() == [[0, *best]]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    radius=st.integers(0, 25),
)
def test_both_ways_to_window_maxima_are_the_same(
    seed: int, size: tuple[int, int], radius: int
) -> None:
    """One is for CPUs, the other for GPUs."""
    maps = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, *size)))
    for axis in (-2, -1):
        reach = min(radius, maps.shape[axis] - 1)
        shifted = torch_decode.shifted_maximum(maps, reach, axis)
        assert torch.equal(shifted, torch_decode.pooled_maximum(maps, reach, axis))


def test_a_corner_between_pixels_scores_as_one_on_a_pixel() -> None:
    heatmap = np.zeros((20, 40), np.float32)
    heatmap[10, 10] = 0.8
    heatmap[10:12, 30:32] = 0.2
    _, columns, scores = decode.keypoints(heatmap, Decoding(score_threshold=0.5, score_radius=2))
    np.testing.assert_array_equal(columns, [10, 30])
    np.testing.assert_allclose(scores, 0.8, rtol=1e-6)
    alone = Decoding(score_threshold=0.5, score_radius=0)
    assert decode.keypoints(heatmap, alone)[1].tolist() == [10]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), flat=st.booleans(), radius=st.integers(0, 5))
def test_numpy_and_torch_decode_alike(seed: int, flat: bool, radius: int) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(5, 7, 65)) * (0 if flat else 3)).astype(np.float32)
    heatmap = decode.logits_to_heatmap(logits)
    as_tensor = torch.from_numpy(logits.transpose(2, 0, 1)[None].copy())
    np.testing.assert_allclose(heatmap, torch_decode.logits_to_heatmap(as_tensor)[0], atol=1e-6)
    rows, columns = decode.local_maxima(heatmap, 0.01, radius)
    batch = torch.from_numpy(heatmap)[None]
    _, torch_rows, torch_columns = torch_decode.local_maxima(batch, 0.01, radius).nonzero().T
    np.testing.assert_array_equal(rows, torch_rows)
    np.testing.assert_array_equal(columns, torch_columns)
    shift, _ = torch_decode.soft_argmax(batch, torch_rows[None], torch_columns[None])
    expected = decode.refine(heatmap, rows, columns) - np.stack([columns, rows], axis=1)
    largest = decode.LARGEST_SHIFT
    np.testing.assert_allclose(shift[0].clamp(-largest, largest), expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, 5, 1000]),
    radius=st.integers(0, 5),
    score_radius=st.integers(0, 2),
    margin=st.integers(0, 4),
    subpixel=st.booleans(),
    masked=st.booleans(),
    count=st.sampled_from([1, 50, 5000]),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_the_device_decodes_as_the_host(
    seed: int,
    levels: int,
    radius: int,
    score_radius: int,
    margin: int,
    subpixel: bool,
    masked: bool,
    count: int,
    cut: tuple[int, int],
) -> None:
    """Many pixels tie on integer logits; both must break every tie alike."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, levels, (2, 65, 4, 6)).astype(np.float32)
    dense = rng.normal(size=(2, 12, 4, 6)).astype(np.float32)
    height, width = 32 - cut[0], 48 - cut[1]
    allowed = rng.random((2, 32, 48)) < 0.9
    frames = np.array([[height, width, margin, margin, height - margin, width - margin]] * 2)
    decoding = Decoding(
        max_keypoints=count,
        score_threshold=0.01,
        nms_radius=radius,
        score_radius=score_radius,
        border_margin=margin,
        subpixel=subpixel,
    )
    found = torch_decode.decode_batch(
        *(torch.from_numpy(array) for array in (logits, dense, frames)),
        torch.from_numpy(allowed) if masked else None,
        decoding,
        count,
    )
    heatmaps = torch_decode.logits_to_heatmap(torch.from_numpy(logits)).numpy()
    assert found[2].shape[1] == min(count, torch_decode.most_keypoints((32, 48), decoding))
    for index in range(2):
        total, points, scores, rows_of = (part[index].numpy() for part in found)
        heatmap = np.ascontiguousarray(heatmaps[index, :height, :width])
        # Sums of equal windows may differ by their rounding: the device's own break the ties.
        maps = torch_decode.keypoint_scores(torch.from_numpy(heatmap)[None], decoding)
        sums = maps[1][0].numpy()
        rows, columns, own = decode.keypoints(heatmap, decoding, window_maximum)
        np.testing.assert_allclose(own, sums[rows, columns], rtol=1e-5)
        keep = (rows >= margin) & (rows < height - margin)
        keep &= (columns >= margin) & (columns < width - margin)
        keep &= allowed[index, rows, columns] | (not masked)
        rows, columns = rows[keep], columns[keep]
        assert total == len(rows)
        best = decode.strongest(sums[rows, columns], count)
        rows, columns = rows[best], columns[best]
        kept = scores > 0
        assert kept.sum() == len(best)
        assert np.all(scores[len(best) :] == NO_KEYPOINT)
        np.testing.assert_array_equal(scores[kept], sums[rows, columns])
        expected = np.stack([columns, rows], axis=1).astype(np.float32)
        if subpixel:
            expected = decode.refine(heatmap, rows, columns)
        np.testing.assert_allclose(points[kept], expected, atol=2e-5)
        cells = np.ascontiguousarray(dense[index].transpose(1, 2, 0))
        expected_rows = decode.sample_descriptors(cells, expected)
        np.testing.assert_allclose(rows_of[kept], expected_rows, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), h=st.integers(1, 6), w=st.integers(1, 6))
def test_descriptor_samplers_agree(seed: int, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    dense = unit(rng.normal(size=(h, w, 16)), axis=2)
    points = rng.uniform(-3, 8 * max(h, w) + 3, (20, 2)).astype(np.float32)
    sampled = decode.sample_descriptors(dense, points)
    as_tensor = torch.from_numpy(dense.transpose(2, 0, 1)[None].copy())
    other = torch_decode.sample_descriptors(as_tensor, torch.from_numpy(points)[None])[0]
    np.testing.assert_allclose(sampled, other, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(sampled, axis=1), 1, atol=1e-5)


def test_descriptors_at_cell_centres_are_the_cells() -> None:
    dense = np.random.default_rng(1).normal(size=(4, 5, 8)).astype(np.float32)
    dense /= np.linalg.norm(dense, axis=-1, keepdims=True)
    points = np.array([[8 * j + 3.5, 8 * i + 3.5] for i in range(4) for j in range(5)], np.float32)
    np.testing.assert_allclose(
        decode.sample_descriptors(dense, points), dense.reshape(20, 8), atol=1e-6
    )


def test_channel_order_of_a_cell() -> None:
    logits = np.zeros((2, 3, 65), np.float32)
    logits[1, 2, 8 * 5 + 6] = 20
    heatmap = decode.logits_to_heatmap(logits)
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (8 + 5, 16 + 6)


def test_heatmap_survives_huge_logits() -> None:
    logits = np.full((1, 1, 65), -1e30, np.float32)
    logits[0, 0, 3] = 3e38
    heatmap = decode.logits_to_heatmap(logits)
    assert heatmap[0, 3] == 1
    assert heatmap.sum() == 1


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.3, -0.2), (-0.45, 0.4)])
def test_refine_finds_the_centre_of_a_symmetric_peak(offset: tuple[float, float]) -> None:
    y, x = np.mgrid[:21, :21]
    peak = np.exp(-((x - 10 - offset[0]) ** 2 + (y - 10 - offset[1]) ** 2) / (2 * 0.7**2))
    point = decode.refine(peak.astype(np.float32), np.array([10]), np.array([10]))[0]
    np.testing.assert_allclose(point - 10, offset, atol=0.03)


def test_refine_stays_within_the_pixel() -> None:
    heatmap = np.random.default_rng(0).random((30, 30)).astype(np.float32)
    rows, columns = np.nonzero(heatmap > 0)
    points = decode.refine(heatmap, rows, columns)
    np.testing.assert_array_equal(np.rint(points), np.stack([columns, rows], axis=1))


def test_strongest_keeps_the_order_of_ties() -> None:
    scores = np.array([0.5, 0.7, 0.5, 0.7, 0.9], np.float32)
    assert decode.strongest(scores, -1).tolist() == [4, 1, 3, 0, 2]
    assert decode.strongest(scores, 3).tolist() == [4, 1, 3]
    assert decode.strongest(scores, 0).tolist() == []
