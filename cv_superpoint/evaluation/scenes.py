"""Rendered scenes of several textured planes and boxes, seen by two cameras whose pose is known.

What is made is a folder for the protocol ``pose``: pictures, and ``pairs.txt`` in SuperGlue's
layout. Every surface shows a photograph, so that keypoints are those of photographs; what no
homography explains is where the surfaces stand.

Convention:
    The world is the first camera's frame: x to the right, y down, z ahead, in metres. ``t_0to1`` is
    (4, 4) and takes points of the first camera's frame to the second's. Pictures are (H, W) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.metrics import Array, Size
from cv_superpoint.evaluation.warps import WarpConfig, change_photometry
from cv_superpoint.files import write_file
from cv_superpoint.pictures.reading import write_picture

_NEAREST = 0.2
"""Metres; what is nearer to a camera is not drawn."""
_OVERSAMPLING = 2
"""Drawn pixels for each pixel of a picture, along each side."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What is drawn; every quantity anew for each pair.

    Attributes:
        size: Height and width of both pictures.
        focal: Focal length as a share of the width, uniform between both.
        boxes: Least and largest number of boxes on the floor.
        boards: Least and largest number of planes that are in the room at any angle.
        room: Metres to the wall behind, uniform.
        baseline: Metres between the cameras, uniform.
        roll: Degrees, uniform in +-roll.
        photometry: Blur, light and noise of each picture, as of the protocol ``warp``.
        seed: Seed that, with the pair's number, determines the pair.
    """

    size: Size = (480, 640)
    focal: tuple[float, float] = (0.8, 1.2)
    boxes: tuple[int, int] = (3, 7)
    boards: tuple[int, int] = (2, 5)
    room: tuple[float, float] = (6.0, 11.0)
    baseline: tuple[float, float] = (0.2, 1.5)
    roll: float = 10.0
    photometry: WarpConfig = field(default_factory=WarpConfig)
    seed: int = 0


class Surface(NamedTuple):
    """A parallelogram in space with a picture on it.

    Attributes:
        corner: (3,) where the texture's top left corner lies.
        along: (3,) from there to the top right corner.
        down: (3,) from there to the bottom left corner.
        texture: (H, W) uint8.
    """

    corner: Array
    along: Array
    down: Array
    texture: Array


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture and how far away everything in it is.

    Attributes:
        image: (H, W) uint8.
        depth: (H, W) metres along the camera's axis; infinite where there is nothing.
    """

    image: Array
    depth: Array


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two views.

    Attributes:
        views: Views of both cameras.
        intrinsics: (3, 3) of both.
        t_0to1: (4, 4).
    """

    views: tuple[View, View]
    intrinsics: Array
    t_0to1: Array


def render_scenes(
    textures: Sequence[Array], pairs: int, config: SceneConfig | None = None
) -> Iterator[Scene]:
    """Draw scenes.

    Args:
        textures: (H, W) uint8 photographs, for the surfaces.
        pairs: Number of pairs.
        config: What to draw.

    Raises:
        SuperPointError: If there is no texture.
    """
    if not textures:
        raise SuperPointError("scenes need a photograph or more for their surfaces, got none")
    config = config or SceneConfig()
    for number in range(pairs):
        yield render_scene(textures, np.random.default_rng([config.seed, number]), config)


def write_scenes(folder: Path, scenes: Iterator[Scene] | Sequence[Scene]) -> Path:
    """Write pictures and ``pairs.txt`` into a folder, made if missing; returns the path of it."""
    lines = []
    for number, scene in enumerate(scenes):
        names = [f"scene{number:04d}/{index}.png" for index in (0, 1)]
        for name, view in zip(names, scene.views, strict=True):
            write_picture(folder / name, view.image)
        lines.append(pair_line(names, (scene.intrinsics, scene.intrinsics), scene.t_0to1))
    path = folder / "pairs.txt"
    write_file(path, ("\n".join(lines) + "\n").encode())
    return path


def pair_line(names: Sequence[str], intrinsics: Sequence[Array], t_0to1: Array) -> str:
    """A line of ``pairs.txt``: both names, two turns of 0, both intrinsics, the pose."""
    numbers = np.concatenate([np.ravel(each) for each in (*intrinsics, t_0to1)])
    return " ".join([*names, "0", "0", *(f"{number:.17g}" for number in numbers)])


def render_scene(textures: Sequence[Array], rng: np.random.Generator, config: SceneConfig) -> Scene:
    """Draw one scene."""
    height, width = config.size
    focal = width * rng.uniform(*config.focal)
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    surfaces = _furnish(textures, rng, config)
    t_0to1 = _second_camera(rng, config)
    views = []
    for pose in (np.eye(4), t_0to1):
        view = render(surfaces, intrinsics, pose, config.size)
        views.append(
            View(image=change_photometry(view.image, config.photometry, rng), depth=view.depth)
        )
    return Scene(views=(views[0], views[1]), intrinsics=intrinsics, t_0to1=t_0to1)


def render(surfaces: Sequence[Surface], intrinsics: Array, pose: Array, size: Size) -> View:
    """The surfaces as a camera sees them.

    Args:
        surfaces: Surfaces in the world's frame.
        intrinsics: (3, 3).
        pose: (4, 4) from the world's frame to the camera's.
        size: (height, width) of the picture.
    """
    height, width = size
    finer = (height * _OVERSAMPLING, width * _OVERSAMPLING)
    half = (_OVERSAMPLING - 1) / 2
    scaling = np.array([[_OVERSAMPLING, 0, half], [0, _OVERSAMPLING, half], [0, 0, 1.0]])
    image = np.full(finer, 128, np.float32)
    nearness = np.zeros(finer, np.float32)
    for surface in surfaces:
        _draw(surface, scaling @ intrinsics, pose, image, nearness)
    reduced = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # The middle of a pixel lies between drawn ones: their mean, which along a plane is exact.
    inverse = cv2.resize(nearness, (width, height), interpolation=cv2.INTER_AREA)
    with np.errstate(divide="ignore"):
        depth = np.where(inverse > 0, 1 / inverse, np.inf)
    return View(image=np.asarray(reduced.round(), np.uint8), depth=depth)


def _draw(surface: Surface, camera: Array, pose: Array, image: Array, nearness: Array) -> None:
    """Draw a surface where it is nearer than what is drawn already."""
    corner = pose[:3, :3] @ surface.corner + pose[:3, 3]
    along, down = pose[:3, :3] @ surface.along, pose[:3, :3] @ surface.down
    rows, columns = surface.texture.shape
    # Texture pixel (x, y) is the point corner + along (x + 1/2) / columns + down (y + 1/2) / rows.
    across = np.stack([along / columns, down / rows, corner], axis=1)
    to_image = camera @ across @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    if abs(np.linalg.det(to_image)) < 1e-9:  # seen from its edge
        return
    box = _box(camera, [corner, corner + along, corner + down, corner + along + down], image.shape)
    if box is None:
        return
    left, top, right, bottom = box
    x, y = np.arange(left, right)[None, :], np.arange(top, bottom)[:, None]
    inverse = np.linalg.inv(to_image)
    u, v, closer = (row[0] * x + row[1] * y + row[2] for row in inverse)
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = u / closer, v / closer
    region = np.s_[top:bottom, left:right]
    seen = (closer > nearness[region]) & (closer < 1 / _NEAREST)
    seen &= (u >= -0.5) & (u <= columns - 0.5) & (v >= -0.5) & (v <= rows - 0.5)
    if not seen.any():
        return
    # Texture pixels that a drawn one covers, in area; as in geometry.smoothing, but here and now.
    area = abs(np.linalg.det(inverse)) / float(np.median(closer[seen])) ** 3
    sigma = 0.5 * math.sqrt(max(area - 1, 0))
    texture = surface.texture.astype(np.float32)
    if sigma > 0.3:
        texture = np.asarray(cv2.GaussianBlur(texture, (0, 0), sigma))
    drawn = cv2.remap(
        texture,
        u.astype(np.float32),
        v.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    image[region][seen] = drawn[seen]
    nearness[region][seen] = closer[seen]


def _box(
    camera: Array, corners: Sequence[Array], shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the part of an image that may show a surface."""
    places = np.stack(corners) @ camera.T
    depth = places[:, 2]
    if depth.max() <= _NEAREST:
        return None
    low, high = np.zeros(2), np.array([shape[1], shape[0]])
    if depth.min() > _NEAREST:
        flat = places[:, :2] / depth[:, None]
        low = np.maximum(low, np.floor(flat.min(axis=0)))
        high = np.minimum(high, np.ceil(flat.max(axis=0)) + 1)
    if (low >= high).any():
        return None
    (left, top), (right, bottom) = low.astype(int).tolist(), high.astype(int).tolist()
    return left, top, right, bottom


