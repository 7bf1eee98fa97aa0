"""Which backend is taken, and the errors where one is not available."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import BACKENDS, cache, processor
from cv_superpoint.backends.choosing import CUDA_BFLOAT16, ORDER, Machine, decide
from cv_superpoint.backends.processor import CPU_BFLOAT16, CPU_INT8
from cv_superpoint.backends.torch import choose_device
from cv_superpoint.weights import load_weights

pytestmark = pytest.mark.usefixtures("own_cache")

ALL = frozenset(BACKENDS)
PLAIN = Machine(installed=ALL)
WITH_BFLOAT16 = Machine(installed=ALL, has=frozenset({CPU_BFLOAT16}))
AUTO = {"backend": "auto", "device": "cpu", "precision": "auto"}
BOTH = ("float32", "bfloat16")
EVERY = ("float32", "bfloat16", "int8")
FOUND_BFLOAT16 = pytest.mark.skipif(
    CPU_BFLOAT16 not in processor.instructions(), reason=f"needs a CPU with {CPU_BFLOAT16}"
)


def subsets(values: Any) -> list[frozenset[str]]:
    values = sorted(values)
    sizes = range(len(values) + 1)
    return [frozenset(some) for some in chain(*(combinations(values, size) for size in sizes))]


@pytest.mark.parametrize(
    ("gone", "backend"),
    [
        ((), "ncnn"),
        (("ncnn",), "openvino"),
        (("ncnn", "openvino"), "onnxruntime"),
        (("ncnn", "openvino", "onnxruntime"), "torch"),
    ],
)
def test_auto_takes_the_first_in_float32_that_is_installed(
    gone: tuple[str, ...], backend: str
) -> None:
    for measured in (("float32",), BOTH):
        chosen = decide(**AUTO, measured=measured, machine=Machine(installed=ALL - set(gone)))
        assert (chosen.backend, chosen.device, chosen.precision) == (backend, "cpu", "float32")
        assert ("least processor time" in chosen.reason) == (backend == "ncnn")


def test_auto_takes_bfloat16_where_it_is_measured_and_multiplied() -> None:
    chosen = decide(**AUTO, measured=BOTH, machine=WITH_BFLOAT16)
    assert (chosen.backend, chosen.precision) == ("openvino", "bfloat16")
    assert "openvino because this CPU multiplies in bfloat16" in chosen.reason
    assert "bfloat16 because these weights keep their accuracy in it" in chosen.reason
    for measured, machine in [(("float32",), WITH_BFLOAT16), (BOTH, PLAIN)]:
        chosen = decide(**AUTO, measured=measured, machine=machine)
        assert (chosen.backend, chosen.precision) == ("ncnn", "float32")
        assert "pip install" not in chosen.reason
    exact = decide(**{**AUTO, "precision": "float32"}, measured=BOTH, machine=WITH_BFLOAT16)
    assert (exact.backend, exact.precision) == ("ncnn", "float32")


def test_auto_takes_8_bits_where_they_are_measured_and_multiplied() -> None:
    vnni = replace(PLAIN, has=frozenset({CPU_INT8}))
    both = replace(PLAIN, has=frozenset({CPU_INT8, CPU_BFLOAT16}))
    for machine in (vnni, both):
        chosen = decide(**AUTO, measured=EVERY, machine=machine)
        assert (chosen.backend, chosen.precision) == ("openvino", "int8")
        assert "openvino because this CPU multiplies bytes" in chosen.reason
        assert "int8 because these weights keep their accuracy in it" in chosen.reason
        assert decide(**AUTO, measured=BOTH, machine=machine).precision in BOTH
    without = replace(both, installed=ALL - {"openvino"})
    chosen = decide(**AUTO, measured=EVERY, machine=without)
    assert (chosen.backend, chosen.precision) == ("onnxruntime", "int8")
    assert 'pip install "cv-superpoint[cpu]"' in chosen.reason
    plain = replace(both, installed=frozenset({"ncnn"}))
    told = decide(**AUTO, measured=EVERY, machine=plain).reason
    assert told.count('pip install "cv-superpoint[cpu]"') == 1  # two of its precisions are faster
    assert "openvino multiplies bytes" in told
    # On a CPU without such instructions float32 comes first, whatever is installed.
    for installed in subsets(BACKENDS)[1:]:
        machine = Machine(installed=installed)
        assert decide(**AUTO, measured=EVERY, machine=machine).precision == "float32"
        for name in ("openvino", "onnxruntime"):
            named = {**AUTO, "backend": name}
            assert decide(**named, measured=EVERY, machine=machine).precision == "float32"
    asked = {**AUTO, "precision": "int8"}
    assert decide(**asked, measured=BOTH, machine=PLAIN).backend == "openvino"
    with pytest.raises(ImportError, match=r'pip install "cv-superpoint\[cpu\]"'):
        decide(**asked, measured=BOTH, machine=Machine(installed=frozenset({"ncnn", "torch"})))


def test_a_named_backend_takes_its_best_precision() -> None:
    for name, best in [("openvino", "bfloat16"), ("torch", "bfloat16"), ("ncnn", "float32")]:
        ask = {**AUTO, "backend": name}
        assert decide(**ask, measured=BOTH, machine=WITH_BFLOAT16).precision == best
        assert decide(**ask, measured=BOTH, machine=PLAIN).precision == "float32"
        # The error comes where the backend is made.
        assert decide(**ask, measured=BOTH, machine=Machine(installed=frozenset())).backend == name


def test_what_openvino_would_bring_is_told_where_it_is_missing() -> None:
    without = replace(WITH_BFLOAT16, installed=ALL - {"openvino"})
    chosen = decide(**AUTO, measured=BOTH, machine=without)
    assert (chosen.backend, chosen.precision) == ("ncnn", "float32")
    assert 'pip install "cv-superpoint[cpu]"' in chosen.reason
    assert "\n" not in chosen.reason
    silent = [
        decide(**AUTO, measured=("float32",), machine=without),
        decide(**AUTO, measured=BOTH, machine=replace(without, has=frozenset())),
        decide(**{**AUTO, "precision": "float32"}, measured=BOTH, machine=without),
        decide(**{**AUTO, "backend": "ncnn"}, measured=BOTH, machine=without),
    ]
    assert all("pip install" not in chosen.reason for chosen in silent)


def test_a_gpu_is_taken_or_the_missing_package_named() -> None:
    ask = {**AUTO, "device": "auto"}
    gpu = replace(WITH_BFLOAT16, accelerator="cuda", usable=True)
    half = decide(**ask, measured=("float32", "float16"), machine=gpu)
    assert (half.backend, half.device, half.precision) == ("torch", "cuda", "float16")
    # Before Ampere bfloat16 is emulated.
    assert decide(**ask, measured=BOTH, machine=gpu).precision == "float32"
    ampere = replace(gpu, has=frozenset({CUDA_BFLOAT16}))
    assert decide(**ask, measured=BOTH, machine=ampere).precision == "bfloat16"
    second = decide(**{**ask, "device": "cuda:1"}, measured=BOTH, machine=ampere)
    assert (second.device, second.precision) == ("cuda:1", "bfloat16")
    assert "device is 'cuda:1'" in second.reason
    unusable = replace(gpu, usable=False)
    chosen = decide(**ask, measured=BOTH, machine=unusable)
    assert (chosen.device, chosen.precision) == ("cpu", "bfloat16")
    assert "not built for it" in chosen.reason
    missing = replace(unusable, installed=frozenset({"ncnn"}))
    assert (
        'pip install "cv-superpoint[torch]"' in decide(**ask, measured=(), machine=missing).reason
    )


@given(
    installed=st.sampled_from(subsets(BACKENDS)),
    has=st.sampled_from(subsets({CPU_BFLOAT16, CPU_INT8, CUDA_BFLOAT16})),
    accelerator=st.sampled_from([None, "cuda", "mps"]),
    usable=st.booleans(),
    measured=st.sampled_from(subsets({"float32", "bfloat16", "float16", "int8"})),
    device=st.sampled_from(["auto", "cpu"]),
)
def test_auto_is_the_first_of_the_order_that_everything_allows(
    installed: frozenset[str],
    has: frozenset[str],
    accelerator: str | None,
    usable: bool,
    measured: frozenset[str],
    device: str,
) -> None:
    usable = usable and "torch" in installed
    machine = Machine(installed=installed, has=has, accelerator=accelerator, usable=usable)
    ask = {**AUTO, "device": device}
    if not installed:
        with pytest.raises(ImportError, match="none of the packages"):
            decide(**ask, measured=measured, machine=machine)
        return
    chosen = decide(**ask, measured=measured, machine=machine)
    kind = accelerator if accelerator and usable and device == "auto" else "cpu"
    allowed = [
        one
        for one in ORDER
        if one.device == kind
        and one.backend in installed
        and one.precision in {"float32"} | measured
        and one.needs in {""} | has
    ]
    best = allowed[0]
    assert (chosen.backend, chosen.device, chosen.precision) == (
        best.backend,
        kind,
        best.precision,
    )
    assert chosen.reason.startswith(f"{chosen.backend} because")


@pytest.mark.parametrize(
    ("installed", "has", "extra"),
    [({"ncnn"}, {CPU_BFLOAT16}, "cpu"), ({"ncnn", "openvino"}, set(), "torch")],
)
def test_a_precision_that_needs_a_package_names_its_extra(
    installed: set[str], has: set[str], extra: str
) -> None:
    machine = Machine(installed=frozenset(installed), has=frozenset(has))
    with pytest.raises(ImportError, match=rf'pip install "cv-superpoint\[{extra}\]"'):
        decide(**{**AUTO, "precision": "bfloat16"}, measured=("float32",), machine=machine)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"backend": "tensorflow"}, "backend must be 'auto' or one of ncnn, openvino"),
        ({"precision": "int4"}, "precision must be 'auto' or one of float32"),
        ({"backend": "ncnn", "device": "cuda"}, "runs on 'cpu' only"),
        ({"backend": "ncnn", "precision": "bfloat16"}, "use 'float32'"),
        ({"backend": "torch", "precision": "float16"}, "use 'float32' or 'bfloat16'"),
        (
            {"backend": "onnxruntime", "precision": "bfloat16", "device": "auto"},
            "use 'int8' or 'float32'",
        ),
        ({"precision": "float16"}, "use 'int8' or 'float32' or 'bfloat16'"),
        ({"backend": "ncnn", "precision": "int8"}, "use 'float32'"),
        ({"backend": "torch", "precision": "int8"}, "use 'float32' or 'bfloat16'"),
        ({"backend": "onnxruntime", "device": "fpga"}, "device must be 'auto', 'cpu'"),
        ({"backend": "torch", "device": "toaster"}, "device must be 'auto' or a torch device"),
        ({"device": "cuda:x"}, "device must be 'auto' or a torch device"),
        ({"threads": 0}, "threads must be a whole number"),
    ],
)
def test_what_cannot_be_had_is_told(ask: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuperPointFeature2D.create(**{"device": "cpu", **ask})


def test_devices_that_are_hidden_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ValueError, match=r"'cuda:63' is not there.*CUDA_VISIBLE_DEVICES='7'"):
        choose_device("cuda:63")


def test_describe_says_what_runs_and_why() -> None:
    text = SuperPointFeature2D.create(device="cpu", precision="float32", threads=1).info()
    assert "ncnn" in text
    assert "1 threads" in text
    assert "least processor time" in text
    assert "openvino" in SuperPointFeature2D.create(backend="openvino").info()
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, {CPU_BFLOAT16, CPU_INT8}),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, {CPU_BFLOAT16, CPU_INT8}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, {CPU_BFLOAT16, CPU_INT8}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, {CPU_BFLOAT16, CPU_INT8}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, set()),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, {CPU_INT8}),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_vnni"}, {CPU_INT8}),
        ({"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, set()),
        ({"ONEDNN_MAX_CPU_ISA": "ALL", "DNNL_MAX_CPU_ISA": "AVX2"}, {CPU_BFLOAT16, CPU_INT8}),
    ],
)
def test_instructions_that_onednn_is_denied_do_not_count(
    environment: dict[str, str], kept: set[str]
) -> None:
    assert processor.allowed(frozenset({CPU_BFLOAT16, CPU_INT8}), environment) == kept


def test_flags_are_read_as_linux_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 avx2\n\nflags\t\t: amx_bf16\n")
    assert processor.linux_flags(path) == {"fpu", "avx512_bf16", "avx2"}
    assert processor.linux_flags(tmp_path / "missing") == set()


def test_the_instructions_are_those_that_openvino_finds() -> None:
    pytest.importorskip("openvino")
    from cv_superpoint.backends.openvino_core import shared_core

    offered = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = processor.found()
    assert (CPU_BFLOAT16 in found) == ({"BF16", "WINOGRAD"} <= set(offered))
    # numpy does not tell AVX-VNNI, nor AMX without AVX512-VNNI.
    assert CPU_INT8 in found or "AVX512VNNI" not in processor.numpy_features()


@FOUND_BFLOAT16
def test_auto_runs_in_bfloat16_or_8_bits_here(own_cache: Path) -> None:
    detector = SuperPointFeature2D.create(device="cpu")
    assert "openvino" in detector.info()
    has, listed = processor.instructions(), load_weights().precisions
    best = "int8" if CPU_INT8 in has and "int8" in listed else "bfloat16"
    assert f"on cpu, {best}" in detector.info()
    assert len(detector.extract(skimage.data.coins()[:120, :160])) > 10


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_auto_runs_on_a_lesser_processor(limit: str, tmp_path: Path) -> None:
    """This CPU, whatever it is, as its packages see it under oneDNN's limit."""
    np.save(tmp_path / "image.npy", skimage.data.coins()[:120, :160])
    script = f"""
import numpy as np
from cv_superpoint import SuperPointFeature2D
image = np.load({str(tmp_path / "image.npy")!r})
detector = SuperPointFeature2D.create(device="cpu")
print(detector.info())
assert len(detector.extract(image)) > 10
inherited = SuperPointFeature2D.create(backend="openvino")
assert "float32" in inherited.info() and len(inherited.extract(image)) > 10
for backend, precision in [("openvino", "bfloat16"), ("openvino", "int8"), ("onnxruntime", "int8")]:
    try:
        SuperPointFeature2D.create(backend=backend, precision=precision)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit, cache.ENVIRONMENT: ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ncnn" in done.stdout.splitlines()[0]
    assert done.stdout.count("ONEDNN_MAX_CPU_ISA forbids them") == 3
