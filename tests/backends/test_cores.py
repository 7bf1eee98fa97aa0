"""The number of threads: what cores, control groups and the environment allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import on_linux, run_script

from cv_superpoint.backends.cores import default_threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "0::/user/app\n"
V1 = "9:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n"
FOUR = {f"sys/devices/system/cpu/cpu{k}/topology/thread_siblings_list": f"{k}\n" for k in range(64)}
PAIRS = {name: f"{index // 2 * 2}-{index // 2 * 2 + 1}\n" for index, name in enumerate(FOUR)}


@on_linux
@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, "", 4),
        (PAIRS, "", 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/app/cpu.max": "max 100000\n"}, "", 4),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/app/cpu.max": "150000 100000\n"}, "", 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/app/cpu.max": "20000 100000\n"}, "", 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/cpu.max": "300000 100000\n"}, "", 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, "", 2),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, "", 4),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            "",
            3,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            "",
            4,
        ),
        ({}, "3", 3),
        ({}, "2,4", 2),
        ({}, "9", 4),
        ({}, "0", 4),
        ({}, "many", 4),
    ],
)
def test_threads_are_the_least_that_any_limit_allows(
    files: dict[str, str],
    environment: str,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert default_threads(write(tmp_path, {**FOUR, **files})) == expected


@on_linux
def test_every_backend_takes_the_threads_that_the_process_may_have() -> None:
    script = """
import os
from cv_superpoint import SuperPointFeature2D
def make(name, **options):
    return SuperPointFeature2D.create(backend=name, device="cpu", **options).detector.backend
def threads():
    import torch
    openvino = make("openvino")._model.compiled.get_property("INFERENCE_NUM_THREADS")
    onnx = make("onnxruntime")._session.get_session_options().intra_op_num_threads
    make("torch")
    return [make("ncnn").threads, openvino, onnx, torch.get_num_threads()]
print(threads())
os.environ.pop("OMP_NUM_THREADS")
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(threads())
"""
    assert run_script(script, OMP_NUM_THREADS="1") == "[1, 1, 1, 1]\n" * 2
