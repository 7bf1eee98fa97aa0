"""The benchmark of busy machines, and the choice of what is faster on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.busy import busy, busy_markdown, busy_processes
from cv_superpoint.backends.processor import CPU_INT8, instructions


def test_busy_processes_end_with_the_measurement() -> None:
    with busy_processes(2) as started:
        assert [process.poll() for process in started] == [None, None]
    assert all(process.returncode is not None for process in started)
    with pytest.raises(KeyError), busy_processes(1) as started:
        raise KeyError
    assert started[0].returncode is not None


def test_every_network_and_backend_is_timed_beside_every_load(tmp_path: Path) -> None:
    busy(
        weights=("superpoint-lite",),
        backends=("ncnn", "onnxruntime"),
        size=(64, 80),
        loads=(0, 1),
        calls=2,
        seconds=0,
        output=tmp_path,
    )
    result = json.loads((tmp_path / "busy.json").read_text())
    found = [one["backend"] for one in result["rows"]]
    in_8_bits = ["onnxruntime int8"] if CPU_INT8 in instructions() else []
    assert found == ["ncnn float32", "onnxruntime float32", *in_8_bits]
    for one in result["rows"]:
        assert set(one["loads"]) == {"0", "1"}
        assert all(0 < load["median"] <= load["p95"] for load in one["loads"].values())
    text = (tmp_path / "busy.md").read_text()
    assert "| beside 1: median |" in text
    assert text.count("superpoint-lite") == len(found)
    with pytest.raises(ValueError, match="begin with 0"):
        busy(loads=(1,))


def test_what_is_above_the_bar_is_bold() -> None:
    def load(median: float, p95: float) -> dict[str, float]:
        return {"median": median, "p95": p95, "calls": 9}

    loads = {"0": load(0.01, 0.011), "1": load(0.025, 0.041), "2": load(0.026, 0.04)}
    result = {
        "machine": {"cores": "2"},
        "size": [480, 640],
        "loads": [0, 1, 2],
        "rows": [{"weights": "net", "backend": "ncnn float32", "loads": loads}],
    }
    row = busy_markdown(result).splitlines()[-1]
    assert row == (
        "| net | ncnn float32 | 10.0 | 11.0 | 25.0 (2.5x) | **41.0 (4.1x)** | "
        "**26.0 (2.6x)** | 40.0 (4.0x) |"
    )
