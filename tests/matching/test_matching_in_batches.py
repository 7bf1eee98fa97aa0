"""Many pairs in one call of a learned matcher: each has the result that it has alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pinned import PINNED

from cv_superpoint import FeatureError, Features, LightGlueMatcher, SuperPointFeature2D
from cv_superpoint.matching.lightglue.bundled import find_matcher
from cv_superpoint.matching.lightglue.running import MatcherBackend
from cv_superpoint.matching.lightglue.torch import LARGEST, TorchRunner, _batches

BACKENDS: tuple[MatcherBackend, ...] = ("numpy", "onnxruntime", "openvino", "torch")
LITE = "superpoint-lite"


@cache
def features() -> tuple[Features, ...]:
    """Features of three photographs, and of a part of the first; float32, one thread."""
    photographs = (skimage.data.coffee(), skimage.data.camera(), skimage.data.chelsea())
    detector = SuperPointFeature2D.create(300, weights=LITE, scales=(1.0,), **PINNED)
    images = [np.ascontiguousarray(each) for each in (*photographs, photographs[0][40:, 60:])]
    return tuple(detector.extractBatch(images))


@cache
def matcher(backend: MatcherBackend, threads: int) -> LightGlueMatcher:
    return LightGlueMatcher.create(LITE, backend=backend, threads=threads)


def some(index: int, count: int) -> Features:
    return features()[index][:count]


sides = st.builds(some, st.integers(0, 3), st.integers(0, 90))
batches = st.lists(st.tuples(sides, sides), max_size=5)


@pytest.mark.parametrize(
    ("backend", "threads"),
    [("openvino", 2), ("onnxruntime", 2), ("torch", 2), ("openvino", 1), ("onnxruntime", 1)],
)
@settings(max_examples=8)
@given(pairs=batches)
def test_each_pair_is_as_alone(
    backend: MatcherBackend, threads: int, pairs: list[tuple[Features, Features]]
) -> None:
    # float32; with two threads pairs run side by side, each on one of them
    one = matcher(backend, threads)
    together = one.matchBatch(iter(pairs))
    assert len(together) == len(pairs)
    for pair, (rows, scores) in zip(pairs, together, strict=True):
        expected, values = one(*pair)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(scores, values, rtol=1e-4)
        assert (rows.dtype, scores.dtype) == (expected.dtype, values.dtype)


@settings(max_examples=12)
@given(pairs=batches)
def test_padding_is_not_seen(pairs: list[tuple[Features, Features]]) -> None:
    # float32; what runs on CUDA, here on the CPU
    one = matcher("torch", 1)
    inputs = [one._inputs(*pair) for pair in pairs if min(map(len, pair))]
    runner = one._runner
    assert isinstance(runner, TorchRunner)
    for alone, padded in zip(
        [runner(*each) for each in inputs], runner.padded(inputs, np.copy), strict=True
    ):
        assert padded.shape == alone.shape
        np.testing.assert_allclose(padded, alone, rtol=2e-3, atol=1e-6)


@given(counts=st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), max_size=40))
def test_a_batch_is_no_larger_than_memory_allows(counts: list[tuple[int, int]]) -> None:
    found = list(_batches(counts))
    assert sorted(number for batch in found for number in batch) == list(range(len(counts)))
    for batch in found:
        largest = np.array([counts[number] for number in batch]).max(axis=0)
        assert len(batch) == 1 or len(batch) * int(largest.prod()) <= LARGEST


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_find_the_right_matches(backend: MatcherBackend) -> None:
    """The part is matched to where it was cut, the other photographs to little."""
    coffee, camera, cat, part = features()
    found = matcher(backend, 2).matchBatch([(part, coffee), (camera, cat), (coffee, part)])
    for (first, second), (rows, _), sign in (
        ((part, coffee), found[0], 1),
        ((coffee, part), found[2], -1),
    ):
        assert len(rows) > 100
        offset = second.keypoints[rows[:, 1]] - first.keypoints[rows[:, 0]]
        assert (np.abs(sign * offset - (60, 40)).max(axis=1) < 2).mean() > 0.9
    assert len(found[1][0]) < 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_does_not_fit_is_refused_as_alone_and_the_pair_is_named(
    backend: MatcherBackend,
) -> None:
    one = matcher(backend, 1)
    first = some(0, 20)
    nan = np.full_like(first.descriptors, np.nan)
    for wrong, message in (
        (replace(first, descriptors=nan), "image 1 has .* not finite"),
        (replace(first, descriptors=first.descriptors[:, :32]), "64 numbers of superpoint-lite"),
        (replace(first, weights="0" * 64), "image 1 has those of other weights"),
        (replace(first, keypoints=first.keypoints[:3]), "3 positions and 20 descriptors"),
    ):
        with pytest.raises(FeatureError, match=message):
            one(first, wrong)
        with pytest.raises(FeatureError, match=f"pair 1: .*{message}"):
            one.matchBatch([(first, first), (first, wrong)])
    assert one.matchBatch([]) == []


def test_torch_pads_on_cuda_and_goes_pair_by_pair_on_the_cpu() -> None:
    loaded = find_matcher(LITE)
    runner = TorchRunner(loaded.tensors, loaded.config)
    sizes: list[int] = []
    runner._net.register_forward_hook(lambda net, inputs, found: sizes.append(len(inputs[0])))
    counts = ((9, 4), (30, 8), (20, 40))
    runner.each([matcher("torch", 1)._inputs(some(0, n), some(3, m)) for n, m in counts], np.copy)
    assert sizes == ([3] if torch.cuda.is_available() else [1, 1, 1])


def test_scores_do_not_depend_on_the_sizes_before() -> None:
    # float32; with OpenVINO's cache of kernels 5 of the first 13 pairs were wrong by .05 to .99
    pytest.importorskip("openvino")
    one, plain = matcher("openvino", 2), matcher("numpy", 1)
    rng = np.random.default_rng(0)
    for _ in range(12):
        counts = rng.choice([1, 1, 2, 3, 16, 40, 65, 90], (rng.integers(1, 6), 2))
        pairs = [[some(int(rng.integers(4)), int(count)) for count in both] for both in counts]
        inputs = [one._inputs(*both) for both in pairs]
        for each, batched in zip(inputs, one._runner.each(inputs, np.copy), strict=True):
            expected = plain._runner(*each)
            np.testing.assert_allclose(batched, expected, atol=1e-3)
            np.testing.assert_allclose(one._runner(*each), expected, atol=1e-3)
