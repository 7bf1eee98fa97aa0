"""What is measured on a GPU is rehearsed on the CPU, and what is counted without one is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import TESTS, gpu, gpu_markdown
from benchmarks.gpu_ways import seconds_of_ways, ways
from benchmarks.kernels import GPUS, count, estimate
from benchmarks.measure import GFLOP_480_640
from cv_superpoint.weights import load_weights


def test_the_rehearsal_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "gpu.json"
    parts = ("machine", "ways", "images", "training")
    gpu(output=output, device="cpu", size=(48, 64), rounds=1, minutes=0.01, only=parts)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert [found[part].get("failed") for part in parts] == [None] * 4
    assert found["training"]["steps"] >= 1
    said = capsys.readouterr().out
    assert said.count(": done in") == 4
    assert "one graph (what is taken)" in said
    assert all((Path(__file__).parents[2] / name).exists() for name in TESTS)


def test_a_part_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only must be of machine, tests, .*got speeed"):
        gpu(output=tmp_path / "gpu.json", only=("speeed",))


def test_a_part_that_fails_is_told() -> None:
    assert "no such thing" in gpu_markdown(
        {"speed": {"failed": "Trace\nValueError: no such thing"}}
    )


def test_ways_compute_the_same_or_say_why_not() -> None:
    made = ways(load_weights("superpoint-lite"), "cpu", torch.float32, (48, 64), 2)
    found = seconds_of_ways(made, "cpu", 2, 1)
    failed = {name for name, one in found.items() if "failed" in one}
    assert failed == {"and bias and ReLU in the convolution"}  # which is cuDNN's
    assert len({one["keypoints"] for name, one in found.items() if name not in failed}) == 1


def test_what_a_call_asks_for_is_counted() -> None:
    parts, up, down = count(None, (480, 640), 2, 1024)
    assert parts["network"].flops / 2e9 == pytest.approx(GFLOP_480_640, rel=0.01)
    assert up == 2 * (480 * 640 + 6 * 4)
    assert down == 2 * 4 * (1 + 1024 * (3 + 256))
    # The first layer alone writes 64 maps of the image's size, and reads them for bias and ReLU.
    assert parts["network"].traffic > 2 * 480 * 640 * 64 * 2 * 5
    for one in GPUS:
        times = estimate(one, parts, up, down)
        assert list(times) == ["bytes up", "network", "decoding", "bytes down"]
        assert min(times.values()) > 0
