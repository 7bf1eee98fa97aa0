"""ONNX files for other runtimes and for C++: raw heads, the whole decoding, cv2.DISK's layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cv_superpoint.decoding import Decoding
from cv_superpoint.decoding.graph import FLOAT, INT64, NO_KEYPOINT, FixedShape, decode
from cv_superpoint.errors import FeatureError
from cv_superpoint.export.graph import Graph
from cv_superpoint.files import replace_file
from cv_superpoint.network.architecture import for_bytes
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import LoadedWeights, load_weights
from cv_superpoint.weights.ranges import needed_ranges

__all__ = ["LAYOUTS", "NO_KEYPOINT", "Layout", "export_onnx"]

Layout = Literal["heads", "full", "disk"]
Precision = Literal["float32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
LAYOUTS: tuple[Layout, ...] = ("heads", "full", "disk")
DISK_STRIDE = 16
"""cv2.DISK refuses other sizes."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, those of cv2.cvtColor."""


def export_onnx(
    weights: str | os.PathLike[str] | LoadedWeights | None,
    path: str | os.PathLike[str],
    layout: Layout = "heads",
    *,
    size: tuple[int, int] = (480, 640),
    batch: int = 1,
    precision: Precision = "float32",
    decoding: Decoding | None = None,
    **options: Any,
) -> Path:
    """Write the network as an ONNX file, which appears when it is whole.

    The layouts, all float32 unless said otherwise, K = ``max_keypoints``:

    - "heads": ``image`` (B, C, H, W) in [0, 1] -> ``logits`` (B, 65, H/8, W/8) and unit
      ``descriptors`` (B, D, H/8, W/8). B, H and W are dynamic, H and W multiples of 8; the
      keyword arguments have no effect.
    - "full": ``image`` (batch, C, H, W) in [0, 1] -> ``keypoints`` (batch, K, 2) as (x, y)
      pixels, ``scores`` (batch, K), descending, ``descriptors`` (batch, K, D). Rows with a
      negative score are empty. H and W are those of ``size``.
    - "disk": the layout that ``cv2.DISK`` of OpenCV 5 reads: ``image`` (1, 3, H, W), RGB in [0, 1]
      -> ``keypoints`` (1, K, 2) int64, ``scores`` (1, K), ``descriptors`` (1, K, D). Positions are
      whole pixels, as that class has them.

    Without descriptors, with weights that find keypoints only, there is no such output.

    Args:
        weights: Same as for ``SuperPointFeature2D``, or loaded ones.
        path: Target, ending in ``.onnx``; replaced in one step if it exists.
        layout: "heads", "full" or "disk", see above.
        size: (height, width) of the image, multiples of 8 ("disk": of 16).
        batch: Number of images in one call ("full").
        precision: "float32", or "int8": the weights as bytes, a quarter of the file, and maps
            in bytes ("heads" and "full"). On x86 without VNNI runtimes saturate sums of such
            products.
        decoding: Options of the decoding; None takes at most 1024 keypoints with the threshold that
            the weights recommend. ``subpixel`` acts in "full" only.
        options: Single fields of :class:`Decoding`, such as ``max_keypoints=500``.

    Returns:
        The path.

    Raises:
        ImportError: If the package ``onnx`` is not installed.
        FeatureError: If an argument is out of range, there is no threshold for the
            ``score_radius``, or ``cv2.DISK`` is to read weights that have no descriptors.
        TypeError: If there is no such option.
        WeightsError: If the weights cannot be loaded.
    """
    target = Path(path)
    if layout not in LAYOUTS:
        raise FeatureError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if target.suffix != ".onnx":
        raise FeatureError(f"path must end in .onnx, got {str(target)!r}")
    if layout == "disk" and batch != 1:
        raise FeatureError(f"batch must be 1 for layout 'disk', got {batch}")
    if precision not in PRECISIONS:
        raise FeatureError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    loaded = weights if isinstance(weights, LoadedWeights) else load_weights(weights)
    in_8_bits = precision == "int8"
    if layout == "disk":
        loaded.check_descriptors()
    if layout == "disk" and in_8_bits:
        raise FeatureError(
            "layout 'disk' is for float32: OpenCV 5.0 takes the maxima of its decoding for maps in "
            "8 bits and fails; export it in float32, or the layout 'heads' in int8 for cv2.dnn"
        )
    if layout == "heads":
        model = heads_model(loaded, in_8_bits=in_8_bits)
    else:
        shape = FixedShape(size=size, batch=batch)
        if layout == "disk" and any(side % DISK_STRIDE for side in shape.size):
            raise FeatureError(f"size must be multiples of {DISK_STRIDE} for cv2.DISK, got {size}")
        if decoding is None:
            decoding = loaded.decoding(**{"max_keypoints": 1024, **options})
        else:
            decoding = replace(decoding, **options)
        if layout == "disk":
            decoding = replace(decoding, subpixel=False)
        for_disk = layout == "disk"
        model = decoded_model(loaded, decoding, shape, for_disk=for_disk, in_8_bits=in_8_bits)
    replace_file(target, model.SerializeToString())
    return target


