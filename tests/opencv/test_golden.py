"""The bundled weights give the keypoints and descriptors that were recorded at their release.

After a change of the weights, and only then, record anew:
``PYTHONPATH=tests python tests/opencv/test_golden.py``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from pinned import FLOAT32

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import cache
from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.weights import available_weights, load_weights

GOLDEN = Path(__file__).parent / "golden"
PHOTOGRAPHS = {
    "camera": lambda: skimage.data.camera(),
    "coins": lambda: skimage.data.coins()[:, :380],  # no multiple of 8
}
STRONGEST = 120
EXPECTED = {False: (0.99, 0.5, 0.1, 0.998), True: (0.95, 1.0, 0.2, 0.99)}
"""Not in 8 bits, and in 8 bits: share of keypoints, pixels, change of score, least cosine."""
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))


def strongest(
    name: str, photograph: str, count: int = STRONGEST, **options: Any
) -> dict[str, np.ndarray]:
    # At one level: of two keypoints at one place, found at two levels, neither is the nearest.
    # magicpoint finds fewer than that many corners of a photograph above its own threshold.
    options = {"scales": (1.0,), "scoreThreshold": 0.02, **options}
    detector = SuperPointFeature2D.create(count, weights=name, **options)
    features = detector.detector.extract(PHOTOGRAPHS[photograph]())
    return {
        "keypoints": features.keypoints.astype(np.float32),
        "scores": features.scores.astype(np.float32),
        "descriptors": features.descriptors.astype(np.float16),
    }


def recorded(name: str, photograph: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        assert str(file["sha256"]) == load_weights(name).sha256, "record the new weights' results"
        keys = ("keypoints", "scores", "descriptors")
        return {key: file[f"{photograph}_{key}"] for key in keys}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("name", available_weights())
@pytest.mark.parametrize("backend", ["ncnn", "openvino", "onnxruntime", "torch", CUDA])
def test_release_gives_what_was_recorded(backend: str, name: str, photograph: str) -> None:
    where = {"device": "cuda"} if backend == "cuda" else {"backend": backend}
    found = strongest(name, photograph, **{**FLOAT32, **where}, threads=2)
    golden = recorded(name, photograph)
    assert len(golden["scores"]) == len(found["scores"]) == STRONGEST
    distance = np.linalg.norm(golden["keypoints"][:, None] - found["keypoints"], axis=2)
    nearest = distance.argmin(axis=1)
    same = distance[np.arange(STRONGEST), nearest] < 0.02
    # Two keypoints of almost the same score may change places at the end of the list.
    assert same.sum() >= STRONGEST - 1
    assert np.abs(golden["scores"] - found["scores"][nearest])[same].max() < 1e-3
    assert least_cosine(golden, found, nearest, same) > 0.999


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("name", available_weights())
def test_what_auto_takes_finds_what_was_recorded(name: str, photograph: str) -> None:
    """The strongest are the same in every precision; their order may change."""
    chosen = SuperPointFeature2D.create(weights=name, device="cpu", threads=2).info()
    check_nearly(name, photograph, *EXPECTED["int8" in chosen], precision="auto")


@pytest.mark.skipif(CPU_INT8 not in instructions(), reason=f"needs a CPU with {CPU_INT8}")
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("name", available_weights())
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_8_bits_find_what_was_recorded(backend: str, name: str, photograph: str) -> None:
    check_nearly(name, photograph, *EXPECTED[True], precision="int8", backend=backend)


def check_nearly(
    name: str,
    photograph: str,
    share: float,
    within: float,
    change: float,
    least: float,
    **options: Any,
) -> None:
    """Almost all of the strongest are there, and look alike."""
    golden = recorded(name, photograph)
    found = strongest(name, photograph, 150, device="cpu", threads=2, **options)
    distance = np.linalg.norm(golden["keypoints"][:, None] - found["keypoints"], axis=2)
    nearest = distance.argmin(axis=1)
    near = distance[np.arange(STRONGEST), nearest] <= within
    assert near.mean() >= share
    assert np.abs(golden["scores"] - found["scores"][nearest])[near].max() < change
    assert least_cosine(golden, found, nearest, near) > least


def least_cosine(
    golden: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    nearest: np.ndarray,
    kept: np.ndarray,
) -> float:
    """Least cosine of the descriptors of the same keypoints; 1 of weights without any."""
    rows = golden["descriptors"], found["descriptors"][nearest]
    assert rows[0].shape == rows[1].shape
    if not rows[0].shape[1]:
        return 1.0
    return float(np.einsum("nd,nd->n", *rows, dtype=np.float64)[kept].min())


def record() -> None:
    """Write the results of the bundled weights, computed by torch on the CPU."""
    GOLDEN.mkdir(exist_ok=True)
    for name in available_weights():
        arrays = {"sha256": np.array(load_weights(name).sha256)}
        for photograph in PHOTOGRAPHS:
            found = strongest(name, photograph, backend="torch", **FLOAT32)
            arrays |= {f"{photograph}_{key}": value for key, value in found.items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(record())
