from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch.utils.data import default_collate

from train.data.images import ImageConfig
from train.data.pairs import LabelledImage
from train.export import folded_weights
from train.learning import checkpoint
from train.learning.loop import Trainer
from train.learning.losses import cell_pairs, dense_hinge_loss
from train.recipes import RECIPES, smoke
from train.stages.joint import Joint

SIZES = ImageConfig(shorter_side=96, longest_side=128)


@pytest.fixture
def task(tmp_path: Path) -> Joint:
    path = tmp_path / "camera.png"
    cv2.imwrite(str(path), data.camera())
    rng = np.random.default_rng(0)
    images = [LabelledImage(path, rng.uniform(5, 90, (60, 2)).astype(np.float32))]
    return Joint(smoke().joint, 0, images, [path], SIZES)


def test_every_parameter_that_learns_gets_a_gradient(task: Joint) -> None:
    batch = default_collate([task.dataset()[i] for i in range(2)])
    loss, parts = task.loss(batch)
    loss.backward()
    assert set(parts) == {"detector", "descriptor", "scale"}
    without = [n for n, p in task.network.named_parameters() if p.grad is None]
    assert without == []


def test_what_needs_no_labels_is_part_of_the_loss(task: Joint) -> None:
    batch = default_collate([task.dataset()[i] for i in range(2)])
    task.config = replace(task.config, keypoint_threshold=0.0)
    without, _ = task.loss(batch)
    task.config = replace(
        task.config, reprojection_weight=0.5, spread_weight=0.1, agreement_weight=0.5
    )
    total, parts = task.loss(batch)
    assert parts["reprojection"] > 0
    assert parts["agreement"] > 0
    # The statistics of the normalisations moved in between, but not what the batch gives.
    expected = without + 0.5 * parts["reprojection"] + 0.1 * parts["spread"]
    expected = expected + 0.5 * parts["agreement"]
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def test_positions_are_in_float32_where_the_network_is_in_bfloat16(tmp_path: Path) -> None:
    # In bfloat16 a position right of 256 pixels is off by up to one.
    path = tmp_path / "camera.png"
    cv2.imwrite(str(path), data.camera())
    sizes = ImageConfig(shorter_side=320, longest_side=480)
    task = Joint(
        replace(smoke().joint, reprojection_weight=1.0, agreement_weight=1.0, keypoint_threshold=0),
        0, [LabelledImage(path, np.full((1, 2), 50, np.float32))], [], sizes,
    )  # fmt: skip
    photograph = cv2.resize(data.camera(), (400, 320), interpolation=cv2.INTER_AREA)
    item = task.dataset()[0]
    batch = default_collate([item])
    batch["image0"], batch["image1"] = (
        torch.from_numpy(np.ascontiguousarray(photograph[None, None, 16:80, x : x + 336]))
        for x in (40, 48)
    )
    shift = torch.eye(3)[None]
    shift[0, 0, 2] = -8
    cells = torch.zeros(1, 8, 42, dtype=torch.bool)
    cells[:, 2:6, 8:36] = True
    batch |= {"homography": shift, "valid0": cells, "valid1": cells}
    batch |= {f"targets{k}": torch.full((1, 65, 8, 42), 1 / 65) for k in range(2)}
    task.network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, parts = task.loss(batch)
        both = torch.cat([batch["image0"], batch["image1"]])
        outputs = [maps.float() for maps in task.network(both)]
    with torch.no_grad():
        _, expected = task._loss(batch, both, *outputs)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-5)
    # The views differ by whole cells, so the network finds the same in both.
    assert parts["reprojection"] < 0.02


def test_hinge_is_the_other_choice(task: Joint) -> None:
    batch = default_collate([task.dataset()[i] for i in range(2)])
    task.config = replace(task.config, descriptor_loss="dense_hinge")
    _, parts = task.loss(batch)
    _, dense = task.network(torch.cat([batch["image0"], batch["image1"]]))
    expected = dense_hinge_loss(*dense.chunk(2), *cell_pairs(batch))
    torch.testing.assert_close(parts["descriptor"], expected, rtol=1e-3, atol=1e-4)


def test_cell_pairs_follow_the_points(task: Joint) -> None:
    item = task.dataset()[3]
    centres, valid = cell_pairs(default_collate([item]))
    cells = np.flatnonzero(item["visible"].numpy())
    # A cell's point is at most half a cell's diagonal away from its centre, in both images.
    distance = np.linalg.norm(centres[0].numpy()[cells] - item["points1"].numpy()[cells], axis=1)
    assert len(cells) > 10
    assert np.median(distance) < 6
    assert valid.any()


def test_starting_weights_are_taken_but_not_the_temperature(task: Joint) -> None:
    other = Joint(task.config, 1, task.images, [], SIZES)
    with torch.no_grad():
        task.log_scale.fill_(9.0)
    trained = {k: v for k, v in task.network.state_dict().items() if k != "log_scale"}
    other.start_from(trained)
    assert torch.equal(
        other.network.net.encoder[0].conv.weight, task.network.net.encoder[0].conv.weight
    )
    assert other.log_scale.item() == pytest.approx(-np.log(0.07), rel=1e-6)


def test_pairs_of_the_device_train_as_those_of_workers_do(task: Joint, tmp_path: Path) -> None:
    config = replace(task.config, pairs="device", reprojection_weight=1.0, keypoint_threshold=0.0)
    twin = Joint(config, 0, task.images, [], SIZES)
    loop = replace(config.loop, steps=2, workers=0)
    trainer = Trainer(twin, loop, tmp_path)
    given = next(trainer.batches())
    expected = default_collate([task.dataset()[i] for i in range(loop.batch_size)])
    assert {k: (v.shape, v.dtype) for k, v in given.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    trainer.fit()
    assert checkpoint.load(tmp_path / "joint.pt")["finished"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_can_be_planned(name: str) -> None:
    config = RECIPES[name]()
    planned = config.within(25, "all")
    assert planned.joint.loop.minutes > 3
    assert planned.joint.loop.steps == 0
    assert config.joint.loop.batch_size % 2 == 0


def test_colour_is_three_channels_from_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "coffee.png"
    cv2.imwrite(str(path), cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2BGR))
    points = np.random.default_rng(0).uniform(5, 90, (60, 2)).astype(np.float32)
    sizes = replace(SIZES, colour=True)
    config = smoke().joint
    task = Joint(config, 0, [LabelledImage(path, points)], [path], sizes)
    Trainer(task, replace(config.loop, steps=1), tmp_path).fit()
    net = folded_weights(tmp_path / "joint.pt").net
    assert net.config.in_channels == 3
    assert net.encoder[0].conv.weight.shape == (64, 3, 3, 3)
