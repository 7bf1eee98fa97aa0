"""Scenes of several planes and their views: what the matcher learns from.

A scene is a photograph with parts of others in front of it. Every view warps the photograph
strongly, and every part by a homography of its own, as parallax does. What a view shows beyond the
photograph, and some of its parts, belongs to this view alone, and so has no counterpart. Every view
depends on ``(seed, scene, view)``, the photographs and the settings only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.geometry import (
    HomographyConfig,
    Matrix,
    inside,
    sample_homography,
    smoothed,
    translate,
    valid_mask,
    warp_image,
    warp_points,
)
from cv_superpoint.synthetic.photometric import Image, PhotometricConfig, photometric

ALONE = 255
"""Layer of the pixels that only one view shows."""

UNMATCHED, UNKNOWN = -1, -2
"""Labels of keypoints without a counterpart, and of those that may have one."""

Photograph = Callable[[int], Image]
"""A number -> a grey photograph; any number will do."""
Regions = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How scenes and their views are made.

    Attributes:
        views: Number of views of each scene.
        sizes: (height, width) of a view, one of these.
        warp: Warp of the whole scene in a view. The zoom between two views is up to the square of
            it.
        parts: Largest number of parts of other photographs in a scene.
        part_size: Smallest and largest side of a part, as a share of the photograph's.
        part_warp: Warp of a part in a view, in addition to the scene's.
        covered: Probability that a view has a part that no other view has.
        photometric: Changes of every view.
    """

    views: int = 6
    sizes: tuple[tuple[int, int], ...] = (
        (240, 320), (320, 240), (256, 256), (240, 432), (320, 480),
    )  # fmt: skip
    warp: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.55, 1.7), rotation=0.6, any_angle=0.2, corner_jitter=0.16, translation=0.12
        )
    )
    parts: int = 2
    part_size: tuple[float, float] = (0.25, 0.6)
    part_warp: HomographyConfig = field(
        default_factory=lambda: HomographyConfig(
            scale=(0.8, 1.25), rotation=0.3, corner_jitter=0.08, translation=0.12
        )
    )
    covered: float = 0.2
    photometric: PhotometricConfig = field(
        default_factory=lambda: PhotometricConfig(
            probability=0.4, brightness=60, contrast=(0.35, 1.5), gamma=(0.45, 2.2), noise=15,
            blur=1.6, shade=0.6,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError(f"views must be at least 2, got {self.views}")
        if not 0 <= self.parts < ALONE:
            raise ValueError(f"parts must be in [0, {ALONE}), got {self.parts}")


@dataclass(frozen=True)
class SceneView:
    """One image of a scene.

    Attributes:
        image: (H, W) uint8.
        regions: (H, W) number of the layer that each pixel shows, 0 for the photograph, or
            :data:`ALONE`.
        homographies: (layers, 3, 3) from each layer's photograph to the image.
    """

    image: Image
    regions: Regions
    homographies: Matrix


@dataclass(frozen=True)
class _Part:
    """A quadrilateral of a photograph, and where it lies in the scene's frame."""

    photo: Image
    corners: npt.NDArray[np.float64]
    placement: Matrix


def scene_views(
    seed: int, scene: int, count: int, photograph: Photograph, config: SceneConfig
) -> list[SceneView]:
    """The views of a scene.

    Args:
        seed: Seed of the whole set.
        scene: Number of the scene and of its photograph.
        count: Photographs, of which the parts are taken.
        photograph: Function that reads one.
        config: How views are made.
    """
    rng = np.random.default_rng((seed, scene))
    base = photograph(scene % count)
    frame = (base.shape[0], base.shape[1])

    def others() -> Image:
        return photograph(int(rng.integers(count)))

    parts = [_part(rng, others(), frame, config) for _ in range(rng.integers(config.parts + 1))]
    return [_view(rng, base, parts, others, config) for _ in range(config.views)]


def _part(
    rng: np.random.Generator, photo: Image, frame: tuple[int, int], config: SceneConfig
) -> _Part:
    """A piece of a photograph somewhere in a frame of (height, width)."""
    sides = np.array(photo.shape[1::-1], float)
    size = rng.uniform(*config.part_size, 2) * sides
    corner = rng.uniform(0, 1, 2) * (sides - size)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    corners = corner + size * (square + rng.uniform(-0.12, 0.12, (4, 2)))
    target = rng.uniform(0.15, 0.85, 2) * frame[::-1]
    zoom = np.diag([*[rng.uniform(0.7, 1.2) * min(frame) / min(sides)] * 2, 1.0])
    placement = translate(*target) @ zoom @ translate(*-(corner + size / 2))
    return _Part(photo, np.clip(corners, 3, sides - 4), placement)


def _view(
    rng: np.random.Generator,
    base: Image,
    parts: list[_Part],
    others: Callable[[], Image],
    config: SceneConfig,
) -> SceneView:
    size = config.sizes[rng.integers(len(config.sizes))]
    frame = (base.shape[0], base.shape[1])
    whole = sample_homography(rng, size, config.warp) @ _fit(frame, size)
    backdrop = others()
    image = warp_image(backdrop, _fit((backdrop.shape[0], backdrop.shape[1]), size), size)
    regions = np.full(size, ALONE, np.uint8)
    shown = valid_mask(whole, frame, size, 3)
    image = np.where(shown, warp_image(smoothed(base, whole, size), whole, size), image)
    regions[shown] = 0
    homographies = [whole]
    layers = [(part, number + 1) for number, part in enumerate(parts)]
    if rng.random() < config.covered:
        layers.append((_part(rng, others(), frame, config), ALONE))
    for part, number in layers:
        own = whole @ sample_homography(rng, frame, config.part_warp) @ part.placement
        image, covered = _paste(image, part, own)
        regions[covered] = number
        if number != ALONE:
            homographies.append(own)
    return SceneView(photometric(rng, image, config.photometric), regions, np.stack(homographies))


def _fit(size_from: tuple[int, int], size_to: tuple[int, int]) -> Matrix:
    """The similarity that covers one frame with another, centre on centre."""
    zoom = max(size_to[0] / size_from[0], size_to[1] / size_from[1])
    centre_from, centre_to = ((np.array(s[::-1]) - 1) / 2 for s in (size_from, size_to))
    matrix: Matrix = translate(*centre_to) @ np.diag([zoom, zoom, 1.0]) @ translate(*-centre_from)
    return matrix


def _paste(image: Image, part: _Part, own: Matrix) -> tuple[Image, npt.NDArray[np.bool_]]:
    """An image with a part in front, and which pixels show it; none behind the camera."""
    size = (image.shape[0], image.shape[1])
    corners = warp_points(own, part.corners)
    if not np.isfinite(corners).all() or np.abs(corners).max() > 1e5:
        return image, np.zeros(size, np.bool_)
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.round().astype(np.int32)), 1)
    covered = mask.astype(np.bool_)
    warped = warp_image(smoothed(part.photo, own, size), own, size)
    return np.where(covered, warped, image), covered


