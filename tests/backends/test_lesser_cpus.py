"""The network's tests as on CPUs with fewer instructions than this one.

``ONEDNN_MAX_CPU_ISA`` limits oneDNN, of which OpenVINO and torch each have a copy, and
``ATEN_CPU_CAPABILITY`` the rest of torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CHECKS = (
    "tests/backends/test_bfloat16.py",
    "tests/backends/test_int8.py::test_a_backend_computes_what_the_ranges_say[openvino-superpoint]",
    "tests/opencv/test_golden.py::test_what_auto_takes_finds_what_was_recorded[superpoint-coins]",
    "tests/export/test_export.py::test_full[run_openvino]",
    "tests/opencv/test_golden.py::test_release_gives_what_was_recorded[openvino-superpoint-coins]",
    "tests/opencv/test_golden.py::test_release_gives_what_was_recorded[torch-superpoint-coins]",
    "tests/train/learning/test_loop.py::test_auto_trains_in_what_this_cpu_has",
)
LIMITS = {
    # oneDNN's: that of the rest of torch, and what this CPU must have for it.
    "AVX2": ("avx2", "avx2"),
    "AVX512_CORE": ("avx512", "avx512_bw"),
    "AVX512_CORE_VNNI": ("avx512", "avx512_vnni"),
    "AVX512_CORE_BF16": ("avx512", "avx512_bf16"),
}
SCRIPT = """
import sys
import numpy, openvino, pytest, torch
from openvino import opset8
capability, *checks = sys.argv[1:]
assert torch.backends.cpu.get_cpu_capability() == capability.upper()
image = opset8.parameter([1, 16, 32, 32], numpy.float32)
weight = opset8.constant(numpy.ones((16, 16, 3, 3), numpy.float32))
layer = opset8.convolution(image, weight, [1, 1], [1, 1], [1, 1], [1, 1])
options = {"INFERENCE_PRECISION_HINT": "f32"}
compiled = openvino.compile_model(openvino.Model([layer], [image]), "CPU", options)
kinds = [op.get_rt_info()["primitiveType"].astype(str)
         for op in compiled.get_runtime_model().get_ops()]
assert any(capability in kind for kind in kinds), kinds
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *checks]))
"""


@pytest.mark.parametrize("limit", LIMITS)
def test_the_network_s_tests_pass_on_a_lesser_cpu(limit: str) -> None:
    capability, needed = LIMITS[limit]
    if not torch.cpu.get_capabilities().get(needed):
        pytest.skip(f"this CPU has no {needed}")
    names = {"ONEDNN_MAX_CPU_ISA": limit, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, capability, *CHECKS],
        cwd=ROOT,
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
