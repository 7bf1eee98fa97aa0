"""Forked children use detectors and make them; no thread is left that would not survive a fork."""

from __future__ import annotations

import pytest
from processes import on_linux, run_script

BACKENDS = ["ncnn", "openvino", "onnxruntime", "torch"]

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
    """A thread forks while another loads a network and logs, as OpenVINO's telemetry does."""
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


FIRST_ARRAYS = """
import os, signal, sys, threading
import numpy as np

def work():
    sys.setswitchinterval(1e-6)
    from cv_superpoint.backends.openvino_core import openvino, opset8, shared_core
    x = opset8.parameter([1, 4], np.float32)
    model = shared_core().compile_model(openvino.Model([opset8.relu(x)], [x]), "CPU")
    requests = [model.create_infer_request() for _ in range(4)]
    together = threading.Barrier(4)
    def read(request):
        together.wait()
        request.get_output_tensor(0).data
    threads = [threading.Thread(target=read, args=(one,)) for one in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # what hangs is killed
        work()
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""


@on_linux
def test_threads_that_read_the_first_arrays_of_openvino_do_not_wait_for_each_other() -> None:
    """One of six such processes hung where no array was made before (OpenVINO 2026.4)."""
    pytest.importorskip("openvino")
    assert run_script(FIRST_ARRAYS) == f"{[0] * 8}\n"
