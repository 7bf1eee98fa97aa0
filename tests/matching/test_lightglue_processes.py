"""A learned matcher in forked children, and where packages are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_matchers import nearest_file
from processes import on_linux, run_script

MATCH = """
import os, pickle, signal, sys
import numpy as np
from cv_superpoint import Features, LightGlueMatcher
path, name = sys.argv[1:]
rng = np.random.default_rng(0)
rows = rng.normal(size=(60, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
points = rng.uniform(0, 200, (60, 2)).astype(np.float32)

def match(matcher):
    matcher.setPairInfo(points, points[::-1], (200, 200), (200, 200))
    return [(m.queryIdx, m.trainIdx) for m in matcher.match(rows, rows[::-1].copy())]

matcher = LightGlueMatcher.create(path, backend=name, threads=2)
expected = match(matcher)
assert len(expected) == 60, len(expected)
"""
FORK = """
def features(points, rows):
    ones = np.ones(60, np.float32)
    return Features(keypoints=points, scores=ones, descriptors=rows, sizes=ones,
                    octaves=np.zeros(60, np.int32), image_size=(200, 200))

def match_batch(matcher):
    pair = features(points, rows), features(points[::-1], rows[::-1].copy())
    return [list(map(tuple, found.tolist())) for found, _ in matcher.matchBatch([pair] * 3)]

assert match_batch(matcher) == [expected] * 3
for make in (lambda: matcher, lambda: LightGlueMatcher.create(path, backend=name, threads=2)):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs is killed
        with os.fdopen(write, "wb") as file:
            pickle.dump([match(make()), *match_batch(make())], file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0 and pickle.loads(answer) == [expected] * 4, status
assert match(matcher) == expected
"""
MISSING = """
import sys
from importlib.machinery import PathFinder
missing = sys.argv.pop().split(",")
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in missing else find(name, *rest)
"""


@on_linux
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "numpy"])
def test_forked_children_match(backend: str, tmp_path: Path) -> None:
    run_script(MATCH + FORK, nearest_file(tmp_path / "m.safetensors"), backend)


@pytest.mark.parametrize(
    ("missing", "taken"),
    [
        ("torch", "openvino"),
        ("openvino", "onnxruntime"),
        ("openvino,onnx", "numpy"),
        ("openvino,onnxruntime,torch,onnx", "numpy"),
    ],
)
def test_auto_takes_what_is_installed(missing: str, taken: str, tmp_path: Path) -> None:
    path = nearest_file(tmp_path / "m.safetensors")
    said = "print(matcher.backend)"
    assert run_script(MISSING + MATCH + said, path, "auto", missing).split() == [taken]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    path = nearest_file(tmp_path / "m.safetensors")
    script = MISSING + MATCH.replace("matcher = ", "matcher = None if name else ").replace(
        "expected = match(matcher)\nassert len(expected) == 60, len(expected)", ""
    )
    script += """
try:
    LightGlueMatcher.create(path, backend=name)
except ImportError as error:
    print(error)
"""
    for package, backend, extra in (
        ("openvino", "openvino", "cpu"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("torch", "torch", "torch"),
    ):
        assert f"cv-superpoint[{extra}]" in run_script(script, path, backend, package)
