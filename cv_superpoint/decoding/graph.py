"""The decoding of :mod:`cv_superpoint.decoding.arrays` as ONNX nodes, without shapes of data.

The image's size and the count of keypoints are fixed, so TensorRT takes the graph. Where an image
has fewer keypoints, the rows left over have a negative score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cv_superpoint.checks import as_count
from cv_superpoint.decoding.arrays import LARGEST_SHIFT, SUBPIXEL_RADIUS
from cv_superpoint.decoding.options import Decoding
from cv_superpoint.errors import FeatureError
from cv_superpoint.grid import CELL_SIZE

if TYPE_CHECKING:
    from cv_superpoint.export.graph import Graph

FLOAT, INT64 = 1, 7
"""ONNX's numbers of the two types."""
MOST_PIXELS = 1 << 23
"""float32 holds the index of each of these pixels, and divides it by the width, exactly enough."""
NO_KEYPOINT = -1.0
"""Score of a row without a keypoint: ``cv2.DISK`` drops what is below 0."""


@dataclass(frozen=True, kw_only=True)
class FixedShape:
    """What no call of a graph can change.

    Attributes:
        size: (height, width) of the input, multiples of 8.
        batch: Images in one call.

    Raises:
        FeatureError: If a value is out of range.
    """

    size: tuple[int, int]
    batch: int = 1

    def __post_init__(self) -> None:
        try:
            height, width = (as_count("size", side) for side in self.size)
        except (TypeError, ValueError) as error:
            raise FeatureError(
                f"size must be (height, width) in pixels, got {self.size!r}"
            ) from error
        object.__setattr__(self, "size", (height, width))  # it is frozen
        object.__setattr__(self, "batch", as_count("batch", self.batch, 1))
        if min(height, width) < CELL_SIZE or height % CELL_SIZE or width % CELL_SIZE:
            raise FeatureError(
                f"size must be (height, width) in multiples of {CELL_SIZE}, got {self.size}; "
                "images of other sizes are padded by the caller"
            )
        if height * width > MOST_PIXELS:
            raise FeatureError(f"size may have at most {MOST_PIXELS} pixels, got {self.size}")

    def check(self, decoding: Decoding) -> None:
        """Check that a graph of this shape can hold the decoding.

        Raises:
            FeatureError: If it cannot.
        """
        height, width = self.size
        if not 1 <= decoding.max_keypoints <= height * width:
            raise FeatureError(
                f"max_keypoints must be 1 to {height * width} for this size (a graph of fixed "
                f"shapes cannot keep all), got {decoding.max_keypoints}"
            )


def decode(
    graph: Graph, logits: str, dense: str, dim: int, decoding: Decoding, shape: FixedShape
) -> tuple[str, str, str, str]:
    """Same as :func:`cv_superpoint.decoding.arrays.decode`, but always with K rows.

    Args:
        graph: Graph that gets the nodes.
        logits: (B, 65, h, w).
        dense: (B, D, h, w); an empty name without descriptors.
        dim: D.
        decoding: What is kept; ``max_keypoints`` is K, TensorRT allows at most 3840.
        shape: Shape of the graph.

    Returns:
        x, y and scores, each (B, K), the scores negative in rows left over; descriptors (B, K, D),
        or the empty name.
    """
    x, y, scores = find(graph, heatmap(graph, logits), decoding, shape)
    return x, y, scores, sample(graph, dense, x, y, dim, shape) if dense else dense


def find(graph: Graph, heat: str, decoding: Decoding, shape: FixedShape) -> tuple[str, str, str]:
    """Same as :func:`cv_superpoint.decoding.arrays.find`: x, y and scores, each (B, K)."""
    scores, indices = strongest(graph, maxima(graph, heat, decoding, shape), decoding, shape)
    x, y = whole_pixels(graph, indices, shape)
    if decoding.subpixel:
        x, y = refine(graph, heat, x, y, decoding, shape)
    return x, y, scores


