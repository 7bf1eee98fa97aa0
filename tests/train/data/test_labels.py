import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint.decoding.tensors import logits_to_heatmap
from train.data.labels import labels_from_points, one_per_cell, points_from_labels, valid_cells

SIZE = (40, 56)
points_strategy = st.lists(
    st.tuples(st.floats(0, SIZE[1] - 1), st.floats(0, SIZE[0] - 1)), max_size=30
).map(lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 2))


@settings(max_examples=50, deadline=None)
@given(points=points_strategy, seed=st.integers(0, 100))
def test_hard_labels_give_the_chosen_pixels_back(points: np.ndarray, seed: int) -> None:
    kept = one_per_cell(np.random.default_rng(seed), points, SIZE)
    targets = labels_from_points(np.random.default_rng(seed), points, SIZE, soft=False)
    found = {tuple(p) for p in points_from_labels(targets)}
    assert found == {tuple(p) for p in np.round(points[kept])}
    np.testing.assert_allclose(targets.sum(axis=0), 1, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(points=points_strategy)
def test_soft_labels_are_probabilities(points: np.ndarray) -> None:
    targets = labels_from_points(np.random.default_rng(0), points, SIZE, soft=True)
    assert targets.shape == (65, 5, 7)
    assert targets.min() >= 0
    np.testing.assert_allclose(targets.sum(axis=0), 1, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(x=st.floats(0, SIZE[1] - 1), y=st.floats(0, SIZE[0] - 1))
def test_centroid_of_soft_label_is_the_keypoint(x: float, y: float) -> None:
    targets = labels_from_points(np.random.default_rng(0), np.array([[x, y]]), SIZE, soft=True)
    # The network's own reading of its channels: logits whose softmax is the target.
    heatmap = logits_to_heatmap(torch.from_numpy(np.log(targets + 1e-30))[None])[0].numpy()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    np.testing.assert_allclose(heatmap.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(
        [(heatmap * columns).sum(), (heatmap * rows).sum()], [x, y], atol=1e-3
    )


def test_points_of_one_cell_are_broken_at_random() -> None:
    points = np.array([[1.0, 1.0], [6.0, 6.0], [20.0, 20.0]])
    chosen = {tuple(one_per_cell(np.random.default_rng(s), points, SIZE)) for s in range(20)}
    assert chosen == {(0, 2), (1, 2)}


def test_a_cell_is_valid_when_all_its_pixels_are() -> None:
    mask = np.ones(SIZE, dtype=bool)
    mask[17, 25] = False
    expected = np.ones((5, 7), dtype=bool)
    expected[2, 3] = False
    np.testing.assert_array_equal(valid_cells(mask), expected)
