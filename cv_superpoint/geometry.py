"""Homographies: sampling, composing, warping points and images, and the distance of two.

Convention:
    A homography is a forward (3, 3) float64 matrix: ``H_0to1`` maps points of image 0 to image 1.
    Points are (x, y) with (0, 0) at the centre of the top-left pixel, as in OpenCV. Sizes are
    (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.errors import FeatureError

FloatArray = npt.NDArray[np.floating[Any]]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HomographyConfig:
    """Distribution of random homographies.

    Attributes:
        scale: Smallest and largest zoom, sampled log-uniformly.
        rotation: Largest angle in radians, either way.
        any_angle: Probability of a rotation by any angle instead.
        corner_jitter: Largest displacement of a corner, as a fraction of the sides (perspective
            and shear).
        translation: Largest shift, as a fraction of the sides.
        flip: Probability of a left-right mirror image.
    """

    scale: tuple[float, float] = (0.7, 1.3)
    rotation: float = 0.5
    any_angle: float = 0.0
    corner_jitter: float = 0.1
    translation: float = 0.1
    flip: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise FeatureError(f"scale must be a positive (low, high), got {self.scale}")
        if not 0 <= self.corner_jitter < 0.3:
            raise FeatureError(f"corner_jitter must be in [0, 0.3), got {self.corner_jitter}")


def translate(x: float, y: float) -> Matrix:
    """The shift by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def resize_matrix(scale_x: float, scale_y: float) -> Matrix:
    """Where pixels go when an image is resized: pixel edges scale, not pixel centres."""
    return (
        translate(-0.5, -0.5) @ np.diag([float(scale_x), float(scale_y), 1.0]) @ translate(0.5, 0.5)
    )


def sample_homography(
    rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig
) -> Matrix:
    """A random homography of a frame onto itself.

    Args:
        rng: Source of randomness.
        size: (height, width) of the frame.
        config: The distribution.

    Returns:
        ``H`` (3, 3), from the frame to its warped version.
    """
    h, w = size
    sides = np.array([w, h], dtype=np.float64)
    centre = (sides - 1) / 2
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], dtype=np.float64)
    jitter = rng.uniform(-config.corner_jitter, config.corner_jitter, (4, 2)) * sides
    perspective = cv2.getPerspectiveTransform(
        corners.astype(np.float32), (corners + jitter).astype(np.float32)
    )
    bound = np.pi if rng.random() < config.any_angle else config.rotation
    angle = rng.uniform(-bound, bound)
    zoom = np.exp(rng.uniform(*np.log(config.scale)))
    mirror = -1.0 if rng.random() < config.flip else 1.0
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    similarity = np.array([[cos * mirror, -sin, 0], [sin * mirror, cos, 0], [0, 0, 1]])
    shift = rng.uniform(-config.translation, config.translation, 2) * sides
    matrix = (
        translate(*(centre + shift)) @ similarity @ translate(*-centre) @ perspective.astype(float)
    )
    return np.asarray(matrix / matrix[2, 2], dtype=np.float64)


def sample_homographies(
    rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig, count: int
) -> Matrix:
    """Many random homographies at once, distributed as :func:`sample_homography`'s.

    Args:
        rng: Source of randomness.
        size: (height, width) of the frame.
        config: The distribution.
        count: Number of homographies.

    Returns:
        (count, 3, 3) float64.
    """
    h, w = size
    sides = np.array([w, h], dtype=np.float64)
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], dtype=np.float64)
    jitter = rng.uniform(-config.corner_jitter, config.corner_jitter, (count, 4, 2)) * sides
    bound = np.where(rng.random(count) < config.any_angle, np.pi, config.rotation)
    angle = rng.uniform(-1, 1, count) * bound
    low, high = np.log(config.scale)
    zoom = np.exp(rng.uniform(low, high, count))
    mirror = np.where(rng.random(count) < config.flip, -1.0, 1.0)
    shift = rng.uniform(-config.translation, config.translation, (count, 2)) * sides
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    similarity = np.zeros((count, 3, 3))
    similarity[:, 0, 0], similarity[:, 0, 1] = cos * mirror, -sin
    similarity[:, 1, 0], similarity[:, 1, 1] = sin * mirror, cos
    similarity[:, 2, 2] = 1
    similarity[:, :2, 2] = (sides - 1) / 2 + shift
    perspective = _perspective_transforms(corners, corners + jitter)
    matrices = similarity @ translate(*(-(sides - 1) / 2)) @ perspective
    return np.asarray(matrices / matrices[:, 2:, 2:], dtype=np.float64)


def _perspective_transforms(source: Matrix, target: Matrix) -> Matrix:
    """Homographies that take four points (4, 2) to others (N, 4, 2)."""
    count = len(target)
    x, y = np.broadcast_to(source, target.shape).transpose(2, 0, 1)
    u, v = target.transpose(2, 0, 1)
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = [
        np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=2),
        np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=2),
    ]
    system, right = np.concatenate(rows, axis=1), np.concatenate([u, v], axis=1)
    solution = np.linalg.solve(system, right[:, :, None])[:, :, 0]
    return np.concatenate([solution, np.ones((count, 1))], axis=1).reshape(count, 3, 3)