# --- what stands where ----------------------------------------------------------------------


def _second_camera(rng: np.random.Generator, config: SceneConfig) -> Array:
    """(4, 4): aside, a little up or down, ahead or back, looking at about the same."""
    distance = rng.uniform(*config.baseline)
    direction = rng.normal(0, (1.0, 0.3, 0.5))
    centre = distance * direction / np.linalg.norm(direction)
    target = np.array([0, 0, 5.0]) + rng.normal(0, (0.5, 0.3, 0.5))
    ahead = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0, 1.0, 0], ahead)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(ahead, right), ahead])
    roll = math.radians(rng.uniform(-config.roll, config.roll))
    cosine, sine = math.cos(roll), math.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ axes
    pose[:3, 3] = -pose[:3, :3] @ centre
    return pose


def _furnish(
    textures: Sequence[Array], rng: np.random.Generator, config: SceneConfig
) -> list[Surface]:
    """Floor and wall in tiles, boxes on the floor, boards in the air."""
    floor, depth = rng.uniform(1.0, 1.7), rng.uniform(*config.room)
    tile = 2.0
    surfaces = []
    for x in np.arange(-10, 10, tile):
        for y in np.arange(floor - 5 * tile, floor - 0.1, tile):
            place = np.array([x, y, depth])
            surfaces.append(_surface(textures, rng, place, (tile, 0, 0), (0, tile, 0)))
        for z in np.arange(depth, tile, -tile):  # nearer, no camera looks down
            place = np.array([x, floor, z])
            surfaces.append(_surface(textures, rng, place, (tile, 0, 0), (0, 0, -tile)))
    for _ in range(rng.integers(config.boxes[0], config.boxes[1] + 1)):
        place = np.array([rng.uniform(-2.2, 2.2), floor, rng.uniform(2.8, depth - 1.5)])
        surfaces += _place_box(textures, rng, place)
    for _ in range(rng.integers(config.boards[0], config.boards[1] + 1)):
        yaw, pitch = np.deg2rad(rng.uniform((-55, -30), (55, 30)))
        along = np.array([math.cos(yaw), 0, math.sin(yaw)])
        down = np.array([0, math.cos(pitch), math.sin(pitch)])
        sides = rng.uniform(0.6, 1.6, 2)
        middle = np.array(
            [rng.uniform(-2.5, 2.5), rng.uniform(-1.2, floor - 0.5), rng.uniform(3, depth - 1)]
        )
        corner = middle - (along * sides[0] + down * sides[1]) / 2
        surfaces.append(_surface(textures, rng, corner, along * sides[0], down * sides[1]))
    return surfaces


