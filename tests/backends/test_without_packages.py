"""The package where torch, or the package of an extra, is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import cache
from cv_superpoint.backends.processor import CPU_BFLOAT16, CPU_INT8, instructions

PHOTOGRAPH = skimage.data.camera()
WITHOUT = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run_without(blocked: set[str], script: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(blocked=blocked) + script
    environment = {**os.environ, cache.ENVIRONMENT: ""}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("name", ["auto", "ncnn", "openvino", "onnxruntime"])
def test_cpu_backends_need_no_torch(name: str, tmp_path: Path) -> None:
    image = PHOTOGRAPH[:104, :128]
    expected = SuperPointFeature2D.create(50, 0.01, backend="torch", **PINNED).extract(image)
    np.save(tmp_path / "image.npy", image)
    script = f"""
import numpy as np, cv_superpoint
image = np.load({str(tmp_path / "image.npy")!r})
detector = cv_superpoint.SuperPointFeature2D.create(50, 0.01, backend={name!r}, **{PINNED!r})
features = detector.extract(image)
np.savez({str(tmp_path / "found.npz")!r}, k=features.keypoints, d=features.descriptors)
assert "torch" not in sys.modules
"""
    done = run_without({"torch"}, script)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["k"], expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found["d"], expected.descriptors, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "name", "remedy"),
    [
        ("torch", "torch", 'pip install "cv-superpoint[torch]"'),
        ("openvino", "openvino", 'pip install "cv-superpoint[cpu]"'),
        ("onnxruntime", "onnxruntime", 'pip install "cv-superpoint[onnx]"'),
        ("onnx", "onnxruntime", 'pip install "cv-superpoint[onnx]"'),
        ("ncnn", "ncnn", "pip install ncnn"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package: str, name: str, remedy: str) -> None:
    script = f"""
import cv_superpoint
try:
    cv_superpoint.SuperPointFeature2D.create(backend={name!r})
except ImportError as error:
    print(error)
"""
    done = run_without({package}, script)
    assert remedy in done.stdout, done.stderr
    assert repr(package) in done.stdout


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "x.pth")
    script = f"""
import cv_superpoint
for call in (
    lambda: cv_superpoint.SuperPoint,
    lambda: cv_superpoint.SuperPointFeature2D.create(weights={str(tmp_path / "x.pth")!r}),
    lambda: cv_superpoint.SuperPointFeature2D.create(device="cuda"),
):
    try:
        call()
    except (ImportError, ValueError) as error:
        print(error)
"""
    done = run_without({"torch"}, script)
    assert done.stdout.count('pip install "cv-superpoint[torch]"') == 3, done.stdout + done.stderr


def test_a_missing_openvino_is_told_where_it_would_be_faster() -> None:
    """The line of ``info()`` and ``cv-superpoint doctor`` tells it."""
    script = """
import cv_superpoint
print(cv_superpoint.SuperPointFeature2D.create(device="cpu").info())
"""
    done = run_without({"openvino"}, script)
    assert done.returncode == 0, done.stderr
    # onnxruntime computes in 8 bits, too.
    assert ("onnxruntime" if CPU_INT8 in instructions() else "ncnn") in done.stdout
    faster = {CPU_BFLOAT16, CPU_INT8} & instructions()
    assert done.stdout.count('pip install "cv-superpoint[cpu]"') == bool(faster)
