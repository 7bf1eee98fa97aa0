"""Photometric changes: brightness, contrast, gamma, shading, blur, noise, night, shadows, JPEG.

Written with numpy and OpenCV for one image at a time, so that data workers do it while the network
trains; well below a millisecond for a 120 x 160 image. Nothing moves, keypoints included.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.errors import SuperPointError

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PhotometricConfig:
    """Strengths of the photometric changes; each is applied with a probability of its own.

    Attributes:
        probability: Probability of every change but the last three, which have theirs.
        brightness: Largest shift in grey levels.
        contrast: Smallest and largest factor around the mean.
        gamma: Smallest and largest exponent.
        noise: Largest standard deviation of the Gaussian noise, grey levels.
        speckle: Largest share of pixels replaced by salt and pepper.
        blur: Largest standard deviation of the blur, pixels.
        motion: Largest length of the motion blur, pixels.
        shade: Largest depth of the smooth shadows and highlights, in [0, 1].
        tint: Largest relative change of one channel of a colour image.
        night: Probability of few photons, made bright again.
        photons: Fewest and most photons of a white pixel then.
        shadow: Probability of a shadow with an edge.
        jpeg: Probability of JPEG compression.
        quality: Lowest and highest quality of the JPEG, in [1, 100].
    """

    probability: float = 0.5
    brightness: float = 40.0
    contrast: tuple[float, float] = (0.5, 1.4)
    gamma: tuple[float, float] = (0.6, 1.6)
    noise: float = 12.0
    speckle: float = 0.003
    blur: float = 1.2
    motion: int = 5
    shade: float = 0.5
    tint: float = 0.15
    night: float = 0.0
    photons: tuple[float, float] = (20.0, 600.0)
    shadow: float = 0.0
    jpeg: float = 0.0
    quality: tuple[int, int] = (15, 70)

    def __post_init__(self) -> None:
        for name in ("probability", "night", "shadow", "jpeg"):
            if not 0 <= getattr(self, name) <= 1:
                raise SuperPointError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.photons[0] <= self.photons[1]:
            raise SuperPointError(f"photons must be positive and in order, got {self.photons}")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise SuperPointError(f"quality must be in [1, 100] and in order, got {self.quality}")


def photometric(rng: np.random.Generator, image: Image, config: PhotometricConfig) -> Image:
    """Change the look of an image.

    Args:
        rng: Source of randomness.
        image: (H, W) or (H, W, C) uint8.
        config: Strengths.

    Returns:
        uint8, shaped like ``image``, a new array.
    """

    def chosen() -> bool:
        return bool(rng.random() < config.probability)

    result = image.astype(np.float32)
    if image.ndim == 3 and chosen():
        gains = rng.uniform(1 - config.tint, 1 + config.tint, (1, 1, image.shape[2]))
        result *= gains.astype(np.float32)
    if chosen():
        result = shade(rng, result, config.shade)
    if chosen():
        factor, mean = np.float32(rng.uniform(*config.contrast)), result.mean()
        result = result * factor + mean * (1 - factor)
    if chosen():
        result += np.float32(rng.uniform(-config.brightness, config.brightness))
    if chosen():
        exponent = float(np.exp(rng.uniform(*np.log(config.gamma))))
        result = np.clip(result, 0, 255, out=result)
        # x -> 255 * (x / 255) ** exponent
        result = np.asarray(cv2.pow(result, exponent), np.float32)
        result *= np.float32(255 ** (1 - exponent))
    if config.blur > 0 and chosen():
        sigma = rng.uniform(0.1, config.blur)
        result = np.asarray(cv2.GaussianBlur(result, (0, 0), sigma), np.float32)
    if config.motion > 1 and rng.random() < 0.5 * config.probability:
        result = motion_blur(rng, result, config.motion)
    if chosen():
        noise = rng.standard_normal(result.shape, dtype=np.float32)
        noise *= np.float32(rng.uniform(0, config.noise))
        result += noise
    if config.speckle > 0 and rng.random() < 0.5 * config.probability:
        result = speckle(rng, result, config.speckle)
    if config.night > 0 and rng.random() < config.night:
        result = few_photons(rng, result, config.photons)
    if config.shadow > 0 and rng.random() < config.shadow:
        result = cast_shadow(rng, result)
    changed: Image = np.clip(np.rint(result, out=result), 0, 255, out=result).astype(np.uint8)
    if config.jpeg > 0 and rng.random() < config.jpeg:
        changed = compress(changed, int(rng.integers(*config.quality, endpoint=True)))
    return changed


def speckle(rng: np.random.Generator, image: FloatImage, largest: float) -> FloatImage:
    """Replace a share of the pixels, up to ``largest``, by black and white ones."""
    height, width = image.shape[:2]
    count = rng.binomial(height * width, rng.uniform(0, largest))
    where = rng.integers(height * width, size=count)
    result = image.reshape(height * width, -1)
    result[where] = np.where(rng.random(count) < 0.5, 0, 255)[:, None]
    return result.reshape(image.shape)


def shade(rng: np.random.Generator, image: FloatImage, depth: float) -> FloatImage:
    """Multiply by a smooth field: a coarse random grid, enlarged."""
    coarse = rng.uniform(-1, 1, (4, 5)).astype(np.float32) * rng.uniform(0, depth)
    height, width = image.shape[:2]
    # Cubic on a small grid, then linear: the same field at a fraction of the cost.
    smooth = cv2.resize(coarse, (40, 32), interpolation=cv2.INTER_CUBIC)
    field = 1 + cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(image * field.reshape(height, width, *([1] * (image.ndim - 2))), np.float32)


def motion_blur(rng: np.random.Generator, image: FloatImage, longest: int) -> FloatImage:
    """Average along a line through the pixel, symmetric so that nothing shifts."""
    reach = rng.uniform(1, longest) / 2
    side = 2 * int(np.ceil(reach)) + 1
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((side, side), np.float32)
    for t in np.linspace(-reach, reach, 4 * side):
        x, y = t * np.cos(angle) + side // 2, t * np.sin(angle) + side // 2
        kernel[round(y), round(x)] += 1
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)


def few_photons(
    rng: np.random.Generator, image: FloatImage, photons: tuple[float, float]
) -> FloatImage:
    """Photon noise of a dark scene, whose brightest pixel is made white again.

    Args:
        rng: Source of randomness.
        image: Grey levels; the light is 0.3 to 1 times theirs.
        photons: Fewest and most photons of a white pixel.

    Returns:
        Grey levels, float32. In light below 0.2, white is what 0.2 would be.
    """
    count = np.exp(rng.uniform(*np.log(photons)))
    light = np.clip(image, 0, 255) / 255 * rng.uniform(0.3, 1)
    caught = rng.poisson(light * count) / count
    return np.asarray(caught * (255 / max(light.max(), 0.2)), np.float32)


def cast_shadow(rng: np.random.Generator, image: FloatImage) -> FloatImage:
    """Darken the convex hull of four random points by 0.3 to 0.75, with an edge of 2 to 12 px."""
    height, width = image.shape[:2]
    corners = rng.uniform(-0.3, 1.3, (4, 2)) * (width, height)
    mask = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), (1.0,))
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(2, 12)), np.float32)
    field = 1 - mask * np.float32(rng.uniform(0.3, 0.75))
    return np.asarray(image * field.reshape(height, width, *([1] * (image.ndim - 2))), np.float32)


def compress(image: Image, quality: int) -> Image:
    """What JPEG of a quality leaves of a grey image or of RGB."""
    # OpenCV takes colours for BGR, and JPEG keeps less of blue than of red.
    pixels = image[..., ::-1] if image.ndim == 3 else image
    _, data = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR if image.ndim == 3 else cv2.IMREAD_GRAYSCALE)
    assert decoded is not None  # the line above encoded it
    return np.ascontiguousarray(decoded[..., ::-1] if image.ndim == 3 else decoded, np.uint8)
