import math

import numpy as np
import torch

from train.learning.losses import (
    dense_hinge_loss,
    detector_loss,
    dual_softmax_loss,
    dual_softmax_terms,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def test_detector_loss_is_the_cross_entropy_of_valid_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 65, 3, 4, generator=generator)
    labels = torch.randint(0, 65, (2, 3, 4), generator=generator)
    valid = torch.rand(2, 3, 4, generator=generator) > 0.4
    targets = torch.nn.functional.one_hot(labels, 65).permute(0, 3, 1, 2).float()
    every = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(detector_loss(logits, targets), every.mean())
    torch.testing.assert_close(detector_loss(logits, targets, valid), every[valid].mean())
    nothing = torch.zeros_like(valid)
    assert detector_loss(logits, targets, nothing) == 0


def test_dual_softmax_agrees_with_a_plain_loop() -> None:
    first, second = unit(1, 6, 8), unit(1, 6, 8, seed=1)
    points = torch.tensor([[[0, 0], [1, 1], [20, 0], [40, 0], [60, 9], [80, 9]]]).float()
    visible = torch.tensor([[True, True, True, True, False, True]])
    scale = 7.0
    similarity = scale * (first[0] @ second[0].T).numpy()
    losses = []
    for i in np.flatnonzero(visible[0].numpy()):
        rivals = [
            j
            for j in np.flatnonzero(visible[0].numpy())
            if j == i or math.dist(points[0, i], points[0, j]) >= 4
        ]
        rows = (similarity[i, rivals], similarity[rivals, i])
        losses += [np.log(np.exp(row).sum()) - similarity[i, i] for row in rows]
    loss = dual_softmax_loss(first, second, points, visible, scale)
    np.testing.assert_allclose(float(loss), np.mean(losses), rtol=1e-5)


def test_dual_softmax_of_a_whole_batch_is_that_of_its_pairs() -> None:
    first, second = (unit(3, 40, 8, seed=seed).requires_grad_() for seed in (0, 1))
    generator = torch.Generator().manual_seed(2)
    points = 60 * torch.rand(3, 40, 2, generator=generator)
    visible = torch.rand(3, 40, generator=generator) < 0.6
    visible[1] = False
    scale = torch.tensor(9.0, requires_grad=True)
    inputs = (first, second, scale)
    one_by_one = dual_softmax_loss(first, second, points, visible, scale)
    # What a GPU computes, on the CPU.
    terms = dual_softmax_terms(first, second, points, visible, scale, 4.0)
    together = (terms * visible).sum() / visible.sum()
    torch.testing.assert_close(one_by_one, together)
    for own, other in zip(
        torch.autograd.grad(one_by_one, inputs), torch.autograd.grad(together, inputs), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_dual_softmax_without_visible_points_is_zero_and_has_a_gradient() -> None:
    first = unit(1, 5, 8).requires_grad_()
    loss = dual_softmax_loss(
        first, unit(1, 5, 8, seed=1), torch.zeros(1, 5, 2), torch.zeros(1, 5, dtype=torch.bool), 5.0
    )
    loss.backward()
    assert loss == 0
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_dense_hinge_agrees_with_a_plain_loop() -> None:
    h, w, dim = 2, 3, 8
    first, second = (unit(1, h, w, dim, seed=s).permute(0, 3, 1, 2) for s in (0, 1))
    centres = torch.tensor([[8 * j + 3.5, 8 * i + 3.5] for i in range(h) for j in range(w)])
    warped = (centres + torch.tensor([5.0, 1.0]))[None]
    valid = torch.rand(1, h * w, h * w, generator=torch.Generator().manual_seed(2)) > 0.3
    total = 0.0
    for a in range(h * w):
        for b in range(h * w):
            if not valid[0, a, b]:
                continue
            product = float(first[0, :, a // w, a % w] @ second[0, :, b // w, b % w])
            if math.dist(warped[0, a], centres[b]) <= 8:
                total += 250 * max(0.0, 1 - product)
            else:
                total += max(0.0, product - 0.2)
    loss = dense_hinge_loss(first, second, warped, valid)
    np.testing.assert_allclose(float(loss), total / int(valid.sum()), rtol=1e-5)
