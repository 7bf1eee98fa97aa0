"""Forks, pickles, the interpreter's end, limits on cores, no folder to write to, a zip file."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import Features, SuperPointFeature2D, WeightsError
from cv_superpoint.backends.cores import default_threads
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.opencv import pickling
from cv_superpoint.weights.store import save_weights, weights_folder

PHOTOGRAPH = skimage.data.camera()[100:220, 150:310]
BACKENDS = ["ncnn", "openvino", "onnxruntime", "torch"]
ROOT = Path(__file__).parent.parent.parent
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux forks and limits")


def run_script(script: str, *arguments: object, **environment: str) -> str:
    """Run Python code in a new interpreter; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same(one: Features, other: Features, atol: float = 0) -> bool:
    return all(
        getattr(one, field).shape == getattr(other, field).shape
        and np.allclose(getattr(one, field), getattr(other, field), rtol=0, atol=atol)
        for field in ("keypoints", "scores", "descriptors")
    )


# Forks.

FORK = """
import os, pickle, signal, sys, threading
import skimage.data
from cv_superpoint import SuperPointFeature2D
image = skimage.data.camera()[100:300, 150:310]
[name] = sys.argv[1:]

def make():
    return SuperPointFeature2D.create(
        100, 1e-3, backend=name, device="cpu", precision="float32", threads=2)

def in_child(what, work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs is killed
        with os.fdopen(write, "wb") as file:
            pickle.dump([work() for _ in range(2)], file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0 and answer, f"{what}: the child ended with status {status}"
    answers[what] = pickle.loads(answer)
    return answers[what]

answers = {}
detector = make()
in_child("made before, not used", lambda: detector.extract(image))
in_child("made after", lambda: make().extract(image))
for _ in range(5):  # OpenVINO tries both of its ways
    expected = detector.extract(image)
assert len(expected) == 100
in_child("made before, used", lambda: detector.extract(image))
in_child("another used", lambda: make().extract(image))
in_child("twice", lambda: in_child("once", lambda: detector.extract(image))[0])
in_child("used again", lambda: detector.extract(image))

done = threading.Event()
def use():
    while not done.is_set():
        detector.extract(image)
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
for count in range(4):
    in_child(f"{count} while others use it", lambda: detector.extract(image))
done.set()
for thread in threads:
    thread.join()

for what, found in answers.items():
    for one in found:
        for field in ("keypoints", "scores", "descriptors"):
            a, b = getattr(one, field), getattr(expected, field)
            # torch convolves otherwise on one thread.
            close = abs(a - b).max() <= (1e-3 if name == "torch" else 0)
            assert a.shape == b.shape and close, (what, field)
print(len(answers))
"""


@on_linux
@pytest.mark.parametrize("name", BACKENDS)
def test_a_forked_child_finds_what_its_parent_finds(name: str) -> None:
    assert run_script(FORK, name) == "10\n"


@on_linux
def test_a_fork_that_holds_a_lock_does_not_wait_for_ever() -> None:
    """What runs inside needs the lock of ``logging``, which a fork holds from its beginning."""
    script = """
import logging, os, threading
from cv_superpoint.backends.forks import no_fork
inside, go = threading.Event(), threading.Event()
def work():
    with no_fork():
        inside.set()
        go.wait(10)
        logging.getLogger("any").info("needs the lock")
thread = threading.Thread(target=work)
thread.start()
inside.wait()
os.register_at_fork(before=go.set)  # of all, it is called first
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
thread.join()
print("done")
"""
    assert run_script(script).strip() == "done"


@on_linux
def test_a_loader_s_forked_workers_use_the_detector_of_their_parent() -> None:
    script = """
import numpy as np, skimage.data, torch
from cv_superpoint import SuperPointFeature2D
detector = SuperPointFeature2D.create(50, 1e-3, device="cpu", precision="float32", threads=2)
photograph = skimage.data.camera()[100:, 150:]

class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, index):
        return detector.extract(photograph[40 * index : 40 * index + 120, :160]).descriptors

expected = [Pictures()[index] for index in range(6)]
loader = torch.utils.data.DataLoader(
    Pictures(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
for epoch in range(2):
    for one, two in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(one, two)
"""
    run_script(script)


@on_linux
def test_a_fork_that_waits_holds_no_lock_that_work_needs() -> None:
    """As OpenVINO's telemetry does: a thread forks while another loads a network and logs."""
    script = """
import faulthandler, os, threading, time
from cv_superpoint.backends import forks
import logging
from concurrent.futures import ThreadPoolExecutor
faulthandler.dump_traceback_later(60, exit=True)
forks._MOST_INSIDE = 120

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

with ThreadPoolExecutor(1) as pool:
    with forks.no_fork():
        thread = threading.Thread(target=fork)
        thread.start()
        time.sleep(0.2)
        logging.getLogger("any").info("work logs")
        assert pool.submit(int).result() == 0
        assert thread.is_alive()  # it waits for this work, which did not wait for it
    thread.join()
print("done")
"""
    assert run_script(script) == "done\n"


