"""Which backend is taken, and what is said where one cannot be had."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import choose, choosing
from cv_superpoint.backends.torch import choose_device

pytestmark = pytest.mark.usefixtures("own_cache")


def test_auto_takes_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose(backend="auto", device="cpu", precision="auto")
    assert (chosen.backend, chosen.device, chosen.precision) == ("ncnn", "cpu", "float32")
    assert "least processor time" in chosen.reason
    gone = {"ncnn"}
    there = choosing.is_installed
    monkeypatch.setattr(choosing, "is_installed", lambda name: name not in gone and there(name))
    assert choose(backend="auto", device="cpu", precision="auto").backend == "openvino"
    gone |= {"openvino", "onnxruntime"}
    assert choose(backend="auto", device="cpu", precision="auto").backend == "torch"
    gone |= {"torch"}
    with pytest.raises(ImportError, match="none of the packages"):
        choose(backend="auto", device="cpu", precision="auto")


def test_auto_takes_bfloat16_only_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv_superpoint.backends import openvino

    monkeypatch.setattr(openvino, "has_bfloat16", lambda: True)
    ask = {"backend": "auto", "device": "cpu", "precision": "auto"}
    assert choose(**ask).backend == "ncnn"
    chosen = choose(**ask, measured=("float32", "bfloat16"))
    assert (chosen.backend, chosen.precision) == ("openvino", "bfloat16")
    assert "multiplies in bfloat16" in chosen.reason
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    assert choose(**ask, measured=("float32", "bfloat16")).backend == "ncnn"


def test_a_gpu_is_taken_or_the_missing_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = {"backend": "auto", "device": "auto", "precision": "auto"}
    monkeypatch.setattr(choosing, "accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = choose(**ask, measured=("float32", "float16"))
    assert (chosen.backend, chosen.device, chosen.precision) == ("torch", "cuda", "float16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "not built for it" in choose(**ask).reason
    monkeypatch.setattr(choosing, "is_installed", lambda name: name == "ncnn")
    assert 'pip install "cv-superpoint[torch]"' in choose(**ask).reason


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"backend": "tensorflow"}, "backend must be 'auto' or one of ncnn, openvino"),
        ({"precision": "int4"}, "precision must be 'auto' or one of float32"),
        ({"backend": "ncnn", "device": "cuda"}, "runs on 'cpu' only"),
        ({"backend": "torch", "precision": "float16"}, "use 'float32' or 'bfloat16'"),
        ({"backend": "onnxruntime", "device": "fpga"}, "device must be 'auto', 'cpu'"),
        ({"backend": "torch", "device": "toaster"}, "device must be 'auto' or a torch device"),
        ({"backend": "openvino", "precision": "bfloat16"}, "neither AMX nor AVX512-BF16"),
        ({"threads": 0}, "threads must be positive"),
    ],
)
def test_what_cannot_be_had_is_told(
    ask: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cv_superpoint.backends import openvino

    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    with pytest.raises(ValueError, match=message):
        SuperPointFeature2D.create(**{"device": "cpu", **ask})


def test_describe_says_what_runs_and_why() -> None:
    text = SuperPointFeature2D.create(device="cpu", threads=1).describe()
    assert "ncnn" in text
    assert "1 threads" in text
    assert "least processor time" in text
    assert "openvino" in SuperPointFeature2D.create(backend="openvino").describe()
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
