"""The network while it trains: batch normalised, optionally with its first stage frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_superpoint.network import ConvBlock, NetworkConfig, SuperPointNet, fold_batchnorm

STEM_LAYERS = 2
STAGE_STARTS = (2, 4, 6)


class TrainingNetwork(nn.Module):
    """A :class:`SuperPointNet` whose first stage can stop learning.

    The first stage works at full resolution and costs almost half of a step. Once frozen it runs
    folded and without gradients, which makes a step a third to a half cheaper on a CPU.
    """

    def __init__(self, seed: int, in_channels: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = SuperPointNet(NetworkConfig(in_channels=in_channels, norm="before_relu"))
            for module in self.net.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(cast(Tensor, module.bias))
            # Almost every cell is empty: start by saying so.
            nn.init.constant_(cast(Tensor, self.net.detector_output.conv.bias)[-1:], 4.0)
            nn.init.normal_(self.net.detector_output.conv.weight, std=0.01)
        self._stem: list[tuple[Tensor, Tensor]] | None = None

    @property
    def frozen(self) -> bool:
        """Whether the first stage has stopped learning."""
        return self._stem is not None

    def freeze_stem(self) -> None:
        """Stop training the first stage; its parameters and statistics keep their values."""
        device = next(self.parameters()).device
        folded = fold_batchnorm(self.net).to(device).state_dict()
        self._stem = [
            (folded[f"encoder.{k}.conv.weight"], folded[f"encoder.{k}.conv.bias"])
            for k in range(STEM_LAYERS)
        ]
        for layer in list(self.net.encoder)[:STEM_LAYERS]:
            layer.requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float in [0, 1] -> shared features (B, 128, H/8, W/8)."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        if self._stem is None:
            return self.net.encode(x)
        with torch.no_grad():
            for weight, bias in self._stem:
                x = F.relu(F.conv2d(x, weight, bias, padding=1), inplace=True)
        for index, layer in enumerate(self.net.encoder):
            if index in STAGE_STARTS:
                x = F.max_pool2d(x, 2, 2)
            if index >= STEM_LAYERS:
                x = layer(x)
        return x

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits and unit dense descriptors, as :class:`SuperPointNet`."""
        features = self.encode(images)
        return self.net.detect(features), self.net.describe(features)


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
    network = TrainingNetwork(0, net.config.in_channels)
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
