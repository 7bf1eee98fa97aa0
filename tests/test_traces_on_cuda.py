"""Everything that runs on a GPU, traced with tensors that say "cuda" and hold no values.

A CUDA build of torch can do that without a GPU: operators choose the device, the type and the shape
of their results as they do with one, and refuse tensors that lie on different devices.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from capture import Recordable, Unsynchronised
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import default_collate

from cv_superpoint.backends.torch import recorded
from cv_superpoint.decoding import Decoding, tensors
from cv_superpoint.detector.module import SuperPoint
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from train.data.images import ImageConfig
from train.data.on_device import DevicePairs
from train.data.pairs import LabelledImage, PairConfig
from train.recipes import smoke
from train.stages.adapt import AdaptConfig, average_on_device, sample_views
from train.stages.joint import Joint

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch was not built for CUDA"
)
NETWORKS = {
    "superpoint": NetworkConfig(),
    "rpautrat": NetworkConfig(norm="after_relu", output_norm=True, norm_eps=1e-3),
    "no descriptors": NetworkConfig(descriptor_dim=0),
    "superpoint-lite": NetworkConfig(
        channels=(32, 48, 64), depths=(1, 2, 2), downsampling="stride", detector_skips=True,
        head_channels=64, descriptor_dim=64,
    ),
}  # fmt: skip


def fake() -> FakeTensorMode:
    """Tensors made from here on hold no values; networks are made before."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Generator(torch.Generator):
    """One of the CPU that says it is a GPU's, which only a GPU can make."""

    def __new__(cls, device: torch.device | str) -> Generator:
        generator: Generator = super().__new__(cls)
        generator.asked = torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self.asked


@pytest.fixture(autouse=True)
def as_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch asks the driver for, which is not there."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)


def on_cuda(*tensors: Tensor) -> None:
    assert {str(tensor.device) for tensor in tensors} == {"cuda:0"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_recorded(name: str, dtype: torch.dtype) -> None:
    config = NETWORKS[name]
    net = SuperPointNet(config).eval().requires_grad_(False)
    with fake(), torch.device("cuda"):
        net = net.to("cuda", dtype)
        pixels = torch.zeros(2, 480, 640, 1, dtype=torch.uint8)
        frames = torch.zeros(2, 6, dtype=torch.int32)
        allowed = torch.ones(2, 480, 640, dtype=torch.bool)
        for subpixel, radius, masks in [(True, 4, []), (False, 0, [allowed])]:
            decoding = Decoding(subpixel=subpixel, nms_radius=radius, score_radius=radius // 2)
            work = recorded(net, dtype, decoding, 1000)
            with torch.no_grad(), Recordable("cuda"):
                answer = work(pixels, frames, *masks)
            on_cuda(answer)
            assert answer.dtype == torch.float32
            assert answer.shape == (2 * (1 + 1000 * (3 + config.descriptor_dim)),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_module(dtype: torch.dtype) -> None:
    """But for the number of its keypoints, which without values is not known."""
    module = SuperPoint(SuperPointNet())
    with fake():
        module = module.to("cuda", dtype)
        heatmap, dense = module.dense(torch.zeros(2, 1, 117, 160, dtype=dtype, device="cuda"))
        found, scores = tensors.keypoint_scores(heatmap, module.decoding)
        rows = torch.zeros(2, 50, dtype=torch.int64, device="cuda")
        points = tensors.positions(heatmap, rows, rows, module.decoding)
        rows_of = tensors.sample_descriptors(dense, points)
        on_cuda(heatmap, dense, found, scores, points, rows_of)
        assert {one.dtype for one in (heatmap, dense, scores, points, rows_of)} == {dtype}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    path = tmp_path_factory.mktemp("photographs") / "camera.png"
    cv2.imwrite(str(path), skimage.data.camera())
    points = np.random.default_rng(0).uniform(5, 90, (60, 2)).astype(np.float32)
    return [LabelledImage(path, points)] * 3


@pytest.mark.parametrize("colour", [False, True])
def test_pairs_made_on_the_device(photographs: list[LabelledImage], colour: bool) -> None:
    sizes = ImageConfig(shorter_side=96, longest_side=128, colour=colour)
    config = PairConfig(size=(96, 128), drawings=0.2)
    with fake():
        pairs = DevicePairs(0, photographs, sizes, config, "cuda")
        with Unsynchronised():
            batch = pairs.batch(0, 4)
    on_cuda(*batch.values())
    expected = DevicePairs(0, photographs, sizes, config, "cpu").batch(0, 4)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }


def test_adaptation_on_the_device() -> None:
    image = np.ascontiguousarray(skimage.data.camera()[:96, :128])
    config = AdaptConfig(views=6, batch_size=4)
    views = sample_views(np.random.default_rng(0), image.shape, config)
    net = SuperPointNet().eval()
    with fake():
        average = average_on_device(image, views, net.to("cuda"), config, "bfloat16")
    on_cuda(average)
    assert (average.shape, average.dtype) == (image.shape, torch.float32)


def test_a_step_of_joint_training(photographs: list[LabelledImage]) -> None:
    """But for the way back, for which torch needs the GPU itself; the next test has that."""
    sizes = ImageConfig(shorter_side=96, longest_side=128)
    task = Joint(smoke().joint, 0, photographs, [photographs[0].path], sizes)
    batch = default_collate([task.dataset()[i] for i in range(2)])
    with fake():
        task.network.to("cuda", memory_format=torch.channels_last)
        # Parameters with values stay the same objects; those without are others.
        task.log_scale = task.network.log_scale
        on_device = {name: value.to("cuda") for name, value in batch.items()}
        with Unsynchronised(), torch.autocast("cuda", torch.bfloat16):
            loss, parts = task.loss(on_device)
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer = torch.optim.Adam(task.parameters(), fused=True)
        with Unsynchronised():
            norm = torch.nn.utils.clip_grad_norm_(task.parameters(), 10.0)
            optimizer.step()
        on_cuda(loss, norm, *parts.values())
        on_cuda(*(value for one in optimizer.state.values() for value in one.values()))
