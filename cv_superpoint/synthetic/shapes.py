"""The kinds of synthetic drawings (section 4 of the paper), each with its visible junctions.

Every function takes a generator, the (height, width) of the frame and the grey level of the ground.

Convention:
    Points are (x, y) pixels, (0, 0) the centre of the top-left pixel. Sizes are (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from cv_superpoint.geometry import Matrix
from cv_superpoint.synthetic.polygons import Shape

SEAM = 1.0
"""Pixels that a part reaches below its neighbours."""

Generator = Callable[[np.random.Generator, tuple[int, int], float], Shape]


def other_shade(rng: np.random.Generator, *shades: float, gap: float = 35.0) -> float:
    """A grey level at least ``gap`` away from the given ones (less when they leave no room)."""
    candidates = rng.uniform(0, 255, 16).tolist()

    def distance(candidate: float) -> float:
        return min(abs(candidate - shade) for shade in shades)

    far = (candidate for candidate in candidates if distance(candidate) >= gap)
    return float(next(far, None) or max(candidates, key=distance))


def _circle_points(
    rng: np.random.Generator, count: int, radius: float, smallest_gap: float
) -> Matrix:
    """``count`` points around the origin, in order, not too close in angle."""
    shares = rng.standard_gamma(3.0, count)
    gaps = shares / shares.sum() * (2 * np.pi - count * smallest_gap) + smallest_gap
    angles = np.cumsum(gaps) + rng.uniform(0, 2 * np.pi)
    radii = radius * rng.uniform(0.6, 1.0, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _corner_mask(polygon: Matrix, flattest: float = 2.75) -> npt.NDArray[np.bool_]:
    """Vertices of a polygon whose angle (radians) is not nearly straight."""
    forward = np.concatenate([polygon[1:], polygon[:1]]) - polygon
    back = -np.concatenate([forward[-1:], forward[:-1]])
    squares = np.einsum("ij,ij->i", forward, forward)
    norms = np.sqrt(squares * np.concatenate([squares[-1:], squares[:-1]]))
    cosine = np.einsum("ij,ij->i", back, forward) / np.maximum(norms, 1e-9)
    return np.asarray(cosine > math.cos(flattest))


def _place(rng: np.random.Generator, size: tuple[int, int], margin: float) -> Matrix:
    h, w = size
    return np.array([rng.uniform(margin, w - margin), rng.uniform(margin, h - margin)])


def _polygon_at(
    rng: np.random.Generator, centre: Matrix, radius: float, corners: int, shade: float
) -> Shape:
    polygon = _circle_points(rng, corners, radius, 0.5) + centre
    return Shape([(polygon, shade)], list(polygon[_corner_mask(polygon)]))


def lines(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Strokes with their ends and crossings; strokes that nearly touch are left out."""
    shape = Shape()
    segments: list[Matrix] = []
    shortest = 0.2 * min(size)
    for _ in range(int(rng.integers(1, 9))):
        segment = np.stack([_place(rng, size, 4), _place(rng, size, 4)])
        direction = segment[1] - segment[0]
        length = np.linalg.norm(direction)
        if length < shortest:
            continue
        crossings = _crossings(segment[None], np.reshape(segments, (-1, 2, 2)), clearance=8.0)
        if crossings is None:
            continue
        normal = np.array([-direction[1], direction[0]]) / length * rng.uniform(0.6, 2.0)
        polygon = np.stack([segment[0] + normal, segment[1] + normal])
        polygon = np.concatenate([polygon, np.stack([segment[1] - normal, segment[0] - normal])])
        shape.fills.append((polygon, other_shade(rng, ground)))
        shape.points += [*segment, *crossings[0]]
        segments.append(segment)
    return shape


