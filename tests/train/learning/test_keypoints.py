import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint.decoding import arrays as decode
from train.learning.keypoints import NMS_RADIUS, SoftKeypoints, soft_keypoints, warp, window_sum
from train.learning.losses import agreement_loss, reprojection_loss


def keypoints(points: list[tuple[float, float]], size: int = 4) -> SoftKeypoints:
    padded = torch.zeros(1, size, 2)
    padded[0, : len(points)] = torch.tensor(points)
    valid = torch.arange(size)[None] < len(points)
    return SoftKeypoints(padded.requires_grad_(), torch.ones(1, size), valid, torch.zeros(1, 1, 1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_they_are_what_inference_decodes(seed: int) -> None:
    logits = 3 * torch.randn(2, 65, 6, 7, generator=torch.Generator().manual_seed(seed))
    found = soft_keypoints(logits, torch.ones(2, 6, 7, dtype=torch.bool), 1000, 0.05)
    for index in range(2):
        cells = np.ascontiguousarray(logits[index].permute(1, 2, 0).numpy())
        heatmap = decode.logits_to_heatmap(cells)
        rows, columns = decode.local_maxima(heatmap, 0.05, NMS_RADIUS)
        h, w = heatmap.shape
        inner = (rows >= 4) & (columns >= 4) & (rows < h - 4) & (columns < w - 4)
        expected = decode.refine(heatmap, rows[inner], columns[inner])
        points = found.points[index][found.valid[index]].numpy()
        assert len(points) == len(expected)
        # Inference keeps a point within half a pixel of its maximum.
        order = np.lexsort(np.round(points).T)
        distance = np.abs(points[:, None] - expected[None]).max(axis=2)
        assert distance.min(axis=1)[order].max(initial=0) < 1.6
        assert np.median(distance.min(axis=1)) < 0.5


def test_position_has_a_gradient_and_the_choice_respects_the_mask() -> None:
    logits = torch.zeros(1, 65, 4, 4)
    logits[:, 64] = 6
    logits[0, 8 * 3 + 4, 1, 1] = 9  # pixel (12, 11)
    logits[0, 8 * 3 + 5, 1, 1] = 8
    logits.requires_grad_()
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    found = soft_keypoints(logits, valid, 5, 0.1)
    assert found.valid.tolist() == [[True, False, False, False, False]]
    x, y = found.points[0, 0]
    assert 12 < float(x.detach()) < 12.5
    assert abs(float(y.detach()) - 11) < 0.1
    x.backward()
    assert logits.grad is not None
    assert logits.grad[0, 8 * 3 + 5, 1, 1] > 0
    valid[0, 1, 1] = False
    assert not soft_keypoints(logits, valid, 5, 0.1).valid.any()


def test_spread_is_zero_for_one_pixel() -> None:
    logits = torch.full((1, 65, 4, 4), -20.0)
    logits[:, 64] = 0
    logits[0, 8 * 3 + 4, 1, 1] = 20
    found = soft_keypoints(logits, torch.ones(1, 4, 4, dtype=torch.bool), 1, 0.1)
    assert found.spread[0, 0] == pytest.approx(0, abs=1e-5)


def test_shifted_points_reproject_with_known_distance() -> None:
    shift = torch.eye(3)[None].clone()
    shift[0, 0, 2] = 5
    first = keypoints([(10, 10), (20, 20), (40, 40)])
    second = keypoints([(15.5, 10), (25, 21), (90, 90)])
    distance, spread = reprojection_loss(first, second, shift)
    assert float(distance.detach()) == pytest.approx((0.5 + 1) / 2)
    assert float(spread.detach()) == pytest.approx(1)
    distance.backward()
    assert first.points.grad is not None
    # Only the points that have a counterpart move.
    assert first.points.grad[0, 0, 0] < 0
    assert first.points.grad[0, 2:].abs().max() == 0


def test_both_frames_count() -> None:
    zoom = torch.diag(torch.tensor([2.0, 2.0, 1.0]))[None]
    distance, _ = reprojection_loss(keypoints([(10, 10)]), keypoints([(22, 20)]), zoom)
    assert float(distance.detach()) == pytest.approx((2 + 1) / 2)


def test_without_pairs_there_is_no_loss() -> None:
    distance, spread = reprojection_loss(
        keypoints([(10, 10)]), keypoints([(30, 30)]), torch.eye(3)[None]
    )
    assert float(distance.detach()) == float(spread.detach()) == 0


def spotted(points: list[tuple[int, int, float]]) -> torch.Tensor:
    """Logits (1, 65, 8, 8) of a detector that gives pixels (x, y) a probability."""
    cells = torch.full((1, 65, 8, 8), 1e-5)
    for x, y, probability in points:
        cells[0, y % 8 * 8 + x % 8, y // 8, x // 8] = probability
    cells[:, 64] = 1 - cells[:, :64].sum(dim=1)
    return cells.log().requires_grad_()


def agreement(first: torch.Tensor, second: torch.Tensor, x: float = 0.0) -> torch.Tensor:
    shift = torch.eye(3)[None].clone()
    shift[0, 0, 2] = x
    everywhere = torch.ones(1, 8, 8, dtype=torch.bool)
    found = [soft_keypoints(logits, everywhere, 10, 0.05) for logits in (first, second)]
    return agreement_loss(found[0], found[1], shift)


def test_views_that_say_the_same_agree() -> None:
    first, second = spotted([(20, 20, 0.6), (40, 30, 0.2)]), spotted([(26, 20, 0.6), (46, 30, 0.2)])
    assert float(agreement(first, second, 6).detach()) == pytest.approx(0, abs=1e-4)
    assert float(agreement(first, second, 0).detach()) > 0.2


def test_a_corner_on_a_grid_point_is_as_likely_as_one_between_four_pixels() -> None:
    whole = spotted([(20, 20, 0.8)])
    quarters = spotted([(x, y, 0.2) for x in (20, 21) for y in (20, 21)])
    assert float(agreement(whole, quarters).detach()) < 1e-3


def test_views_meet_in_the_middle() -> None:
    first, second = spotted([(20, 20, 0.6)]), spotted([(20, 20, 0.2)])
    agreement(first, second).backward()
    assert first.grad is not None
    assert second.grad is not None
    channel = 20 % 8 * 8 + 20 % 8
    assert first.grad[0, channel, 2, 2] > 0  # goes down
    assert second.grad[0, channel, 2, 2] < 0


def test_what_the_other_image_does_not_show_cannot_disagree() -> None:
    first, second = spotted([(20, 20, 0.6)]), spotted([])
    assert float(agreement(first, second).detach()) > 0.1
    assert float(agreement(first, second, 500).detach()) == 0


@pytest.mark.parametrize("radius", [0, 1, 3, 9])
def test_window_sums_and_their_gradients_are_those_of_the_mean_times_the_area(radius: int) -> None:
    maps = torch.rand(2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps.requires_grad_()
    window = 2 * radius + 1
    padded = torch.nn.functional.pad(maps, (radius,) * 4)
    expected = torch.nn.functional.avg_pool2d(padded, window, stride=1) * window**2
    torch.testing.assert_close(window_sum(maps, radius), expected)
    assert torch.autograd.gradcheck(lambda values: window_sum(values, radius), [maps])


def test_points_behind_the_camera_are_far_away() -> None:
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]]])
    points = warp(homography, torch.tensor([[[5.0, 5.0], [50.0, 5.0]]]))
    torch.testing.assert_close(points[0, 0], torch.tensor([10.0, 10.0]))
    assert points[0, 1].min() == 1e6