def heatmap(graph: Graph, logits: str) -> str:
    """(B, 65, h, w) -> probabilities (B, 1, H, W)."""
    probabilities = graph.add("Softmax", logits, axis=1)
    cells = graph.add(
        "Slice",
        probabilities,
        graph.constant([0]),
        graph.constant([CELL_SIZE**2]),
        graph.constant([1]),
    )
    # CRD: the channel's bits are row, then column, in the cell.
    return str(graph.add("DepthToSpace", cells, blocksize=CELL_SIZE, mode="CRD"))


def maxima(graph: Graph, heat: str, decoding: Decoding, shape: FixedShape) -> str:
    """Scores (B, 1, H, W) of what ``decoding.arrays.keypoints`` finds, else -1."""
    height, width = shape.size
    none = graph.constant(NO_KEYPOINT)
    # Conditions follow one another as Where: OpenCV 4 has neither And nor Not.
    # A peak that has not its share of the threshold is none, and suppresses no equal one.
    scores = graph.add(
        "Where", graph.add("Greater", heat, graph.constant(decoding.peak_threshold)), heat, none
    )
    if decoding.nms_radius:
        highest = _window_maximum(graph, heat, decoding.nms_radius)
        scores = graph.add("Where", graph.add("Less", heat, highest), none, scores)
        # Of equal maxima within reach the first in raster order stays. float32 counts to 2**24.
        order = np.arange(height * width, 0, -1, dtype=np.float32).reshape(1, 1, height, width)
        zero = graph.constant(0.0)
        found = graph.add("Greater", scores, zero)
        rank = graph.add("Where", found, graph.constant(order), zero)
        first = _window_maximum(graph, rank, decoding.nms_radius)
        scores = graph.add("Where", graph.add("Less", rank, first), none, scores)
    if decoding.score_radius:
        found = graph.add("Greater", scores, graph.constant(0.0))
        sums = _window_sum(graph, heat, decoding.score_radius)
        above = graph.add("Greater", sums, graph.constant(decoding.score_threshold))
        scores = graph.add("Where", found, graph.add("Where", above, sums, none), none)
    margin = decoding.border_margin
    inside = np.zeros((1, 1, height, width), np.float32)
    inside[:, :, margin : height - margin, margin : width - margin] = 1
    within = graph.add("Greater", graph.constant(inside), graph.constant(0.5))
    return str(graph.add("Where", within, scores, none))


def _window_maximum(graph: Graph, x: str, radius: int) -> str:
    window = 2 * radius + 1
    return str(
        graph.add("MaxPool", x, kernel_shape=[window, window], strides=[1, 1], pads=[radius] * 4)
    )


def _window_sum(graph: Graph, x: str, radius: int) -> str:
    window = 2 * radius + 1
    ones = graph.constant(np.ones((1, 1, window, window), np.float32))
    return str(graph.add("Conv", x, ones, kernel_shape=[window, window], pads=[radius] * 4))


def strongest(graph: Graph, scores: str, decoding: Decoding, shape: FixedShape) -> tuple[str, str]:
    """(B, 1, H, W) -> the K highest (B, K) in descending order, and their flat indices."""
    flat = graph.add("Reshape", scores, graph.constant([shape.batch, -1]))
    values, indices = graph.add(
        "TopK", flat, graph.constant([decoding.max_keypoints]), axis=1, outputs=2
    )
    return values, indices


def whole_pixels(graph: Graph, indices: str, shape: FixedShape) -> tuple[str, str]:
    """(B, K) flat indices -> columns and rows, each (B, K), whole float32 numbers.

    Floats, which hold every index of :data:`MOST_PIXELS`, because OpenCV 4 does not divide
    integers as integers.
    """
    width = graph.constant(float(shape.size[1]))
    flat = graph.add("Cast", indices, to=FLOAT)
    rows = graph.add("Floor", graph.add("Div", flat, width))
    return graph.add("Sub", flat, graph.add("Mul", rows, width)), rows