def _crossings(
    first: Matrix, second: Matrix, clearance: float, shallowest: float = 0.5
) -> tuple[Matrix, npt.NDArray[np.intp]] | None:
    """Where the segments of two sets cross.

    Args:
        first: (A, 2, 2) segments, two ends each.
        second: (B, 2, 2).
        clearance: Pixels that the ends of one set must keep from the other set.
        shallowest: Sine of the smallest angle of a crossing.

    Returns:
        (N, 2) points and the positions (N,) of their second segments; None if it is ambiguous: an
        end too near, or a crossing too shallow.
    """
    for segments, ends in ((first, second.reshape(-1, 2)), (second, first.reshape(-1, 2))):
        directions = segments[:, 1] - segments[:, 0]
        squares = np.maximum((directions**2).sum(axis=1), 1e-9)
        offsets = ends[None] - segments[:, :1]
        t = np.clip((offsets * directions[:, None]).sum(axis=2) / squares[:, None], 0, 1)
        gaps = offsets - t[:, :, None] * directions[:, None]
        if gaps.size and (gaps**2).sum(axis=2).min() < clearance**2:
            return None
    d1, d2 = (first[:, 1] - first[:, 0])[:, None], (second[:, 1] - second[:, 0])[None]
    offset = second[None, :, 0] - first[:, None, 0]
    determinant = _cross(d1, d2)
    parallel = np.abs(determinant) < 1e-9
    divisor = np.where(parallel, 1.0, determinant)
    t, u = _cross(offset, d2) / divisor, _cross(offset, d1) / divisor
    crossing = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    norms = np.sqrt((d1**2).sum(axis=2) * (d2**2).sum(axis=2))
    if (crossing & (np.abs(determinant) < shallowest * norms)).any():
        return None
    points = (first[:, None, 0] + t[..., None] * d1)[crossing]
    return points, np.nonzero(crossing)[1]


def _cross(first: Matrix, second: Matrix) -> Matrix:
    return np.asarray(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])


