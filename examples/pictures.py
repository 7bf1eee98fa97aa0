"""Pictures for the examples: read them, make second views of known truth, draw matches.

Nothing here concerns cv_superpoint; each example beside it shows one use and stands alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Matrix: TypeAlias = NDArray[np.float64]


def read(path: str) -> Image:
    """A picture file as BGR."""
    try:
        # Not cv2.imread, which takes no name that is not UTF-8.
        data = np.fromfile(path, np.uint8)
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError:
        image = None
    if image is None:
        raise SystemExit(f"cannot read {path} as a picture")
    picture: Image = image
    return picture


def write(path: Path, picture: Image) -> None:
    """Write a picture and say so."""
    if not cv2.imwrite(str(path), picture):
        raise SystemExit(f"cannot write {path}")
    print(f"wrote {path} ({picture.shape[1]} x {picture.shape[0]})")


def photograph(name: str = "astronaut") -> Image:
    """A photograph of scikit-image's wheel as BGR."""
    loaded: Any = getattr(skimage.data, name)()
    picture: Any = loaded[0] if isinstance(loaded, tuple) else loaded  # left of a stereo pair
    image: Image = np.ascontiguousarray(picture[..., ::-1])
    return image


def second_view(
    image: Image,
    *,
    degrees: float = 20.0,
    scale: float = 0.8,
    perspective: tuple[float, float] = (2e-4, -1.5e-4),
) -> tuple[Image, Matrix]:
    """The picture as from another camera: turned, smaller, tilted, darker, flatter and noisy.

    Args:
        image: (H, W, 3).
        degrees: Turn about the centre, counter-clockwise.
        scale: Size relative to the picture, in the centre.
        perspective: Foreshortening along x and y, in 1 / pixel.

    Returns:
        The view, of the same size, and the homography from the picture to it.
    """
    height, width = image.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    to_centre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    angle = np.deg2rad(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [*perspective, 1]])
    homography = np.linalg.inv(to_centre) @ turn @ to_centre
    warped: Any = cv2.warpPerspective(image, homography, (width, height), borderValue=(90,) * 3)
    noise = np.random.default_rng(0).normal(0, 6, warped.shape)
    return np.clip(0.7 * warped + 15 + noise, 0, 255).astype(np.uint8), homography


def corners(image: Image) -> Matrix:
    """(4, 2) centres of the corner pixels, clockwise from the top left."""
    height, width = image.shape[:2]
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def transform(points: Matrix, homography: Matrix) -> Matrix:
    """(N, 2) points under a homography."""
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    transformed: Matrix = mapped[:, :2] / mapped[:, 2:]
    return transformed


def corner_error(estimated: Matrix, truth: Matrix, image: Image) -> float:
    """Mean distance in pixels between the image's corners under two homographies."""
    distances = transform(corners(image), estimated) - transform(corners(image), truth)
    return float(np.linalg.norm(distances, axis=1).mean())


def draw_matches(
    image0: Image,
    image1: Image,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    *,
    lines: int = 80,
) -> Image:
    """Both pictures side by side, matched points in green, an even choice of them joined."""
    height, offset = max(len(image0), len(image1)), image0.shape[1]
    canvas = np.full((height, offset + image1.shape[1], 3), 40, np.uint8)
    canvas[: len(image0), :offset] = image0
    canvas[: len(image1), offset:] = image1
    starts = np.rint(points0).astype(int)
    ends = np.rint(points1).astype(int) + np.array([offset, 0])
    for point in np.concatenate([starts, ends]).tolist():
        cv2.circle(canvas, point, 3, (0, 220, 0), 1, cv2.LINE_AA)
    joined = np.linspace(0, len(starts) - 1, min(lines, len(starts))).astype(int)
    for start, end in zip(starts[joined].tolist(), ends[joined].tolist(), strict=True):
        cv2.line(canvas, start, end, (0, 220, 0), 1, cv2.LINE_AA)
    return canvas