def _place_box(textures: Sequence[Array], rng: np.random.Generator, place: Array) -> list[Surface]:
    """Four sides and the top of a box around a place on the floor."""
    width, height, length = rng.uniform(0.5, 1.5, 3)
    yaw = rng.uniform(-math.pi, math.pi)
    right = width * np.array([math.cos(yaw), 0, math.sin(yaw)])
    back = length * np.array([-math.sin(yaw), 0, math.cos(yaw)])
    up = np.array([0, -height, 0])
    left_front = place - (right + back) / 2 + up
    sides = [
        (left_front, right, -up),
        (left_front + back, right, -up),
        (left_front, back, -up),
        (left_front + right, back, -up),
        (left_front, right, back),
    ]
    return [_surface(textures, rng, *side) for side in sides]


def _surface(
    textures: Sequence[Array], rng: np.random.Generator, corner: Array, along: object, down: object
) -> Surface:
    """A surface with a part of one of the photographs, in its own proportions."""
    first, second = np.asarray(along, np.float64), np.asarray(down, np.float64)
    photograph = textures[int(rng.integers(len(textures)))]
    ratio = float(np.linalg.norm(first) / np.linalg.norm(second))
    rows, columns = photograph.shape
    width, height = min(columns, rows * ratio), min(rows, columns / ratio)
    cut_width, cut_height = max(2, int(width)), max(2, int(height))
    left = rng.integers(columns - cut_width + 1)
    top = rng.integers(rows - cut_height + 1)
    part = photograph[top : top + cut_height, left : left + cut_width]
    return Surface(corner=corner, along=first, down=second, texture=np.ascontiguousarray(part))
