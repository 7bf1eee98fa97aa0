"""What lower precisions cost in accuracy: the same pairs through the same network in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks import publish
from benchmarks.measure import machine, photographs
from benchmarks.paired import (
    DISTANCES,
    FEWEST_PAIRS,
    MARGINS,
    RATES,
    REFERENCE,
    Comparison,
    compare,
)
from benchmarks.trial_backends import QuantisedBackend, RoundedBackend
from cv_superpoint.backends import Backend, choose, choosing, make_backend
from cv_superpoint.backends.processor import CPU_BFLOAT16, instructions
from cv_superpoint.evaluation.datasets import HPatches
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.weights import LoadedWeights, available_weights, load_weights

_CALIBRATION_SIZE = (240, 320)


def backends(
    weights: LoadedWeights,
    device: str,
    *,
    rounded: bool = False,
    calibration: Sequence[NDArray[np.uint8]] = (),
) -> dict[str, Backend]:
    """A backend for each precision that can be had on the device, float32 first.

    Args:
        weights: The network.
        device: "cpu" or a CUDA device.
        rounded: Whether 16 bits are rounded to where the CPU computes in them, too.
        calibration: Photographs for int8; without any it is left out.
    """
    native = {REFERENCE: "auto"}
    if device != "cpu":
        native |= {"bfloat16": "torch", "float16": "torch"}
    elif not rounded and CPU_BFLOAT16 in instructions() and choosing.is_installed("openvino"):
        native["bfloat16"] = "openvino"
    found = {
        name: make_backend(weights, choose(backend=backend, device=device, precision=name))
        for name, backend in native.items()
    }
    if device == "cpu":
        for name in ("bfloat16", "float16"):
            if name not in found and choosing.is_installed("torch"):
                found[name] = RoundedBackend(weights, name)
    if calibration and choosing.is_installed("nncf") and choosing.is_installed("openvino"):
        found["int8"] = cast(Backend, QuantisedBackend(weights, calibration))
    return found


def precision(
    *,
    images: Path,
    real: Path | None = None,
    calibration: Path | None = None,
    weights: tuple[str, ...] = (),
    device: str = "cpu",
    precisions: tuple[str, ...] = (),
    rounded: bool = False,
    pairs_per_image: int = 16,
    seed: int = 7,
    calibrated_on: int = 100,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Compare precisions with float32 on the same pairs.

    Args:
        images: Folder of photographs that were not trained on, for pairs of the protocol "warp".
        real: Folder of real pairs in HPatches layout, for the protocol "plain"; too few to
            decide, reported only.
        calibration: Folder of other photographs, for the ranges of int8; none without it.
        weights: Bundled names or paths; all bundled sets if left out.
        device: "cpu" or a CUDA device.
        precisions: Beside float32; all that can be had if left out.
        rounded: Round to 16 bits after every layer where the CPU computes in them, too.
        pairs_per_image: As of the protocol "warp".
        seed: As of the protocol "warp".
        calibrated_on: Photographs, at most, to calibrate on.
        output: Folder for precision_DEVICE.json.
        page: Put the tables into docs/performance.md.
    """
    calibrating = photographs(calibration, _CALIBRATION_SIZE, calibrated_on) if calibration else []
    config = WarpConfig(pairs_per_image=pairs_per_image, seed=seed)
    warped = WarpedPhotographs(root=images, config=config)
    facts = machine(device, 0)
    records: dict[str, Any] = {
        "machine": {key: facts[key] for key in ("processor", "packages")},
        "warp": {"pairs_per_image": pairs_per_image, "seed": seed},
    }
    texts = []
    for name in weights or available_weights():
        loaded = load_weights(name)
        candidates = {
            name: backend
            for name, backend in backends(
                loaded, device, rounded=rounded, calibration=calibrating
            ).items()
            if name in (REFERENCE, *precisions) or not precisions
        }
        found = {"warp": compare(warped, PROTOCOLS["warp"], loaded, candidates)}
        if real is not None:
            pairs = HPatches(root=real)
            found["plain"] = compare(pairs, PROTOCOLS["plain"], loaded, candidates)
        records[loaded.name] = {"sha256": loaded.sha256} | {
            protocol: {name: one.record() for name, one in comparisons.items()}
            for protocol, comparisons in found.items()
        }
        texts += [
            f"**{loaded.name}**, {comparisons[REFERENCE].pairs} pairs of the protocol "
            f"`{protocol}`:\n\n{precision_markdown(comparisons)}"
            for protocol, comparisons in found.items()
        ]
        print("\n\n".join(texts[-len(found) :]), flush=True)
    name = f"precision_{device.partition(':')[0]}"
    if output is not None:
        publish.write_json(output / f"{name}.json", records)
    if page:
        publish.write_json(publish.PAGE.parent / "performance" / f"{name}.json", records)
        publish.replace_block(publish.PAGE, name, "\n\n".join(texts))


def precision_markdown(comparisons: Mapping[str, Comparison]) -> str:
    """One column for each precision, float32 first, one row for each measure."""
    first = comparisons[REFERENCE]
    others = {name: one for name, one in comparisons.items() if name != REFERENCE}
    rows = [["computed by", first.backend, *(one.backend for one in others.values())]]
    rows += [
        [
            f"same keypoints within {distance:g} px",
            "",
            *(f"{one.shared[distance]:.4f}" for one in others.values()),
        ]
        for distance in DISTANCES
    ]
    rows.append(
        [
            "cosine of their descriptors: mean, 1 % lowest",
            "",
            *(f"{one.cosine:.5f}, {one.low_cosine:.4f}" for one in others.values()),
        ]
    )
    for key, margin in MARGINS.items():
        cells = [f"{first.values[key]:.{4 if key in RATES else 3}f}"]
        cells += [_cell(one, key) for one in others.values()]
        rows.append([f"{key.replace('_', ' ')} (above -{margin:g})", *cells])
    failed = "not shown" if first.pairs >= FEWEST_PAIRS else "too few pairs to decide"
    verdicts = ["yes" if one.keeps else failed for one in others.values()]
    rows.append(["keeps the accuracy", "", *verdicts])
    return publish.table(["", *comparisons], rows)


def _cell(one: Comparison, key: str) -> str:
    """Value, paired difference with its interval, and gained and lost pairs of a homography."""
    digits = 4 if key in RATES else 3
    difference = one.differences[key]
    text = (
        f"{one.values[key]:.{digits}f}: {difference.value:+.{digits}f} "
        f"({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
    )
    if key in one.changes:
        gained, lost, probability = one.changes[key]
        text += f"; +{gained} -{lost} pairs, p {probability:.2f}"
    return text
