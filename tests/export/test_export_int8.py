"""Exported graphs in 8 bits: what each runtime makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_export import IMAGE, PHOTOGRAPH, RUNTIMES, SIZE, run_onnxruntime, run_openvino

from cv_superpoint.backends.processor import CPU_INT8, instructions
from cv_superpoint.export import export_onnx
from cv_superpoint.network.arrays import run_in_8_bits, run_layers
from cv_superpoint.weights import load_weights

NEEDS_INT8 = pytest.mark.skipif(
    CPU_INT8 not in instructions(), reason=f"needs a CPU with {CPU_INT8}"
)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(None, tmp_path_factory.mktemp("heads") / "a.onnx", precision="int8")


@NEEDS_INT8
@RUNTIMES
def test_heads_are_what_8_bits_leave(run: object, heads: Path) -> None:
    """Nearer to the same in numpy than that is to float32; values on an edge may fall elsewhere."""
    weights, image = load_weights(), PHOTOGRAPH[..., None]
    meant, exact = run_in_8_bits(weights, image)[0], run_layers(weights, image)[0]
    logits, descriptors = run(heads, IMAGE, ["logits", "descriptors"])
    assert np.abs(logits[0] - meant).mean() < 0.75 * np.abs(exact - meant).mean()
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-4)
    wide = np.concatenate([IMAGE, IMAGE[..., ::-1]])[:, :, :64, :88]  # another size and batch
    assert run(heads, wide, ["logits", "descriptors"])[0].shape == (2, 65, 8, 11)


@NEEDS_INT8
@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
def test_full_finds_the_keypoints_of_float32(run: object, tmp_path: Path) -> None:
    found = []
    for precision in ("float32", "int8"):
        path = export_onnx(
            None, tmp_path / f"{precision}.onnx", "full", size=SIZE, precision=precision
        )
        keypoints, scores = run(path, IMAGE, ["keypoints", "scores"])
        found.append(keypoints[0][scores[0] > 0])
    distance = np.linalg.norm(found[0][:, None] - found[1], axis=2)
    assert len(found[0]) > 20
    assert (distance.min(axis=1) <= 1).mean() >= 0.9


def test_files_have_a_quarter_of_the_size(heads: Path, tmp_path: Path) -> None:
    exact = export_onnx(None, tmp_path / "exact.onnx")
    assert heads.stat().st_size < 0.27 * exact.stat().st_size


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout 'disk' is for float32"):
        export_onnx(None, tmp_path / "disk.onnx", "disk", precision="int8")
    with pytest.raises(ValueError, match="precision must be one of float32, int8"):
        export_onnx(None, tmp_path / "a.onnx", precision="bfloat16")
    assert not list(tmp_path.iterdir())