def heads_model(weights: LoadedWeights, *, in_8_bits: bool = False) -> Any:
    """The ``onnx.ModelProto`` of layout "heads"."""
    graph = Graph()
    ranges = needed_ranges(weights).maps if in_8_bits else None
    logits, dense = graph.heads("image", weights.config, weights.convolutions(), ranges)
    h, w = "height/8", "width/8"
    return graph.model(
        {"image": ["batch", weights.config.in_channels, "height", "width"]},
        {
            "logits": (logits, "float32", ["batch", 65, h, w]),
            "descriptors": (dense, "float32", ["batch", weights.config.descriptor_dim, h, w]),
        },
        f"SuperPoint {weights.name} ({weights.sha256[:12]}): heads",
    )


def runtime_model(weights: NetworkWeights, *, in_8_bits: bool = False) -> Any:
    """The ``onnx.ModelProto`` that :mod:`cv_superpoint.backends.onnxruntime` runs.

    ``images`` (B, H, W, C) uint8 -> ``logits`` (B, 65, h, w) and ``descriptors`` (B, h, w, D) of
    any length: each as it costs least to decode.
    """
    config = weights.config
    graph = Graph()
    pixels = graph.add("Cast", "images", to=FLOAT)
    image = graph.add("Transpose", pixels, perm=[0, 3, 1, 2])
    ranges = needed_ranges(weights).maps if in_8_bits else None
    logits, raw = graph.maps(image, config, for_bytes(config, weights.convolutions()), ranges)
    # ONNX Runtime unpacks its channels into this order at once.
    cells = graph.add("Transpose", raw, perm=[0, 2, 3, 1]) if raw else raw
    h, w = "height/8", "width/8"
    return graph.model(
        {"images": ["batch", "height", "width", config.in_channels]},
        {
            "logits": (logits, "float32", ["batch", 65, h, w]),
            "descriptors": (cells, "float32", ["batch", h, w, config.descriptor_dim]),
        },
        f"SuperPoint ({weights.digest[:12]}): images to maps",
        input_type="uint8",
    )


def decoded_model(
    weights: LoadedWeights,
    decoding: Decoding,
    shape: FixedShape,
    *,
    for_disk: bool,
    in_8_bits: bool = False,
) -> Any:
    """The ``onnx.ModelProto`` of the layouts "full" and "disk"."""
    shape.check(decoding)
    graph = Graph()
    image, channels, dim = "image", weights.config.in_channels, weights.config.descriptor_dim
    if for_disk and channels == 1:
        grey = np.array(GREY, np.float32).reshape(1, 3, 1, 1)
        image = graph.add("Conv", image, graph.constant(grey), kernel_shape=[1, 1])
    ranges = needed_ranges(weights).maps if in_8_bits else None
    logits, dense = graph.heads(image, weights.config, weights.convolutions(), ranges)
    x, y, scores, described = decode(graph, logits, dense, dim, decoding, shape)
    last = graph.constant([2])
    points = graph.add("Concat", *(graph.add("Unsqueeze", one, last) for one in (x, y)), axis=2)
    if for_disk:
        points = graph.add("Cast", points, to=INT64)
    count = [shape.batch, decoding.max_keypoints]
    return graph.model(
        {"image": [shape.batch, 3 if for_disk else channels, *shape.size]},
        {
            "keypoints": (points, "int64" if for_disk else "float32", [*count, 2]),
            "scores": (scores, "float32", count),
            "descriptors": (described, "float32", [*count, dim]),
        },
        f"SuperPoint {weights.name} ({weights.sha256[:12]}): {shape}, {decoding}",
    )