def refine(
    graph: Graph, heat: str, columns: str, rows: str, decoding: Decoding, shape: FixedShape
) -> tuple[str, str]:
    """Sub-pixel x and y, each (B, K) float32, as :func:`cv_superpoint.decoding.arrays.refine`."""
    width = shape.size[1]
    radius = SUBPIXEL_RADIUS
    padded_width = width + 2 * radius
    padded = graph.add("Pad", heat, graph.constant([0, 0, radius, radius] * 2))
    flat = graph.add("Reshape", padded, graph.constant([shape.batch, -1]))
    offsets = np.arange(-radius, radius + 1)
    row_offsets, column_offsets = np.meshgrid(offsets, offsets, indexing="ij")
    around = (row_offsets + radius) * padded_width + column_offsets + radius
    centre = graph.add("Add", graph.add("Mul", rows, graph.constant(float(padded_width))), columns)
    patches = graph.add(
        "Add",
        graph.add("Unsqueeze", centre, graph.constant([2])),
        graph.constant(around.reshape(1, 1, -1).astype(np.float32)),
    )
    patches = graph.add("Cast", patches, to=INT64)
    windows = [shape.batch, decoding.max_keypoints, -1]
    picked = graph.add(
        "GatherElements",
        flat,
        graph.add("Reshape", patches, graph.constant([shape.batch, -1])),
        axis=1,
    )
    weights = graph.add("Reshape", picked, graph.constant(windows))
    total = _sum(graph, weights)
    positions = []
    for pixels, offset in ((columns, column_offsets), (rows, row_offsets)):
        factors = graph.constant(offset.reshape(1, 1, -1).astype(np.float32))
        mean = graph.add("Div", _sum(graph, graph.add("Mul", weights, factors)), total)
        shift = graph.add(
            "Clip", mean, graph.constant(-LARGEST_SHIFT), graph.constant(LARGEST_SHIFT)
        )
        positions.append(graph.add("Add", pixels, shift))
    return positions[0], positions[1]


def _sum(graph: Graph, x: str) -> str:
    return str(graph.add("ReduceSum", x, graph.constant([2]), keepdims=0))


def sample(graph: Graph, dense: str, x: str, y: str, dim: int, shape: FixedShape) -> str:
    """Descriptors (B, K, D) at (B, K) x and y.

    As :func:`cv_superpoint.decoding.arrays.sample_descriptors`.
    """
    h, w = shape.size[0] // CELL_SIZE, shape.size[1] // CELL_SIZE
    rows = graph.add(
        "Reshape",
        graph.add("Transpose", dense, perm=[0, 2, 3, 1]),
        graph.constant([shape.batch * h * w, dim]),
    )
    first = graph.constant(np.arange(shape.batch)[:, None] * h * w)
    left, right, fraction_x = _neighbours(graph, x, w)
    top, bottom, fraction_y = _neighbours(graph, y, h)
    one = graph.constant(1.0)
    rest_x, rest_y = graph.add("Sub", one, fraction_x), graph.add("Sub", one, fraction_y)
    total = ""
    for cell_y, weight_y in ((top, rest_y), (bottom, fraction_y)):
        start = graph.add("Add", graph.add("Mul", cell_y, graph.constant([w])), first)
        for cell_x, weight_x in ((left, rest_x), (right, fraction_x)):
            corner = graph.add("Gather", rows, graph.add("Add", start, cell_x), axis=0)
            weight = graph.add(
                "Unsqueeze", graph.add("Mul", weight_x, weight_y), graph.constant([2])
            )
            term = graph.add("Mul", corner, weight)
            total = graph.add("Add", total, term) if total else term
    return graph.normalise(total, axis=2)


def _neighbours(graph: Graph, position: str, count: int) -> tuple[str, str, str]:
    """Pixel positions (B, K) -> the cells before and after, and the fraction between them."""
    centre = graph.constant((CELL_SIZE - 1) / 2)
    cell = graph.add("Div", graph.add("Sub", position, centre), graph.constant(float(CELL_SIZE)))
    cell = graph.add("Clip", cell, graph.constant(0.0), graph.constant(float(count - 1)))
    floor = graph.add("Floor", cell)
    after = graph.add(
        "Min", graph.add("Add", floor, graph.constant(1.0)), graph.constant(float(count - 1))
    )
    before, behind = (graph.add("Cast", one, to=INT64) for one in (floor, after))
    return before, behind, graph.add("Sub", cell, floor)
