"""What is compared: whole calls from a uint8 array to keypoints and descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import choosing
from cv_superpoint.backends.processor import CPU_BFLOAT16, CPU_INT8, instructions
from cv_superpoint.weights import LoadedWeights, available_weights

THRESHOLD = 2e-4
"""Low enough that every photograph fills the quota of keypoints."""
OURS = "cv_superpoint"
PEER = "transformers SuperPoint"

Call = Callable[[Any], Any]


SETS = ("superpoint", "superpoint-lite")
"""Weights that tables of time and memory have rows for."""


def our_variants(device: str) -> list[tuple[str, str]]:
    """(backend, precision) of what is installed and runs on the device."""
    if device != "cpu":
        return [("torch", precision) for precision in ("float32", "bfloat16", "float16")]
    variants = [(name, "float32") for name in choosing.BACKENDS if choosing.is_installed(name)]
    if CPU_BFLOAT16 in instructions():
        names = [name for name in ("openvino", "torch") if choosing.is_installed(name)]
        variants += [(name, "bfloat16") for name in names]
    if CPU_INT8 in instructions():
        names = [name for name in ("openvino", "onnxruntime") if choosing.is_installed(name)]
        variants += [(name, "int8") for name in names]
    return variants


def ours(
    backend: str,
    precision: str,
    device: str,
    count: int,
    threads: int,
    weights: str | None = None,
) -> Any:
    """Our detector as it is compared."""
    return SuperPointFeature2D.create(
        count,
        THRESHOLD,
        weights=weights,
        backend=backend,
        precision=precision,
        device=device,
        threads=threads,
    )


def contenders(
    weights: LoadedWeights, *, device: str, count: int, threads: int
) -> Iterator[tuple[str, Call]]:
    """Name and whole call of each, ours first."""
    cv2.setNumThreads(threads)
    named = weights.name if weights.name in available_weights() else str(weights.path)
    for backend, precision in our_variants(device):
        detector = ours(backend, precision, device, count, threads, named)
        yield f"{OURS}, {backend} {precision}", detector.detectAndCompute
    if choosing.is_installed("torch"):
        import torch

        from benchmarks.plain import plain_call, transformers_call

        torch.set_num_threads(threads)
        if choosing.is_installed("transformers"):
            yield f"{PEER}, float32", transformers_call(weights, device, THRESHOLD, count)
            if device != "cpu":
                call = transformers_call(weights, device, THRESHOLD, count, "float16")
                yield f"{PEER}, float16", call
        yield "plain PyTorch module, float32", plain_call(weights, device, THRESHOLD, count)
    for name, options in (
        ("SIFT", {"nfeatures": count}),
        ("ORB", {"nfeatures": count}),
        ("AKAZE", {"max_points": count}),
    ):
        if kind := getattr(cv2, name, None):
            yield f"cv2.{name}", partial(_detect, kind.create(**options))


def _detect(feature: Any, image: Any) -> Any:
    return feature.detectAndCompute(image, None)
