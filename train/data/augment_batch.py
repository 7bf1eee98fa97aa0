"""Photometric changes of a whole batch on its device.

It is the twin of :mod:`cv_superpoint.synthetic.photometric`.

The same changes with the same strengths and probabilities, by kornia and torch instead of numpy and
OpenCV, drawn anew for each image. Where a change is not chosen for an image it does nothing to it;
the work is done for all, without a loop.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.synthetic.photometric import PhotometricConfig


class Lot:
    """Random numbers of a batch, on the device of its generator.

    Args:
        generator: Source of randomness.
        count: Images of the batch.
        channels: Channels of an image.
    """

    def __init__(self, generator: torch.Generator, count: int, channels: int = 1) -> None:
        self.generator = generator
        self.count = count
        self.channels = channels

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) values in [low, high); (B, 1, 1, 1) without a shape."""
        values = torch.rand(
            self.count, *(shape or (1, 1, 1)), generator=self.generator, device=self.device
        )
        return low + (high - low) * values

    def chosen(self, probability: float) -> Tensor:
        """(B, 1, 1, 1) boolean, each true with ``probability``."""
        return self.uniform(0, 1) < probability

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self.generator.device


def photometric_batch(
    images: Tensor, config: PhotometricConfig, generator: torch.Generator
) -> Tensor:
    """Change the look of every image on its own.

    Args:
        images: (B, C, H, W) float32, grey levels in [0, 255].
        config: Strengths.
        generator: Source of randomness, on the device of the images.

    Returns:
        (B, C, H, W) uint8.

    Raises:
        ImportError: If kornia is not installed.
    """
    lot = Lot(generator, *images.shape[:2])
    often, seldom = config.probability, 0.5 * config.probability
    x = images
    if x.shape[1] > 1:
        gains = lot.uniform(1 - config.tint, 1 + config.tint, x.shape[1], 1, 1)
        x = torch.where(lot.chosen(often), x * gains, x)
    x = torch.where(lot.chosen(often), x * _shading(lot, config.shade, x.shape[-2:]), x)
    factor = torch.where(lot.chosen(often), lot.uniform(*config.contrast), 1.0)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    shift = torch.where(lot.chosen(often), lot.uniform(-config.brightness, config.brightness), 0.0)
    x = mean + (x - mean) * factor + shift
    low, high = (math.log(value) for value in config.gamma)
    curved = 255 * (x.clamp(0, 255) / 255) ** lot.uniform(low, high).exp()
    x = torch.where(lot.chosen(often), curved, x)
    if config.blur > 0:
        deviation = torch.where(lot.chosen(often), lot.uniform(0.1, config.blur), 0.01)
        x = blur(x, deviation, config.blur)
    if config.motion > 1:
        reach = torch.where(lot.chosen(seldom), lot.uniform(1, config.motion) / 2, 0.0)
        x = _motion(x, reach.flatten(), lot.uniform(0, math.pi, 1).flatten(), config.motion)
    deviation = torch.where(lot.chosen(often), lot.uniform(0, config.noise), 0.0)
    x = x + deviation * torch.randn(x.shape, generator=generator, device=x.device)
    if config.speckle > 0:
        share = torch.where(lot.chosen(seldom), lot.uniform(0, config.speckle), 0.0)
        dots = lot.uniform(0, 1, 1, *x.shape[-2:])
        x = torch.where(dots < share / 2, 0.0, torch.where(dots >= 1 - share / 2, 255.0, x))
    if config.night > 0:
        x = torch.where(lot.chosen(config.night), _few_photons(lot, x, config.photons), x)
    if config.shadow > 0:
        x = torch.where(lot.chosen(config.shadow), x * _shadow(lot, x.shape[-2:]), x)
    x = x.round().clamp(0, 255)
    if config.jpeg > 0:
        quality = lot.uniform(config.quality[0], config.quality[1] + 1, 1).floor().flatten()
        x = torch.where(lot.chosen(config.jpeg), _compress(x, quality), x).round().clamp(0, 255)
    return x.to(torch.uint8)