@on_linux
def test_ncnn_leaves_no_threads_behind() -> None:
    """OpenMP's would wait for each other after every layer, and not survive a fork."""
    script = """
import os, time
import numpy as np, skimage.data
from cv_superpoint.backends import choose, make_backend
from cv_superpoint.weights import load_weights
images = np.stack([skimage.data.camera()[100:220, 150:310]] * 4)[..., None]
before = len(os.listdir("/proc/self/task"))
choice = choose(backend="ncnn", device="cpu", precision="float32")
backend = make_backend(load_weights(), choice, threads=3)
for _ in range(3):
    backend.run(images)
for _ in range(500):  # a helper that came too late for any task may not have ended
    time.sleep(0.01)
    if len(os.listdir("/proc/self/task")) == before:
        print("none")
        break
"""
    assert run_script(script) == "none\n"


# Copies and pickles.


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = SuperPointNet(NetworkConfig(channels=(8, 8, 16, 16), head_channels=16, descriptor_dim=32))
    path = tmp_path / "small.safetensors"
    save_weights(net.eval(), path, score_threshold=0.0158)
    return path


OPTIONS: list[dict[str, Any]] = [
    {"scoreThreshold": 1e-3},
    {"maxKeypoints": 7, "scoreThreshold": 1e-3, "nmsRadius": 2, "borderMargin": 0},
    {
        "subpixel": False,
        "scales": (1.0, 0.5),
        "threads": 2,
        "scoreRadius": 0,
        "scoreThreshold": 1e-3,
    },
    {"backend": "openvino", "threads": 2, "scoreThreshold": 1e-3},
    {"backend": "onnxruntime", "scoreThreshold": 1e-3},
    {"backend": "torch", "scoreThreshold": 1e-3},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("own", [False, True])
def test_copies_and_pickles_find_the_same(
    own: bool, options: dict[str, Any], small_weights: Path
) -> None:
    weights = small_weights if own else None
    detector = SuperPointFeature2D.create(**{**PINNED, **options}, weights=weights)
    detector.setNmsRadius(3)  # what was set later counts too
    expected = detector.extract(PHOTOGRAPH)
    assert len(expected) > 5
    stored = pickle.dumps(detector)
    assert len(stored) < (300_000 if own else 2000)
    small_weights.unlink()  # a pickle holds weights that not every installation has
    for other in (copy.copy(detector), copy.deepcopy(detector), pickle.loads(stored)):
        assert same(other.extract(PHOTOGRAPH), expected)
        assert other.describe() == detector.describe()
        assert repr(other) == repr(detector)
        other.setMaxKeypoints(3)
        assert len(other.extract(PHOTOGRAPH)) == 3
    assert same(detector.extract(PHOTOGRAPH), expected)


def test_a_subclass_and_what_was_added_travel_along() -> None:
    detector = SuperPointFeature2D.create(20, device="cpu")
    detector.cameras = ["left"]  # type: ignore[attr-defined]
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert other.cameras == ["left"]
        other.cameras.append("right")
    assert detector.cameras == ["left"]  # type: ignore[attr-defined]


def test_a_network_is_made_once_for_equal_pickles_and_few_are_kept(small_weights: Path) -> None:
    stored = pickle.dumps(SuperPointFeature2D.create(20, device="cpu", weights=small_weights))
    first, second = pickle.loads(stored), pickle.loads(stored)
    assert first._backend is second._backend
    for threads in (1, 2, 3):
        pickle.loads(pickle.dumps(SuperPointFeature2D.create(device="cpu", threads=threads)))
    assert len(pickling._kept) == 2


def test_a_pickle_of_another_release_s_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = pickle.dumps(SuperPointFeature2D.create(device="cpu"))
    sha256 = SuperPointFeature2D.create(device="cpu")._weights.sha256.encode()
    with pytest.raises(WeightsError, match="install the same release"):
        pickle.loads(stored.replace(sha256, b"0" * 64))


def test_detectors_go_to_spawned_processes(tmp_path: Path) -> None:
    script = """
import multiprocessing, sys
import numpy as np, skimage.data
from cv_superpoint import SuperPointFeature2D
if __name__ == "__main__":
    photograph = skimage.data.camera()[100:, 150:]
    images = [photograph[40 * k : 40 * k + 120, :160] for k in range(4)]
    options = {"device": "cpu", "precision": "float32", "threads": 1}
    detector = SuperPointFeature2D.create(30, 1e-3, scales=(1, 0.5), **options)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(detector.extract, images, chunksize=1)
        for one, image in zip(found, images, strict=True):
            np.testing.assert_array_equal(one.descriptors, detector.extract(image).descriptors)
        print([len(one) for one in found])
"""
    (tmp_path / "main.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[30, 30, 30, 30]\n"


# The end of the interpreter.


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


# How many threads.


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
    return SuperPointFeature2D.create(backend=name, device="cpu", **options)._backend
def threads():
    import torch
    openvino = make("openvino")._model.get_property("INFERENCE_NUM_THREADS")
    onnx = make("onnxruntime")._session.get_session_options().intra_op_num_threads
    make("torch")
    return [make("ncnn").threads, openvino, onnx, torch.get_num_threads()]
print(threads())
os.environ.pop("OMP_NUM_THREADS")
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(threads())
"""
    assert run_script(script, OMP_NUM_THREADS="1") == "[1, 1, 1, 1]\n" * 2


# Where nothing can be written, and from a zip file.


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
