"""What CUDA graphs record has nothing in it that a recording refuses, in every option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from capture import NotRecordableError, Recordable
from torch import Tensor

from cv_superpoint.backends.torch import recorded
from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.tensors import most_keypoints
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet

SMALL = {"channels": (4, 4, 6, 8), "head_channels": 8, "descriptor_dim": 8}
NETWORKS = {
    "Magic Leap, Hugging Face, superpoint": NetworkConfig(**SMALL),
    "rpautrat": NetworkConfig(norm="after_relu", output_norm=True, norm_eps=1e-3, **SMALL),
    "eric-yyjau, not folded": NetworkConfig(norm="before_relu", output_norm=True, **SMALL),
    "colour": NetworkConfig(in_channels=3, **SMALL),
    "no descriptors": NetworkConfig(**{**SMALL, "descriptor_dim": 0}),
    "superpoint-lite": NetworkConfig(
        channels=(4, 6, 8), depths=(1, 2, 2), downsampling="stride", detector_skips=True,
        head_channels=8, descriptor_dim=8,
    ),
}  # fmt: skip
DECODINGS = [
    Decoding(
        max_keypoints=count, nms_radius=nms, score_radius=score, subpixel=subpixel,
        score_threshold=threshold,
    )
    for count, nms, score, subpixel, threshold in [
        *product((1, 5000), (0, 1, 4), (0, 2), (True, False), (0.01,)),
        (10, 2**31 - 1, 32, True, 0.0),
    ]
]  # fmt: skip


def recording(
    config: NetworkConfig,
    decoding: Decoding,
    *,
    dtype: torch.dtype,
    batch: int,
    device: str,
    masked: bool = True,
) -> Recordable:
    """Run what is recorded, under a look at every operator."""
    net = SuperPointNet(config).eval().requires_grad_(False).to(device, dtype)
    net = net.to(memory_format=torch.channels_last)
    pixels = torch.zeros(batch, 24, 32, config.in_channels, dtype=torch.uint8, device=device)
    frames = torch.tensor([[21, 30, 4, 4, 17, 26]] * batch, dtype=torch.int32, device=device)
    allowed = torch.ones(batch, 24, 32, dtype=torch.bool, device=device)
    work = recorded(net, dtype, decoding, min(2000, most_keypoints((24, 32), decoding)))
    with torch.no_grad(), Recordable(device) as mode:
        work(pixels, frames, *([allowed] if masked else []))
    return mode


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_recorded_can_be(name: str, dtype: torch.dtype, device: str) -> None:
    mode = recording(NETWORKS[name], DECODINGS[0], dtype=dtype, batch=2, device=device)
    assert sum("convolution" in kernel for kernel in mode.kernels) >= 9


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("batch", "masked"), [(1, False), (3, True)])
@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_every_option_can_be_recorded(
    decoding: Decoding, batch: int, masked: bool, device: str
) -> None:
    config = NETWORKS["colour"]
    recording(config, decoding, dtype=torch.float32, batch=batch, device=device, masked=masked)


def _as_before(dense: Tensor, points: Tensor) -> Tensor:
    """``sample_descriptors`` of the first release, which made a tensor of the map's sides."""
    h, w = dense.shape[-2:]
    cells = (points - 3.5) / 8
    grid = (2 * cells + 1) / points.new_tensor((w, h)) - 1
    sampled = F.grid_sample(dense, grid[:, :, None], align_corners=False)
    return F.normalize(sampled[..., 0].transpose(1, 2), dim=-1)


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "numbers of the host, as before": lambda x: _as_before(x[None], x[:1, :, :2]),
    "torch.tensor": lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
    "torch.as_tensor": lambda x: x + torch.as_tensor([1.0, 2.0, 3.0, 4.0]).to(x.device),
    "from numpy": lambda x: x + torch.from_numpy(np.ones(4, np.float32)).to(x.device),
    "made elsewhere": lambda x: x + torch.arange(4).to(x.device),
    "to the host": lambda x: x.sum().to("cpu"),
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: x * float(x.sum()),
    "a condition": lambda x: x if x.sum() > 0 else -x,
    "nonzero": lambda x: x.nonzero(),
    "where without values": lambda x: torch.where(x > 0),
    "booleans as an index": lambda x: x[x > 0],
    "assigned by booleans": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeats that are values": lambda x: x.repeat_interleave((x[:, 0, 0] > 0).long(), dim=0),
    "a part as long as a value": lambda x: x[: int(x.sum())],
    "not checked": lambda x: torch.linalg.svd(x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_stream_refuses_is_refused(name: str) -> None:
    """Numbers of the host are seen on the CPU, and what is elsewhere on "meta"."""
    seen = []
    for device in ("cpu", "meta"):
        x = torch.linspace(-1, 1, 48).reshape(3, 4, 4).to(device)
        try:
            with torch.no_grad(), Recordable(device):
                REFUSED[name](x)
        except (NotRecordableError, RuntimeError) as error:  # of torch, where "meta" has no values
            seen.append(str(error))
    assert seen, name


def test_the_kernels_of_a_call_are_counted() -> None:
    """A recording launches them all at once; outside one, each costs the host microseconds."""
    decoding = replace(DECODINGS[0], nms_radius=4, score_radius=2, subpixel=True)
    mode = recording(
        NETWORKS["Magic Leap, Hugging Face, superpoint"],
        decoding, dtype=torch.float16, batch=1, device="meta",
    )  # fmt: skip
    assert len(mode.kernels) < 145
