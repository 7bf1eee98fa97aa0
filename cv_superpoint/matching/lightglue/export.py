"""Matchers as files for other programs: alone, or behind a detector, two images in, matches out.

Layout "pair", for ONNX Runtime: ``images`` (2, C, H, W) in [0, 1] -> ``keypoints0`` (N, 2) and
``keypoints1`` (M, 2) as (x, y) pixels, ``matches`` (S, 2) int64 rows of both, ``scores`` (S).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.graph import FLOAT, INT64, FixedShape, decode
from cv_superpoint.errors import FeatureError
from cv_superpoint.files import replace_file
from cv_superpoint.matching.lightglue.bundled import find_matcher
from cv_superpoint.matching.lightglue.files import LoadedMatcher, check_threshold
from cv_superpoint.matching.lightglue.graph import OnnxMatcher, matcher_model
from cv_superpoint.weights import LoadedWeights, load_weights

MatcherExport = Literal["matcher", "matcher-colmap", "pair"]
EXPORTS: tuple[MatcherExport, ...] = get_args(MatcherExport)


def export_matcher(
    matcher: str | os.PathLike[str] | None,
    path: str | os.PathLike[str],
    layout: MatcherExport = "matcher",
    *,
    match_threshold: float | None = None,
    weights: str | os.PathLike[str] | None = None,
    size: tuple[int, int] = (480, 640),
    **options: Any,
) -> Path:
    """Write a matcher as an ONNX file; a reader never sees half of it.

    Args:
        matcher: Same as for :meth:`cv_superpoint.LightGlueMatcher.create`.
        path: Target, ending in ``.onnx``; replaced in one step if it exists.
        layout: "matcher" for ``cv2.LightGlueMatcher`` of OpenCV 5, "matcher-colmap" for COLMAP (see
            :mod:`cv_superpoint.matching.lightglue.graph`), or "pair", with the detector in front.
        match_threshold: Score that a match must exceed; by default what the matcher recommends.
        weights: Weights of the detector, for "pair"; by default those whose features it matches.
        size: (height, width) of both images, multiples of 8, for "pair".
        options: Fields of :class:`Decoding`, for "pair"; by default at most 1024 keypoints above
            the threshold that the weights recommend.

    Returns:
        The path.

    Raises:
        ImportError: If the package ``onnx`` is not installed.
        FeatureError: If an argument is out of range, or the weights are not the matcher's.
        WeightsError: If there is no such matcher, or no such weights.
    """
    target = Path(path)
    if layout not in EXPORTS:
        raise FeatureError(f"layout must be one of {', '.join(EXPORTS)}, got {layout!r}")
    if target.suffix != ".onnx":
        raise FeatureError(f"path must end in .onnx, got {str(target)!r}")
    loaded = find_matcher(matcher)
    threshold = loaded.threshold if match_threshold is None else check_threshold(match_threshold)
    if layout == "pair":
        network = load_weights(loaded.weights if weights is None else weights)
        _check_same(loaded, network)
        decoding = network.decoding(**{"max_keypoints": 1024, **options})
        model = pair_model(network, loaded, decoding, size, threshold)
    else:
        model = matcher_model(
            loaded, "colmap" if layout == "matcher-colmap" else "opencv", threshold
        )
    replace_file(target, model.SerializeToString())
    return target


def _check_same(loaded: LoadedMatcher, network: LoadedWeights) -> None:
    same = loaded.fitted_to in ("", network.tensor_digest)
    if not same or loaded.config.descriptor_dim != network.config.descriptor_dim:
        raise FeatureError(
            f"this matcher is for the features of {loaded.weights}, not of {network.name}; leave "
            "the weights out, or name its own"
        )


def pair_model(
    weights: LoadedWeights,
    loaded: LoadedMatcher,
    decoding: Decoding,
    size: tuple[int, int],
    threshold: float,
) -> Any:
    """The ``onnx.ModelProto`` of layout "pair".

    Only rows with keypoints go on to the matcher, so the result is that of both, one after the
    other, and not that of padded sets.
    """
    shape = FixedShape(size=size, batch=2)
    shape.check(decoding)
    graph = OnnxMatcher(loaded.tensors, loaded.config)
    logits, dense = graph.heads("images", weights.config, weights.convolutions())
    dim = weights.config.descriptor_dim
    x, y, scores, rows = decode(graph, logits, dense, dim, decoding, shape)
    last = graph.constant([2])
    points = graph.add("Concat", *(graph.add("Unsqueeze", one, last) for one in (x, y)), axis=2)
    sides = [_Side(graph, side, points, rows, scores, size) for side in (0, 1)]
    found = graph.scores([one.positions for one in sides], [one.rows for one in sides])
    for axis, one in enumerate(sides):  # the row that stands for no keypoint has no match
        found = graph.add(
            "Mul", found, graph.add("Unsqueeze", one.there, graph.constant([2 - axis]))
        )
    target, values = graph.matches(found, threshold)
    matched = graph.add("GreaterOrEqual", target, graph.constant(0))
    kept = graph.add("Squeeze", graph.add("NonZero", matched), graph.constant([0]))
    pairs = graph.add("Gather", graph.numbered(target), kept, axis=0)
    sure = graph.add("Gather", values, kept, axis=0)
    return graph.model(
        {"images": [2, weights.config.in_channels, *size]},
        {
            "keypoints0": (sides[0].pixels, "float32", ["N", 2]),
            "keypoints1": (sides[1].pixels, "float32", ["M", 2]),
            "matches": (pairs, "int64", ["S", 2]),
            "scores": (sure, "float32", ["S"]),
        },
        f"SuperPoint {weights.name} ({weights.sha256[:12]}) and its matcher: {shape}, {decoding}",
    )


class _Side:
    """One image's rows with keypoints; one row at least, as networks take no empty sets.

    Attributes:
        pixels: (N, 2).
        positions: (1, N, 2) in [-1, 1].
        rows: (1, N, D).
        there: (1, N) 1, or 0 of the row that stands for none.
    """

    def __init__(
        self,
        graph: OnnxMatcher,
        side: int,
        points: str,
        rows: str,
        scores: str,
        size: tuple[int, int],
    ) -> None:
        first, after = graph.constant([side]), graph.constant([side + 1])
        batch, column = graph.constant([0]), graph.constant([1])

        def part(values: str, count: str) -> str:
            one = graph.add("Slice", values, first, after, batch)
            return str(graph.add("Slice", one, graph.constant([0]), count, column))

        own = graph.add("Slice", scores, first, after, batch)
        above = graph.add("Cast", graph.add("Greater", own, graph.constant(0.0)), to=INT64)
        count = graph.add("ReduceSum", above, column, keepdims=0)
        least = graph.add("Max", count, graph.constant([1]))
        self.pixels = graph.add("Squeeze", part(points, count), batch)
        self.rows = part(rows, least)
        is_there = graph.add("Greater", part(scores, least), graph.constant(0.0))
        self.there = graph.add("Cast", is_there, to=FLOAT)
        height, width = size
        image = graph.constant(np.array([width, height], np.float32))
        share = graph.add("Div", part(points, least), image)
        doubled = graph.add("Mul", share, graph.constant(2.0))
        self.positions = graph.add("Sub", doubled, graph.constant(1.0))
