"""The matcher's loss, and that a network learns by it."""

import numpy as np
import pytest
import torch

from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.network import Assignment, MatcherNet
from train.learning.matching import matching_loss, mutual_matches, precision_and_recall


def labelled(matches0: list[list[int]], matches1: list[list[int]]) -> dict[str, torch.Tensor]:
    return {"matches0": torch.tensor(matches0), "matches1": torch.tensor(matches1)}


def test_the_loss_is_the_log_likelihood_of_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(1, 4, 3, generator=generator)
    matchable = [torch.randn(1, n, generator=generator) for n in (4, 3)]
    batch = labelled([[2, -1, 0, -2]], [[2, -1, 0]])
    assignment = Assignment(similarity, *matchable)
    scores = assignment.scores()[0].numpy()
    found = -np.mean([np.log(scores[0, 2]), np.log(scores[2, 0])])
    alone = [1 / (1 + np.exp(float(logits[0, 1]))) for logits in matchable]  # 1 - sigmoid
    expected = found / 2 - (np.log(alone[0]) + np.log(alone[1])) / 4
    loss, parts = matching_loss([assignment, assignment], batch)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    np.testing.assert_allclose(float(parts["matched"]), found, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, -2])
def test_pairs_without_matches_have_a_finite_loss(label: int) -> None:
    net = MatcherNet(MatcherConfig(descriptor_dim=8, width=16, layers=1))
    points, rows = torch.zeros(1, 5, 2), torch.randn(1, 5, 8)
    valid = torch.arange(5)[None] < 2
    loss, _ = matching_loss(
        net(points, points, rows, rows, valid, valid), labelled([[label] * 5], [[label] * 5])
    )
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [each.grad for each in net.parameters() if each.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_matches_are_each_other_s_best() -> None:
    scores = torch.tensor([[[0.9, 0.1, 0.0], [0.8, 0.05, 0.0], [0.0, 0.0, 0.05]]])
    assert mutual_matches(scores, 0.02).tolist() == [[0, -1, 2]]
    assert mutual_matches(scores, 0.1).tolist() == [[0, -1, -1]]


def test_precision_counts_what_is_known() -> None:
    batch = labelled([[0, -1, 2, -2]], [[0, -1, 2, -2]])
    measures = precision_and_recall([torch.tensor([[0, 1, -1, 3]])], [batch])
    assert measures == {"precision": 0.5, "recall": 0.5}


def test_a_network_learns_pairs_by_heart() -> None:
    # Ten pairs of random features, some of which turn up in both: float32, one thread.
    generator = torch.Generator().manual_seed(1)
    rows0, rows1 = torch.randn(2, 10, 12, 16, generator=generator)
    points0, points1 = torch.rand(2, 10, 12, 2, generator=generator) * 2 - 1
    order = torch.stack([torch.randperm(12, generator=generator) for _ in range(10)])
    labels0 = torch.full((10, 12), -1)
    labels1 = torch.full((10, 12), -1)
    for pair in range(10):
        for i in range(6):
            j = int(order[pair, i])
            rows1[pair, j] = rows0[pair, i] + 0.5 * torch.randn(16, generator=generator)
            points1[pair, j] = -points0[pair, i]
            labels0[pair, i], labels1[pair, j] = j, i
    rows0, rows1 = (torch.nn.functional.normalize(rows, dim=2) for rows in (rows0, rows1))
    batch = {"matches0": labels0, "matches1": labels1}
    torch.manual_seed(0)
    net = MatcherNet(MatcherConfig(descriptor_dim=16, width=32, layers=2))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(120):
        found = net(points0, points1, rows0, rows1)
        loss, _ = matching_loss(found, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    measures = precision_and_recall([mutual_matches(found[-1].scores().detach(), 0.1)], [batch])
    assert measures["precision"] > 0.95
    assert measures["recall"] > 0.95
