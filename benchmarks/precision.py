"""What lower precisions cost in accuracy: the same pairs through the same network in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.measure import photographs
from cv_superpoint.backends import Backend, choose, choosing, make_backend
from cv_superpoint.detector import Detector, DetectorConfig
from cv_superpoint.errors import require
from cv_superpoint.weights import LoadedWeights, load_weights
from train.evaluate.measure import evaluate_pairs
from train.evaluate.predictions import Detections
from train.evaluate.protocols import PROTOCOLS
from train.evaluate.statistics import accuracy, finite_mean
from train.evaluate.warps import WarpConfig, WarpedPhotographs

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
REFERENCE = "float32"
TOLERANCE = 0.005
"""Loss in any measure beyond which ``precision="auto"`` must not take a precision."""
MEASURES = ("repeatability", "e <= 1 px", "e <= 3 px", "e <= 5 px")
_CALIBRATION_SIZE = (240, 320)

Finder = Callable[[NDArray[Any]], Detections]


class QuantisedBackend:
    """The network in OpenVINO with 8-bit weights and maps, after training (NNCF's default).

    Args:
        weights: The network.
        calibration: (H, W) uint8 photographs of one size, whose maps set the ranges.
        threads: Of the CPU.
    """

    name = "openvino"
    device = "cpu"
    precision = "int8"
    batch = 1
    decodes = False

    def __init__(
        self,
        weights: LoadedWeights,
        calibration: Sequence[NDArray[np.uint8]],
        threads: int | None = None,
    ) -> None:
        nncf, openvino = require("nncf", ""), require("openvino", "cpu")
        from cv_superpoint.backends.openvino import build_model

        images = [image[None, :, :, None] for image in calibration]
        model = nncf.quantize(build_model(weights), nncf.Dataset(images), subset_size=len(images))
        options = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        self._model = openvino.Core().compile_model(model, "CPU", options)

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`cv_superpoint.backends.Backend.run`."""
        found = [self._model(image[None]) for image in images]
        logits, dense = (np.concatenate([one[index] for one in found]) for index in (0, 1))
        # Interpolated 8-bit steps are no longer of unit length.
        return logits, dense / np.linalg.norm(dense, axis=-1, keepdims=True).clip(1e-12)

    def describe(self) -> str:
        """See :meth:`cv_superpoint.backends.Backend.describe`."""
        return "openvino on cpu, int8"


def backends(
    weights: LoadedWeights, calibration: Sequence[NDArray[np.uint8]], device: str
) -> dict[str, Backend]:
    """A backend for each precision that can be had on the device, float32 first."""
    asked = {REFERENCE: ("torch" if device != "cpu" else "auto", "float32")}
    asked["bfloat16"] = ("torch", "bfloat16")
    if device != "cpu":
        asked["float16"] = ("torch", "float16")
    found: dict[str, Backend] = {
        name: make_backend(weights, choose(backend=backend, device=device, precision=precision))
        for name, (backend, precision) in asked.items()
    }
    if choosing.is_installed("nncf") and choosing.is_installed("openvino"):
        found["int8"] = cast(Backend, QuantisedBackend(weights, calibration))
    return found


def finder(backend: Backend, weights: LoadedWeights, kept: dict[bytes, Detections]) -> Finder:
    """A detector of the evaluation, which keeps what it found in ``kept``."""
    detector = Detector(
        backend,
        channels=weights.config.in_channels,
        descriptor_dim=weights.config.descriptor_dim,
        config=DetectorConfig(
            score_threshold=weights.score_threshold, score_radius=weights.score_radius
        ),
    )

    def find(image: NDArray[Any]) -> Detections:
        features = detector.extract(np.ascontiguousarray(image))
        found = Detections(
            points=features.keypoints.astype(np.float64),
            scores=features.scores.astype(np.float64),
            descriptors=features.descriptors,
            binary=False,
        )
        kept[image.tobytes()] = found
        return found

    return find


def agreement(reference: Detections, other: Detections) -> tuple[float, float]:
    """Share of the keypoints that both have within 1 px, and these ones' mean cosine."""
    if not len(reference) or not len(other):
        return float(len(reference) == len(other)), math.nan
    distance = np.linalg.norm(reference.points[:, None] - other.points, axis=2)
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    rows = np.arange(len(reference))
    same = (back[there] == rows) & (distance[rows, there] <= 1)
    cosine = (reference.descriptors[same] * other.descriptors[there[same]]).sum(axis=1)
    return float(same.sum() / max(len(reference), len(other))), finite_mean(cosine)


def precision(
    *,
    images: Path,
    calibration: Path,
    weights: str | None = None,
    device: str = "cpu",
    pairs_per_image: int = 2,
    calibrated_on: int = 100,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Compare precisions with float32 on the same warped pairs.

    Args:
        images: Folder of photographs that were not trained on.
        calibration: Folder of photographs, for the ranges of int8; other ones.
        weights: Ours without a name or path.
        device: "cpu" or a CUDA device.
        pairs_per_image: As of the protocol "warp".
        calibrated_on: Photographs, at most, to calibrate on.
        output: Folder for precision_DEVICE.json.
        page: Put the table into docs/performance.md.
    """
    loaded = load_weights(weights)
    calibrating = photographs(calibration, _CALIBRATION_SIZE, calibrated_on)
    source = WarpedPhotographs(root=images, config=WarpConfig(pairs_per_image=pairs_per_image))
    measured: dict[str, dict[str, float]] = {}
    reference: dict[bytes, Detections] = {}
    for name, backend in backends(loaded, calibrating, device).items():
        kept: dict[bytes, Detections] = {}
        results = list(evaluate_pairs(source, finder(backend, loaded, kept), PROTOCOLS["warp"]))
        reference = reference or kept
        agreeing = np.array([agreement(reference[key], found) for key, found in kept.items()])
        errors = np.array([result.corner_error for result in results])
        measured[name] = {
            "within 1 px": float(agreeing[:, 0].mean()),
            "cosine": finite_mean(agreeing[:, 1]),
            "repeatability": finite_mean(np.array([result.repeatability for result in results])),
            **{f"e <= {limit} px": accuracy(errors, limit) for limit in (1, 3, 5)},
            "pairs": float(len(results)),
        }
        print(name, backend.describe(), measured[name], flush=True)
    text = precision_markdown(measured)
    print(text)
    name = f"precision_{device.partition(':')[0]}"
    if output is not None:
        report.write_json(output / f"{name}.json", measured)
    if page:
        report.write_json(PAGE.parent / "performance" / f"{name}.json", measured)
        report.replace_block(PAGE, name, text)


def precision_markdown(measured: dict[str, dict[str, float]]) -> str:
    """One row for each precision."""
    first = measured[REFERENCE]
    rows = []
    for name, values in measured.items():
        worst = max(first[key] - values[key] for key in MEASURES)
        shown = [f"{values[key]:.3f}" for key in MEASURES]
        verdict = "" if name == REFERENCE else "yes" if worst <= TOLERANCE else "no"
        rows.append(
            [name, f"{values['within 1 px']:.4f}", f"{values['cosine']:.5f}", *shown, verdict]
        )
    header = ["precision", "same keypoints", "cosine", *MEASURES, f"within {TOLERANCE} of float32"]
    pairs = f"{first['pairs']:.0f} pairs of the protocol `warp`."
    return f"{pairs}\n\n{report.table(header, rows)}"
