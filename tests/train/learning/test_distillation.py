"""What a trained network adds to the targets of another one; float32 and one thread or as said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.utils.data import default_collate

from cv_superpoint.weights import load_weights
from train.data.images import ImageConfig
from train.data.pairs import LabelledImage
from train.learning.distillation import DistillationConfig, Teacher
from train.learning.losses import Taught, dual_softmax_loss, dual_softmax_terms
from train.learning.model import from_folded
from train.recipes import smoke
from train.stages.joint import Joint, JointConfig

LITE = "superpoint-lite"


def unit(*shape: int, seed: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def test_a_taught_dual_softmax_agrees_with_a_plain_loop() -> None:
    first, second = unit(1, 5, 8, seed=0), unit(1, 5, 8, seed=1)
    theirs = Taught(unit(1, 5, 6, seed=2), unit(1, 5, 6, seed=3), 5.0, 0.3)
    # The first two are too near to each other to be told apart; the last is not visible.
    points = torch.tensor([[[0, 0], [1, 1], [20, 0], [40, 0], [60, 9]]]).float()
    visible = torch.tensor([[True, True, True, True, False]])
    own = 7.0 * (first[0] @ second[0].T).double().numpy()
    taught = 5.0 * (theirs.descriptors0[0] @ theirs.descriptors1[0].T).double().numpy()
    losses = []
    for i in range(4):
        rivals = [j for j in range(4) if j == i or not {i, j} <= {0, 1}]
        for rows, their_rows in (
            (own[i, rivals], taught[i, rivals]),
            (own[rivals, i], taught[rivals, i]),
        ):
            said = rows - np.log(np.exp(rows).sum())
            target = 0.3 * np.exp(their_rows) / np.exp(their_rows).sum()
            target[rivals.index(i)] += 0.7
            losses.append(-(target * said).sum())
    loss = dual_softmax_loss(first, second, points, visible, 7.0, taught=theirs)
    np.testing.assert_allclose(float(loss), np.mean(losses), rtol=1e-5)
    # What a GPU computes, on the CPU.
    terms = dual_softmax_terms(first, second, points, visible, 7.0, 4.0, theirs)
    torch.testing.assert_close((terms * visible).sum() / visible.sum(), loss)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs") / "camera.png"
    cv2.imwrite(str(path), skimage.data.camera())
    return path


def task_of(photograph: Path, distillation: DistillationConfig) -> Joint:
    """A student that begins as ``superpoint-lite``, without normalisation."""
    rng = np.random.default_rng(0)
    labels = [LabelledImage(photograph, rng.uniform(5, 90, (60, 2)).astype(np.float32))]
    config: JointConfig = replace(smoke().joint, norm="none", distillation=distillation)
    net = load_weights(LITE).net
    sizes = ImageConfig(shorter_side=96, longest_side=128)
    task = Joint(config, 0, labels, [photograph], sizes, network=net.config)
    task.start_from(from_folded(net).state_dict())
    return task


def gradient(photograph: Path, distillation: DistillationConfig) -> float:
    """Length of the gradient of the detector's last layer for two pairs."""
    task = task_of(photograph, distillation)
    batch = default_collate([task.dataset()[i] for i in range(2)])
    _, parts = task.loss(batch)
    parts["detector"].backward()
    return float(task.network.net.detector_output.conv.weight.grad.norm())


def test_a_student_that_says_what_its_teacher_says_learns_nothing_from_it(
    photograph: Path,
) -> None:
    alike = gradient(photograph, DistillationConfig(teacher=LITE, detector=1.0))
    by_labels = gradient(photograph, DistillationConfig())
    # The teacher may run in 8 bits.
    assert alike < 0.05 * by_labels


def test_both_terms_are_part_of_the_loss(photograph: Path) -> None:
    task = task_of(photograph, DistillationConfig())
    batch = default_collate([task.dataset()[i] for i in range(2)])
    _, plain = task.loss(batch)
    taught = task_of(photograph, DistillationConfig(teacher=LITE, detector=0.5, descriptor=0.5))
    _, parts = taught.loss(batch)
    for name in ("detector", "descriptor"):
        assert parts[name].item() != pytest.approx(plain[name].item(), rel=1e-3)


def test_a_teacher_says_the_same_on_every_device() -> None:
    image = torch.from_numpy(skimage.data.camera()[100:260, 100:308].copy())[None, None]
    teacher = Teacher(LITE, 1)
    found, dense = teacher(image)
    as_floats, _ = teacher(image.float() / 255)
    torch.testing.assert_close(found, as_floats)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 20, 26))
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 20, 26))
    # What another device does, on the CPU; the backend may run in 8 bits.
    with torch.no_grad():
        logits, other = teacher._on_device(image)
    assert float((found - logits.softmax(dim=1)).abs().mean()) < 0.002
    assert float((dense * torch.nn.functional.normalize(other, dim=1)).sum(dim=1).mean()) > 0.99


def test_what_cannot_be_taught_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 1 channels and the images have 3"):
        Teacher(LITE, 3)
    with pytest.raises(ValueError, match=r"share in \[0, 1\], got 1.5"):
        DistillationConfig(detector=1.5)
    with pytest.raises(ValueError, match="set descriptor_loss to dual_softmax"):
        JointConfig(descriptor_loss="dense_hinge", distillation=DistillationConfig(descriptor=0.5))
