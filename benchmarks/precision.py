"""What lower precisions cost in accuracy: the same pairs through the same network in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import publish
from benchmarks.measure import machine
from benchmarks.trial_backends import AlternatingBackend, RoundedBackend
from cv_superpoint.backends import Backend, choose, choosing, make_backend
from cv_superpoint.backends.processor import CPU_BFLOAT16, CPU_INT8, instructions
from cv_superpoint.evaluation.datasets import HPatches
from cv_superpoint.evaluation.paired import REFERENCE, compare, comparison_table
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.weights import LoadedWeights, available_weights, load_weights


def backends(
    weights: LoadedWeights,
    device: str,
    *,
    rounded: bool = False,
) -> dict[str, Backend]:
    """A backend for each precision that exists on the device, float32 first.

    Args:
        weights: The network.
        device: "cpu" or a CUDA device.
        rounded: Whether 16 bits are rounded to where the CPU computes in them, too.
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
    if device == "cpu" and weights.ranges is not None and CPU_INT8 in instructions():
        for backend in filter(choosing.is_installed, ("openvino", "onnxruntime")):
            choice = choose(backend=backend, device=device, precision="int8")
            name = f"int8 ({backend})" if "int8" in found else "int8"
            found[name] = make_backend(weights, choice)
    return found


def precision(
    *,
    images: Path,
    real: Path | None = None,
    weights: tuple[str, ...] = (),
    device: str = "cpu",
    precisions: tuple[str, ...] = (),
    rounded: bool = False,
    across: bool = False,
    pairs_per_image: int = 16,
    seed: int = 7,
    output: Path | None = None,
    page: bool = False,
) -> None:
    """Compare precisions with float32 on the same pairs.

    Args:
        images: Folder of photographs that were not trained on, for pairs of the protocol "warp".
        real: Folder of real pairs in HPatches layout, for the protocol "plain"; too few to
            decide, reported only.
        weights: Bundled names or paths; all bundled sets if left out.
        device: "cpu" or a CUDA device.
        precisions: Precisions beside float32; all that exist on the device if left out.
        rounded: Round to 16 bits after every layer where the CPU computes in them, too.
        across: Also features of float32 from the first image of each pair, of the other precision
            from the second.
        pairs_per_image: Same as for the protocol "warp".
        seed: Same as for the protocol "warp".
        output: Folder for precision_DEVICE.json.
        page: Put the tables into docs/results/precision.md, those of other weights stay.
    """
    config = WarpConfig(pairs_per_image=pairs_per_image, seed=seed)
    warped = WarpedPhotographs(root=images, config=config)
    facts = machine(device, 0)
    measured = {
        "machine": {key: facts[key] for key in ("processor", "packages")},
        "pairs": {"pairs_per_image": pairs_per_image, "seed": seed},
    }
    records: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name in weights or available_weights():
        loaded = load_weights(name)
        candidates = {
            name: backend
            for name, backend in backends(loaded, device, rounded=rounded).items()
            if name in (REFERENCE, *precisions) or not precisions
        }
        if across:
            exact = candidates[REFERENCE]
            candidates |= {
                f"{REFERENCE} with {name}": AlternatingBackend(exact, backend)
                for name, backend in candidates.items()
                if name != REFERENCE
            }
        found = {"warp": compare(warped, PROTOCOLS["warp"], loaded, candidates)}
        if real is not None:
            pairs = HPatches(root=real)
            found["plain"] = compare(pairs, PROTOCOLS["plain"], loaded, candidates)
        records[loaded.name] = {**measured, "sha256": loaded.sha256} | {
            protocol: {name: one.record() for name, one in comparisons.items()}
            for protocol, comparisons in found.items()
        }
        texts[loaded.name] = "\n\n".join(
            f"**{loaded.name}**, {comparisons[REFERENCE].pairs} pairs of the protocol "
            f"`{protocol}`:\n\n{comparison_table(comparisons)}"
            for protocol, comparisons in found.items()
        )
        print(texts[loaded.name], flush=True)
    name = f"precision_{device.partition(':')[0]}"
    if output is not None:
        publish.write_json(output / f"{name}.json", records)
    if page:
        _publish(name, records, texts)


def _publish(name: str, records: dict[str, Any], texts: dict[str, str]) -> None:
    """Put what was measured on the page, beside what others were found to be."""
    path = publish.FIGURES / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for weights, text in texts.items():
        publish.replace_block(publish.PRECISION, f"{name} {weights}", text)
    publish.write_json(path, before | records)
