"""The network while it trains: normalised or not, optionally with its first stage frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.network.torch_network import (
    ConvBlock,
    Encoded,
    NetworkConfig,
    SuperPointNet,
    fold_batchnorm,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TrainingNorm = Literal["before_relu", "none"]


class ImageConvolution(nn.Conv2d):
    """The first convolution, which takes one channel.

    In bfloat16 oneDNN runs a convolution of one channel ten times slower than one of two (11.1
    and 1.0 ms, forward, 16 images of 240 x 320 on two cores with AMX), so a second channel of
    zeros is added there. The parameters and the result are those of the plain convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) or (B, 3, H, W) -> (B, C_out, H / stride, W / stride)."""
        in_bfloat16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        return _convolve(x, self, self.weight, self.bias, padded=in_bfloat16)


def _convolve(
    x: Tensor, like: nn.Conv2d, weight: Tensor, bias: Tensor | None, *, padded: bool
) -> Tensor:
    """What ``like`` does, with other parameters; ``padded`` adds a channel of zeros to a grey x."""
    if padded and x.shape[1] == 1:
        x = torch.cat([x, torch.zeros_like(x)], dim=1).contiguous(memory_format=torch.channels_last)
        weight = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    if padded:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, bias, stride=like.stride, padding=like.padding)


class Trainable(nn.Module):
    """What the loop trains: a module that says what it is made of."""

    @property
    def config(self) -> DataclassInstance:
        """Sizes of the network, as a checkpoint keeps them."""
        raise NotImplementedError

    @property
    def frozen(self) -> bool:
        """Whether a part of it has stopped learning."""
        return False

    def freeze_stem(self) -> None:
        """Stop training the first stage, for networks that have one."""


class TrainingNetwork(Trainable):
    """A :class:`SuperPointNet` whose first stage can stop learning.

    The first stage works at the highest resolution and costs almost half of a step. Once frozen it
    runs folded and without gradients, which makes a step a third to a half cheaper on a CPU.

    Args:
        seed: Seed of the initial weights.
        config: Architecture; its ``norm`` is "before_relu", or "none" to train folded weights.
    """

    def __init__(self, seed: int, config: NetworkConfig | None = None) -> None:
        super().__init__()
        config = config or NetworkConfig(norm="before_relu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = SuperPointNet(config)
            for module in self.net.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(cast(Tensor, module.bias))
            # Almost every cell is empty: start by saying so.
            nn.init.constant_(cast(Tensor, self.net.detector_output.conv.bias)[-1:], 4.0)
            nn.init.normal_(self.net.detector_output.conv.weight, std=0.01)
            first = cast(ConvBlock, self.net.encoder[0])
            first.conv = _image_convolution(first.conv)
        self._stem: list[tuple[Tensor, Tensor]] | None = None

    @property
    def config(self) -> NetworkConfig:
        """Config of the network."""
        return self.net.config

    @property
    def frozen(self) -> bool:
        """Whether the first stage has stopped learning."""
        return self._stem is not None

    @property
    def stem(self) -> list[ConvBlock]:
        """The layers of the first stage."""
        blocks = list(self.net.encoder)[: self.net.config.depths[0]]
        return [cast(ConvBlock, block) for block in blocks]

    def freeze_stem(self) -> None:
        """Stop training the first stage; its parameters and statistics keep their values."""
        device = next(self.parameters()).device
        folded = fold_batchnorm(self.net).to(device).state_dict()
        self._stem = [
            (folded[f"encoder.{k}.conv.weight"], folded[f"encoder.{k}.conv.bias"])
            for k in range(len(self.stem))
        ]
        for layer in self.stem:
            layer.requires_grad_(False)

    def encode(self, images: Tensor) -> Encoded:
        """(B, C, H, W) uint8 or float in [0, 1] -> what the heads take."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        if self._stem is None:
            return self.net.encode(x)
        in_bfloat16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        with torch.no_grad():
            for layer, (weight, bias) in zip(self.stem, self._stem, strict=True):
                x = F.relu(_convolve(x, layer.conv, weight, bias, padded=in_bfloat16), inplace=True)
        return self.net.later_stages(x)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits and unit dense descriptors, as :class:`SuperPointNet`."""
        features = self.encode(images)
        return self.net.detect(features), self.net.describe(features)


def _image_convolution(plain: nn.Conv2d) -> ImageConvolution:
    """The same parameters in an :class:`ImageConvolution`."""
    made = ImageConvolution(
        plain.in_channels,
        plain.out_channels,
        cast("tuple[int, int]", plain.kernel_size),
        stride=cast("tuple[int, int]", plain.stride),
        padding=cast("tuple[int, int]", plain.padding),
    )
    made.load_state_dict(plain.state_dict())
    return made


def from_folded(net: SuperPointNet) -> TrainingNetwork:
    """A folded network made trainable as it is, without normalisation.

    Its function is the same in training and in inference, and on a CPU a step takes two thirds of
    the time. It suits small rates and trained weights; from nothing a network needs normalisation.
    """
    network = TrainingNetwork(0, replace(net.config, norm="none"))
    network.net.load_state_dict(net.state_dict())
    return network


def unfold_batchnorm(net: SuperPointNet, images: Tensor) -> TrainingNetwork:
    """A folded network made trainable again, for fine-tuning.

    Folding throws the statistics away. New normalisations take mean and spread of every layer from
    ``images``, and give them back by their scale and shift, so that the function stays the same
    and learning goes on under the conditions in which the network was trained.

    Args:
        net: Folded (``norm="none"``).
        images: (B, C, H, W) in [0, 1], of the kind to be fine-tuned on.

    Returns:
        A network whose evaluation mode computes what ``net`` computes.
    """
    network = TrainingNetwork(0, replace(net.config, norm="before_relu"))
    blocks = dict(net.named_modules())
    handles = []

    def calibrate(target: ConvBlock) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            norm = target.norm
            assert norm is not None
            mean = output.float().mean(dim=(0, 2, 3))
            variance = output.float().var(dim=(0, 2, 3), unbiased=False)
            # A channel that says nothing here must not be blown up by its tiny spread.
            variance = variance.clamp(min=1e-4)
            cast(Tensor, norm.running_mean).copy_(mean)
            cast(Tensor, norm.running_var).copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean)

        return hook

    with torch.no_grad():
        for name, block in network.net.named_modules():
            if not isinstance(block, ConvBlock):
                continue
            source = cast(ConvBlock, blocks[name])
            block.conv.load_state_dict(source.conv.state_dict())
            if block.norm is not None:
                handles.append(source.conv.register_forward_hook(calibrate(block)))
        net(images)
    for handle in handles:
        handle.remove()
    return network