def true_matches(
    points0: npt.NDArray[np.float32],
    points1: npt.NDArray[np.float32],
    view0: SceneView,
    view1: SceneView,
    *,
    near: float = 3.0,
    far: float = 5.0,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Which keypoints of two views of a scene are the same.

    Args:
        points0: (N, 2) keypoints of view 0.
        points1: (M, 2) of view 1.
        view0: A view.
        view1: Another view of the same scene.
        near: Pixels, in both images, within which mutually nearest keypoints are the same.
        far: Pixels of either image beyond which a keypoint has no counterpart; what lies between
            is not known.

    Returns:
        The row of the counterpart for every keypoint of either view, or :data:`UNMATCHED`, or
        :data:`UNKNOWN`.
    """
    there, back = _carried(points0, view0, view1), _carried(points1, view1, view0)
    with np.errstate(invalid="ignore"):
        forward = np.linalg.norm(there[:, None] - points1[None], axis=2)
        backward = np.linalg.norm(points0[:, None] - back[None], axis=2)
    distance = np.nan_to_num(np.maximum(forward, backward), nan=np.inf)
    closest = np.nan_to_num(np.minimum(forward, backward), nan=np.inf)
    if distance.size == 0:
        none = np.int16(UNMATCHED)
        return np.full(len(points0), none), np.full(len(points1), none)
    mutual = distance == distance.min(axis=1, keepdims=True)
    mutual &= distance == distance.min(axis=0, keepdims=True)
    rows, columns = np.nonzero(mutual & (distance <= near))
    found = []
    for axis, own, other in ((1, rows, columns), (0, columns, rows)):
        known = np.where(closest.min(axis=axis) > far, UNMATCHED, UNKNOWN).astype(np.int16)
        known[own] = other
        found.append(known)
    return found[0], found[1]


def _carried(
    points: npt.NDArray[np.float32], source: SceneView, target: SceneView
) -> npt.NDArray[np.float64]:
    """Where points of a view lie in another; infinite where that one does not show their layer."""
    x, y = np.round(points).astype(np.int64).T
    height, width = source.regions.shape
    layers = source.regions[y.clip(0, height - 1), x.clip(0, width - 1)]
    carried = np.full((len(points), 2), np.inf)
    size = (target.regions.shape[0], target.regions.shape[1])
    for number in range(len(source.homographies)):
        own = np.flatnonzero(layers == number)
        across = target.homographies[number] @ np.linalg.inv(source.homographies[number])
        there = warp_points(across, points[own])
        seen = inside(there, size)
        columns, rows = np.round(there[seen]).astype(np.int64).T
        seen[seen] = target.regions[rows, columns] == number
        carried[own[seen]] = there[seen]
    return carried