def polygon(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """One polygon of three to seven corners: triangles and quadrilaterals most often."""
    corners = int(rng.choice([3, 3, 4, 4, 5, 6, 7]))
    radius = rng.uniform(0.2, 0.5) * min(size)
    centre = _place(rng, size, 0.25 * min(size))
    return _polygon_at(rng, centre, radius, corners, other_shade(rng, ground))


def polygons(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Several polygons apart from each other."""
    shape = Shape()
    taken: list[tuple[Matrix, float]] = []
    for _ in range(16):
        radius = rng.uniform(0.08, 0.25) * min(size)
        centre = _place(rng, size, 0.1 * min(size))
        if any(math.dist(centre, c) < radius + r + 5 for c, r in taken):
            continue
        part = _polygon_at(rng, centre, radius, int(rng.integers(3, 7)), other_shade(rng, ground))
        shape.fills += part.fills
        shape.points += part.points
        taken.append((centre, radius))
    return shape


def overlaps(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Polygons painted over each other: what is covered is no point, T-junctions are."""
    fills: list[tuple[Matrix, float]] = []
    covers: list[npt.NDArray[np.float32]] = []
    points: list[Matrix] = []
    edges, owners = np.empty((0, 2, 2)), np.empty(0, np.intp)
    middle, wanted = _place(rng, size, 0.3 * min(size)), int(rng.integers(2, 6))
    for _ in range(8):
        if len(fills) == wanted:
            break
        radius = rng.uniform(0.15, 0.4) * min(size)
        centre = middle + rng.uniform(-0.35, 0.35, 2) * min(size)
        outline = _circle_points(rng, int(rng.integers(3, 6)), radius, 0.7) + centre
        crossings = _crossings(_edges(outline), edges, 3.0, 0.35)
        if crossings is None:
            continue
        # A crossing with a covered stretch of an edge lies below a polygon painted later.
        junctions = [
            point
            for point, edge in zip(*crossings, strict=True)
            if not any(_covers(cover, point) for cover in covers[owners[edge] + 1 :])
        ]
        edges = np.concatenate([edges, _edges(outline)])
        owners = np.concatenate([owners, np.full(len(outline), len(fills))])
        covers.append(outline.astype(np.float32))
        points = [point for point in points if not _covers(covers[-1], point)]
        points += [*outline[_corner_mask(outline)], *junctions]
        shades = [shade for _, shade in fills]
        fills.append((outline, other_shade(rng, ground, *shades, gap=25)))
    return Shape(fills, points)


def _edges(polygon: Matrix) -> Matrix:
    """(K, 2) vertices -> (K, 2, 2) edges."""
    return np.stack([polygon, np.concatenate([polygon[1:], polygon[:1]])], axis=1)


def _covers(polygon: npt.NDArray[np.float32], point: Matrix) -> bool:
    return cv2.pointPolygonTest(polygon, (point[0], point[1]), False) > 0


def star(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Strokes that meet in one point, or a filled star."""
    centre = _place(rng, size, 0.3 * min(size))
    radius = rng.uniform(0.2, 0.45) * min(size)
    count = int(rng.integers(3, 7))
    tips = _circle_points(rng, count, radius, 0.55)
    if rng.random() < 0.5:
        inner = tips + np.roll(tips, -1, axis=0)
        inner *= rng.uniform(0.15, 0.3) * radius / np.linalg.norm(inner, axis=1, keepdims=True)
        outline = np.stack([tips, inner], axis=1).reshape(-1, 2) + centre
        return Shape(
            [(outline, other_shade(rng, ground))], list(outline[_corner_mask(outline, 2.5)])
        )
    shade, width = other_shade(rng, ground), rng.uniform(0.6, 2.0)
    normals = np.stack([-tips[:, 1], tips[:, 0]], axis=1)
    normals *= width / np.linalg.norm(normals, axis=1, keepdims=True)
    fills = [
        (np.stack([n, tip + n, tip - n, -n]) + centre, shade)
        for tip, n in zip(tips, normals, strict=True)
    ]
    return Shape(fills, [centre, *(tips + centre)])


def ellipses(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Ellipses: nothing to detect."""
    shape = Shape()
    taken: list[tuple[Matrix, float]] = []
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(int(rng.integers(1, 9))):
        axes = rng.uniform(0.05, 0.3, 2) * min(size)
        turn = rng.uniform(0, np.pi)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        centre, reach = _place(rng, size, 0.1 * min(size)), float(axes.max())
        # Two overlapping ellipses would make real corners.
        if all(math.dist(centre, other) > reach + radius + 4 for other, radius in taken):
            shape.fills.append((circle * axes @ rotation.T + centre, other_shade(rng, ground)))
            taken.append((centre, reach))
    return shape


def _lattice(
    rng: np.random.Generator, size: tuple[int, int], rows: int, columns: int, uneven: float
) -> Matrix:
    """(rows + 1, columns + 1, 2) vertices of a rectangle cut into cells, somewhere in the frame."""
    extent = rng.uniform(0.4, 0.9, 2) * min(size)

    def cuts(count: int, length: float) -> Matrix:
        widths = 1 + rng.uniform(0, uneven, count) if uneven else np.ones(count)
        return np.asarray(np.concatenate([[0.0], np.cumsum(widths / widths.sum())]) * length)

    x, y = np.meshgrid(cuts(columns, extent[0]), cuts(rows, extent[1]))
    return np.stack([x, y], axis=-1) - extent / 2 + _place(rng, size, 0.35 * min(size))


def _cells(grid: Matrix) -> list[list[Matrix]]:
    """Cells of a lattice, each reaching a little below those that are painted after it.

    Two anti-aliased edges that merely meet would let the ground shine through between them.
    """
    rows, columns = grid.shape[0] - 1, grid.shape[1] - 1
    cells = [
        [np.stack([a, b, c, d]) for a, b, c, d in zip(top, top[1:], low[1:], low, strict=False)]
        for top, low in pairwise(grid)
    ]
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            cell[1:3, 0] += SEAM * (j < columns - 1)
            cell[2:, 1] += SEAM * (i < rows - 1)
    return cells


def checkerboard(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """A board in two tones, both different from the ground: every lattice point is a junction."""
    rows, columns = (int(n) for n in rng.integers(2, 7, 2))
    grid = _lattice(rng, size, rows, columns, uneven=0.0)
    first = other_shade(rng, ground)
    second = other_shade(rng, ground, first)
    fills = [
        (cell, (first, second)[(i + j) % 2])
        for i, row in enumerate(_cells(grid))
        for j, cell in enumerate(row)
    ]
    return Shape(fills, list(grid.reshape(-1, 2)))


def stripes(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """Bands side by side, each different from its neighbours and the ground."""
    grid = _lattice(rng, size, 1, int(rng.integers(3, 9)), uneven=2.0)
    shape = Shape(points=list(grid.reshape(-1, 2)))
    shade = ground
    for cell in _cells(grid)[0]:
        shade = other_shade(rng, ground, shade)
        shape.fills.append((cell, shade))
    return shape


def cube(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """A box seen from outside: three faces, seven visible corners."""
    while True:
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        extent = rng.uniform(0.3, 0.6, 3) * min(size)
        # Edges leaving the corner nearest to the camera, which looks along the third axis.
        edges = (rotation * np.where(rotation[2] < 0, -1, 1))[:2].T * extent[:, None]
        pairs = [(0, 1), (1, 2), (2, 0)]
        areas = [abs(edges[a, 0] * edges[b, 1] - edges[a, 1] * edges[b, 0]) for a, b in pairs]
        if min(areas) > 0.02 * min(size) ** 2:
            break
    corner = _place(rng, size, 0.35 * min(size)) - edges.sum(axis=0) / 2
    shape = Shape(points=[corner, *(corner + edges)])
    shades: list[float] = [ground]
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    # The first face reaches below the other two, the second below the third.
    below = -SEAM * np.stack([along[0] + along[1], along[1], np.zeros(2)])
    for (a, b), reach in zip(pairs, below, strict=True):
        far = corner + edges[a] + edges[b]
        face = np.stack([corner + reach, corner + edges[a], far, corner + edges[b]])
        shades.append(other_shade(rng, *shades, gap=25))
        shape.fills.append((face, shades[-1]))
        shape.points.append(far)
    return shape


def house(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """A compound figure: wall, roof, door and window."""
    w, h = rng.uniform(0.4, 0.7, 2) * min(size)
    eaves, ridge = rng.uniform(0, 0.2) * w, rng.uniform(0.2, 0.5) * h
    wall = np.array([[0, 0], [w, 0], [w, h], [0, h]])
    roof = np.array([[-eaves, 0], [rng.uniform(0.2, 0.8) * w, -ridge], [w + eaves, 0]])
    left, right, top = 0.1 * w, rng.uniform(0.3, 0.45) * w, rng.uniform(0.35, 0.6) * h
    door = np.array([[left, top], [right, top], [right, h], [left, h]])
    x0, x1 = rng.uniform(0.55, 0.65) * w, rng.uniform(0.8, 0.9) * w
    y0, y1 = rng.uniform(0.15, 0.3) * h, rng.uniform(0.5, 0.7) * h
    window = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    wall_shade = other_shade(rng, ground)
    shades = [wall_shade, other_shade(rng, ground, wall_shade)]
    shades += [other_shade(rng, ground, wall_shade), other_shade(rng, wall_shade)]
    origin = _place(rng, size, 0.4 * min(size)) - np.array([w, h - ridge]) / 2
    parts = [part + origin for part in (wall, roof, door, window)]
    # Without eaves the wall and the roof share their corners.
    corners = [*parts[0][2:], *(parts[0][:2] if eaves > 4 else [])]
    points = [*corners, *parts[1], *parts[2], *parts[3]]
    # The wall reaches a little below the roof.
    parts[0] = np.insert(parts[0], 1, [roof[1, 0] + origin[0], origin[1] - SEAM], axis=0)
    return Shape(list(zip(parts, shades, strict=True)), points)


def noise(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Shape:
    """An empty ground, or one under pure noise: nothing to detect."""
    return Shape(noise=rng.uniform(5, 60) if rng.random() < 0.6 else 0.0)


SHAPES: dict[str, Generator] = {
    draw.__name__: draw
    for draw in (
        *(lines, polygon, polygons, overlaps, star, ellipses),
        *(checkerboard, stripes, cube, house, noise),
    )
}