def warp_points(homography: Matrix, points: FloatArray) -> Matrix:
    """Map points through a homography.

    Args:
        homography: (3, 3), at any non-zero scale.
        points: (N, 2) as (x, y).

    Returns:
        (N, 2) float64; infinite, never NaN, for points that the homography sends to infinity or
        behind the camera.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    # The side of the horizon that the frame's origin is on counts as the front.
    sign = np.sign(homography[2, 2]) or 1.0
    depth = homogeneous[:, 2:] * sign
    with np.errstate(all="ignore"):
        warped = homogeneous[:, :2] * sign / depth
    return np.where((depth > 0) & np.isfinite(warped), warped, np.inf)


def inside(points: FloatArray, size: tuple[int, int], border: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which (N, 2) points lie in an image and at least ``border`` px from its outermost centres."""
    h, w = size
    x, y = points[:, 0], points[:, 1]
    return np.asarray((x >= border) & (y >= border) & (x <= w - 1 - border) & (y <= h - 1 - border))


def corner_error(estimate: Matrix | None, truth: Matrix, size: tuple[int, int]) -> float:
    """Mean distance of image 0's four corners under two homographies, in pixels of image 1.

    Args:
        estimate: (3, 3), or None where none was found.
        truth: (3, 3).
        size: (height, width) of image 0.

    Returns:
        Pixels; infinity without an estimate, or where one sends a corner behind the camera.
    """
    if estimate is None:
        return float("inf")
    height, width = size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float)
    warped = warp_points(estimate, corners), warp_points(truth, corners)
    if not np.isfinite(warped).all():
        return float("inf")
    difference = warped[0] - warped[1]
    return float(np.hypot(difference[:, 0], difference[:, 1]).mean())


def warp_image(
    image: npt.NDArray[Any],
    homography: Matrix,
    size: tuple[int, int],
    *,
    border: int = cv2.BORDER_REFLECT_101,
    interpolation: int = cv2.INTER_LINEAR,
) -> npt.NDArray[Any]:
    """Warp an image.

    Args:
        image: (H, W) or (H, W, C).
        homography: From ``image`` to the result.
        size: (height, width) of the result.
        border: What lies outside the image, an OpenCV border constant.
        interpolation: An OpenCV interpolation constant.

    Returns:
        The warped image, dtype of ``image``. It does not average where it shrinks; blur before, see
        :func:`smoothing`.
    """
    return cv2.warpPerspective(
        image, homography, (size[1], size[0]), flags=interpolation, borderMode=border
    )


def smoothing(homographies: Matrix, size: tuple[int, int]) -> Matrix:
    """How much an image must be blurred before a warp that makes it smaller, or it aliases.

    Args:
        homographies: (..., 3, 3), from the image to its warped version.
        size: (height, width) of the warped image.

    Returns:
        Standard deviations (...) of a Gaussian in pixels of the image, chosen for the centre of the
        warped image; 0 where hardly anything shrinks there.
    """
    inverse = np.linalg.inv(homographies)
    depth = inverse[..., 2, :] @ [(size[1] - 1) / 2, (size[0] - 1) / 2, 1]
    # Pixels of the image per pixel of its warped version, in area.
    area = np.abs(np.linalg.det(inverse) / depth**3)
    sigma = 0.5 * np.sqrt(np.maximum(area - 1, 0))
    # Below, the kernel is a single tap.
    return np.asarray(np.where(sigma > 0.3, sigma, 0))


def smoothed(image: npt.NDArray[Any], homography: Matrix, size: tuple[int, int]) -> Any:
    """An image blurred by :func:`smoothing`; the image itself where hardly anything shrinks."""
    sigma = float(smoothing(homography, size))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)) if sigma else image


def valid_mask(
    homography: Matrix, size_from: tuple[int, int], size_to: tuple[int, int], border: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Pixels of a warped image that show the original one, computed without interpolation.

    Args:
        homography: Homography from the original to the warped image.
        size_from: (height, width) of the original.
        size_to: (height, width) of the warped image.
        border: Pixels eroded from the border of the original.

    Returns:
        Boolean (height, width) of ``size_to``.
    """
    inverse = np.linalg.inv(homography)
    # The centre of the original must be in front, whatever the sign of the matrix.
    inverse = inverse * (homography[2] @ [(size_from[1] - 1) / 2, (size_from[0] - 1) / 2, 1])
    x, y = np.arange(size_to[1])[None, :], np.arange(size_to[0])[:, None]
    u, v, depth = (row[0] * x + row[1] * y + row[2] for row in inverse)
    right, bottom = size_from[1] - 1 - border, size_from[0] - 1 - border
    # u / depth >= border, without dividing by depths that may be zero.
    mask = (depth > 0) & (u >= border * depth) & (v >= border * depth)
    return np.asarray(mask & (u <= right * depth) & (v <= bottom * depth))
