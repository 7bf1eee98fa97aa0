"""Homographies of many pictures onto one plane, adjusted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.interop.stitching.pairs import Link

Matrix = NDArray[Any]
"""float64; numpy's types lose that on the way through its linear algebra."""

LARGE_MISS = 2.0
"""Pixels from which on a distance counts linearly instead of squared, Huber's loss (as in Brown and
Lowe, "Automatic panoramic image stitching using invariant features", IJCV 2007, section 4): a
homography of few matches may bend to a wrong one, which all links together contradict."""
ITERATIONS = 30
CONVERGED = 1e-6
"""Share by which the sum of losses must fall for another iteration."""
STEP = 1e-6
"""Step of the differences that approximate derivatives; coordinates are of the order of 1."""


def chain(links: Sequence[Link], count: int, reference: int) -> list[Matrix]:
    """(3, 3) of each picture onto a reference, along the links with the most matches.

    Args:
        links: Links that join all pictures.
        count: How many pictures there are.
        reference: The picture whose homography is the identity.
    """
    placed: dict[int, Matrix] = {reference: np.eye(3)}
    while len(placed) < count:
        reach = [link for link in links if (link.first in placed) != (link.second in placed)]
        link = max(reach, key=lambda each: len(each.points0))
        if link.first in placed:
            placed[link.second] = placed[link.first] @ np.linalg.inv(link.homography)
        else:
            placed[link.first] = placed[link.second] @ link.homography
    return [placed[index] for index in range(count)]


def refine(
    homographies: Sequence[Matrix],
    links: Sequence[Link],
    sizes: Sequence[tuple[int, int]],
    reference: int,
) -> list[Matrix]:
    """The homographies that all links together agree with best, by Levenberg and Marquardt.

    What becomes small is the distance of each match in pixels of its second picture, so that a
    link far from the reference counts as much as one near it. Single wrong matches count little.

    Args:
        homographies: (3, 3) of each picture onto the reference.
        links: Links between the pictures.
        sizes: (height, width) of each picture.
        reference: Picture whose homography stays as it is.
    """
    unit = float(max(max(size) for size in sizes))
    centring = [_centring(size, unit) for size in sizes]
    back = [np.linalg.inv(each) for each in centring]
    current = [
        _normalised(centring[reference] @ each @ inverse)
        for each, inverse in zip(homographies, back, strict=True)
    ]
    problem = _Problem(
        links=links,
        points=[_homogeneous(link.points0) @ centring[link.first].T for link in links],
        pixels=back,
        free=[index for index in range(len(sizes)) if index != reference],
    )
    damping = 1e-3
    cost, gradient, curvature = problem.linearise(current)
    for _ in range(ITERATIONS):
        damped = curvature + damping * np.diag(np.diag(curvature) + 1e-12)
        moved = problem.move(current, np.linalg.lstsq(damped, -gradient, rcond=None)[0])
        reached = problem.cost(moved)
        if not reached < cost:
            damping *= 10
            continue
        fallen = cost - reached
        current, damping = moved, damping / 10
        if fallen <= CONVERGED * cost:
            break
        cost, gradient, curvature = problem.linearise(current)
    onto = np.linalg.inv(centring[reference])
    return [onto @ each @ scale for each, scale in zip(current, centring, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Problem:
    """Homographies whose last entry is 1, in coordinates centred on each picture.

    Attributes:
        links: Links between the pictures.
        points: (K, 3) homogeneous points of the first picture of each link.
        pixels: (3, 3) of each picture from these coordinates to pixels.
        free: Pictures that may move.
    """

    links: Sequence[Link]
    points: Sequence[Matrix]
    pixels: Sequence[Matrix]
    free: Sequence[int]

    def misses(self, number: int, one: Matrix, other: Matrix) -> Matrix:
        """(2 K,) distances of a link along x and y, given its pictures' homographies."""
        link = self.links[number]
        matrix = self.pixels[link.second] @ np.linalg.inv(other) @ one
        seen = self.points[number] @ matrix.T
        with np.errstate(divide="ignore", invalid="ignore"):  # such a step is not taken
            places = seen[:, :2] / seen[:, 2:]
        return np.asarray((places - link.points1).reshape(-1))

    def cost(self, current: Sequence[Matrix]) -> float:
        """Sum of losses."""
        return sum(
            _loss(self.misses(number, current[link.first], current[link.second]))[0]
            for number, link in enumerate(self.links)
        )

    def linearise(self, current: Sequence[Matrix]) -> tuple[float, Matrix, Matrix]:
        """Sum of losses, its gradient's half, and the product of the weighted derivatives."""
        count = 8 * len(self.free)
        cost, gradient, curvature = 0.0, np.zeros(count), np.zeros((count, count))
        for number, link in enumerate(self.links):
            base = self.misses(number, current[link.first], current[link.second])
            loss, weights = _loss(base)
            cost += loss
            blocks = [
                (slice(8 * place, 8 * place + 8), self._derivative(number, current, index, base))
                for place, index in enumerate(self.free)
                if index in (link.first, link.second)
            ]
            for rows, block in blocks:
                weighted = block.T * weights
                gradient[rows] += weighted @ base
                for columns, other in blocks:
                    curvature[rows, columns] += weighted @ other
        return cost, gradient, curvature

    def _derivative(
        self, number: int, current: Sequence[Matrix], index: int, base: Matrix
    ) -> Matrix:
        """(2 K, 8) of a link's distances by the entries of one homography."""
        link = self.links[number]
        columns = []
        for entry in range(8):
            moved = current[index].copy()
            moved.flat[entry] += STEP
            one = moved if index == link.first else current[link.first]
            other = moved if index == link.second else current[link.second]
            columns.append((self.misses(number, one, other) - base) / STEP)
        return np.stack(columns, axis=1)

    def move(self, current: Sequence[Matrix], step: Matrix) -> list[Matrix]:
        """The homographies after a step."""
        moved = [each.copy() for each in current]
        for place, index in enumerate(self.free):
            moved[index].flat[:8] += step[8 * place : 8 * place + 8]
        return moved


def _loss(misses: Matrix) -> tuple[float, Matrix]:
    """Huber's loss of (2 K,) distances along x and y, and the weight of each."""
    with np.errstate(over="ignore", invalid="ignore"):  # such a step is not taken
        length = np.linalg.norm(misses.reshape(-1, 2), axis=1)
        near = np.minimum(length, LARGE_MISS)
        loss = float((near * (2 * length - near)).sum())
    return loss, np.repeat(LARGE_MISS / np.maximum(length, LARGE_MISS), 2)


def _centring(size: tuple[int, int], unit: float) -> Matrix:
    """(3, 3) from pixels to coordinates around a picture's centre, of the order of 1."""
    height, width = size
    return np.array(
        [
            [1 / unit, 0, -(width - 1) / 2 / unit],
            [0, 1 / unit, -(height - 1) / 2 / unit],
            [0, 0, 1],
        ]
    )


def _normalised(matrix: Matrix) -> Matrix:
    return np.asarray(matrix / matrix[2, 2])


def _homogeneous(points: Matrix) -> Matrix:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