def _few_photons(lot: Lot, images: Tensor, photons: tuple[float, float]) -> Tensor:
    count = lot.uniform(math.log(photons[0]), math.log(photons[1])).exp()
    light = images.clamp(0, 255) / 255 * lot.uniform(0.3, 1)
    white = light.amax(dim=(1, 2, 3), keepdim=True).clamp(min=0.2)
    return torch.poisson(light * count, generator=lot.generator) / count * (255 / white)


def _shadow(lot: Lot, size: torch.Size) -> Tensor:
    """(B, 1, H, W) factors: less than 1 in the convex hull of four random points."""
    height, width = size
    places = lot.uniform(-0.3, 1.3, 4, 2)
    corners = torch.stack([places[..., 0] * width, places[..., 1] * height], dim=-1)
    y, x = torch.meshgrid(
        torch.arange(height, device=lot.device),
        torch.arange(width, device=lot.device),
        indexing="ij",
    )
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    dark = torch.zeros(lot.count, height * width, dtype=torch.bool, device=lot.device)
    # The hull of four points is the union of the triangles of three of them.
    for left_out in range(4):
        others = [corners[:, corner] for corner in range(4) if corner != left_out]
        dark |= _inside_triangle(pixels, torch.stack(others, dim=1))
    mask = dark.float().reshape(lot.count, 1, height, width)
    return 1 - blur(mask, lot.uniform(2, 12), 12) * lot.uniform(0.3, 0.75)


def _inside_triangle(pixels: Tensor, corners: Tensor) -> Tensor:
    """(N, 2) pixels and (B, 3, 2) corners -> (B, N) boolean."""
    edges = corners.roll(-1, dims=1) - corners
    to_pixel = pixels[None, None] - corners[:, :, None]
    side = edges[..., 0:1] * to_pixel[..., 1] - edges[..., 1:2] * to_pixel[..., 0]
    return (side >= 0).all(dim=1) | (side <= 0).all(dim=1)


def _compress(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of (B,) qualities leaves of (B, C, H, W) grey levels or RGB.

    kornia reads the qualities to check them, for which a GPU stops once in a batch.
    """
    codec = _kornia("kornia.enhance").jpeg_codec_differentiable
    decoded: Tensor = 255 * codec((images / 255).expand(-1, 3, -1, -1), quality)
    return decoded if images.shape[1] == 3 else decoded.mean(dim=1, keepdim=True)


def _shading(lot: Lot, depth: float, size: torch.Size) -> Tensor:
    coarse = lot.uniform(-1, 1, 1, 4, 5) * lot.uniform(0, depth)
    return 1 + F.interpolate(coarse, list(size), mode="bicubic", align_corners=False)


def blur(images: Tensor, deviation: Tensor, largest: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) float images.

    Args:
        images: Grey levels.
        deviation: (B, 1, 1, 1) or (B,), standard deviation of each image's blur; almost 0 for none.
        largest: Bound of the deviations, which decides the size of the kernel.
    """
    half = math.ceil(4 * largest)
    # At exactly 0 the kernel would be 0 / 0.
    sigma = deviation.reshape(-1, 1).clamp(min=1e-2)
    offsets = torch.arange(-half, half + 1, device=images.device)
    # Not kornia's own Gaussian: it reads whether deviations are positive, for which a GPU stops.
    kernels = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    blurred: Tensor = _kornia("kornia.filters").filter2d_separable(images, kernels, kernels)
    return blurred


def _motion(images: Tensor, reach: Tensor, angle: Tensor, longest: int) -> Tensor:
    """Average along a line through the pixel, (B,) ``reach`` to either side of it."""
    half = math.ceil(longest / 2)
    side = 2 * half + 1
    t = torch.linspace(-1, 1, 4 * side, device=images.device) * reach[:, None]
    x = (t * angle.cos()[:, None]).round().long() + half
    y = (t * angle.sin()[:, None]).round().long() + half
    kernels = torch.zeros(len(images), side * side, device=images.device)
    kernels.scatter_add_(1, y * side + x, torch.full_like(t, 1 / (4 * side)))
    moved: Tensor = _kornia("kornia.filters").filter2d(images, kernels.reshape(-1, side, side))
    return moved


def _kornia(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            "making training pairs on the device needs kornia; install it with "
            "pip install 'cv-superpoint[train]', or let data workers "
            "make them (WarpedPairs)"
        ) from error
