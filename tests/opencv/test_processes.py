"""The interpreter's end, no folder to write to, a package in a zip file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from processes import on_linux, run_script

from cv_superpoint.weights.store import weights_folder

BACKENDS = ["ncnn", "openvino", "onnxruntime", "torch"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_detector_works_to_the_end(name: str) -> None:
    """A thread goes on when the main thread has ended; ``atexit`` comes after all of them."""
    script = """
import atexit, sys, threading, time
import skimage.data
from cv_superpoint import SuperPointFeature2D
photograph = skimage.data.camera()[100:340, 150:470]
images = [photograph[:160, :160], photograph[80:, 160:], photograph[:160, 160:]]

def make():
    return SuperPointFeature2D.create(30, 1e-3, backend=sys.argv[1], device="cpu", threads=2)

detector = make()

def work(stream):
    counts = [len(detector.extract(photograph))]
    counts += [len(one) for one in detector.extractBatch(images)]
    counts += [len(found) for _, found in stream]
    counts += [len(found) for _, found in detector.extractStream(images)]
    print(*counts, len(make().extract(photograph)), flush=True)

def late(stream):
    threading.main_thread().join()
    time.sleep(0.05)
    work(stream)

streams = [detector.extractStream(images * 2) for _ in range(2)]
for stream in streams:
    next(stream)  # its threads are at work when the end begins
threading.Thread(target=late, args=streams[:1]).start()
atexit.register(work, streams[1])
"""
    assert run_script(script, name).split() == ["30"] * 26


@on_linux
@pytest.mark.parametrize("name", BACKENDS)
def test_no_backend_needs_a_folder_to_write_to(name: str, tmp_path: Path) -> None:
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file takes a single byte
import skimage.data
from cv_superpoint import SuperPointFeature2D
detector = SuperPointFeature2D.create(30, 1e-3, backend=sys.argv[1], device="cpu")
print(len(detector.extract(skimage.data.camera()[100:220, 150:310])))
"""
    (tmp_path / "cache").mkdir()
    found = run_script(script, name, TMPDIR="/nowhere", CV_SUPERPOINT_CACHE=str(tmp_path / "cache"))
    assert found == "30\n"


def test_the_package_runs_from_a_zip_file_that_has_its_weights(tmp_path: Path) -> None:
    """A wheel on the path, as Spark hands them out; without weights the error says what to do."""
    package = ROOT / "cv_superpoint"
    for name in ("with.zip", "without.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in package.rglob("*.py"):
                archive.write(file, file.relative_to(ROOT))
            for file in weights_folder().iterdir():
                if name == "with.zip" and file.is_file():
                    archive.write(file, Path("cv_superpoint", "_weights", file.name))
    script = """
import pickle
import skimage.data
import cv_superpoint
assert ".zip" in cv_superpoint.__file__
try:
    detector = cv_superpoint.SuperPointFeature2D.create(30, 1e-3, device="cpu")
    detector = pickle.loads(pickle.dumps(detector))
    print(len(detector.extract(skimage.data.camera()[100:220, 150:310])))
except cv_superpoint.WeightsError as error:
    print(error)
"""
    where = {"PYTHONSAFEPATH": "1"}  # not from the current folder
    assert run_script(script, PYTHONPATH=str(tmp_path / "with.zip"), **where) == "30\n"
    told = run_script(script, PYTHONPATH=str(tmp_path / "without.zip"), **where)
    assert "without.zip holds cv_superpoint without its weights" in told
    assert "import it from a wheel" in told
