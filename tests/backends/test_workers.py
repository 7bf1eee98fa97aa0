"""Tasks shared by threads, and the strips of the network that are such tasks."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint.backends import choose, make_backend
from cv_superpoint.backends.strips import chains, plan, sizes
from cv_superpoint.backends.workers import Task, run_tasks
from cv_superpoint.network.architecture import IMAGE, NetworkConfig, layers
from cv_superpoint.network.torch_network import SuperPointNet
from cv_superpoint.weights import load_weights, save_weights

NETWORKS = {
    "paper": NetworkConfig(),
    "small": NetworkConfig(channels=(8, 16, 32, 64), head_channels=64, descriptor_dim=64),
    "deep": NetworkConfig(channels=(8, 8, 16, 16), depths=(1, 3, 2, 4), in_channels=3),
    "stride": NetworkConfig(channels=(8, 16, 32), depths=(2, 1, 3), downsampling="stride"),
    "stride, skips": NetworkConfig(
        channels=(8, 16, 24), depths=(1, 2, 2), downsampling="stride", detector_skips=True
    ),
    "pool, skips": NetworkConfig(channels=(8, 8, 16, 16), detector_skips=True),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), threads=st.integers(1, 5))
def test_every_task_runs_once_and_after_what_it_needs(data: st.DataObject, threads: int) -> None:
    count = data.draw(st.integers(0, 25))
    needs = [
        data.draw(st.lists(st.integers(0, place - 1), max_size=3)) if place else []
        for place in range(count)
    ]
    order: list[int] = []  # appending is atomic
    tasks = [Task(work=lambda k=k: order.append(k), needs=needs[k]) for k in range(count)]
    run_tasks(tasks, threads)
    assert sorted(order) == list(range(count))
    place = {task: index for index, task in enumerate(order)}
    assert all(place[before] < place[k] for k in range(count) for before in needs[k])


def test_a_thread_that_stands_still_holds_up_only_what_needs_its_task() -> None:
    """One task waits, as a task does whose core another program has."""
    done: list[int] = []
    others = threading.Event()

    def work(index: int) -> None:
        if index == 0:
            assert others.wait(10)  # until all but this and the last are done
        done.append(index)
        if len(done) == 8:
            others.set()

    tasks = [Task(work=lambda k=k: work(k), needs=[0] if k == 9 else []) for k in range(10)]
    run_tasks(tasks, 2)
    assert sorted(done[:8]) == list(range(1, 9))
    assert done[8:] == [0, 9]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("place", [0, 7])
def test_an_error_is_the_caller_s_and_ends_all(threads: int, place: int) -> None:
    begun: list[int] = []

    def work(index: int) -> None:
        begun.append(index)
        if index == place:
            raise KeyError(index)
        time.sleep(0.001)

    tasks = [Task(work=lambda k=k: work(k), needs=[k - 1] if k else []) for k in range(20)]
    with pytest.raises(KeyError):
        run_tasks(tasks, threads)
    assert begun == list(range(place + 1))
    begun.clear()
    with pytest.raises(KeyError):  # nothing is left of the first call
        run_tasks(tasks, threads)
    assert begun == list(range(place + 1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (16, 240), (240, 320), (480, 640), (1120, 1120)])
def test_strips_cover_every_map_once_and_need_only_what_comes_before(
    name: str, size: tuple[int, int]
) -> None:
    config = NETWORKS[name]
    found = chains(config)
    assert [layer for chain in found for layer in chain.layers] == list(layers(config))
    shapes, strips = sizes(config, *size), plan(config, *size)
    for index, chain in enumerate(found):
        own = [strip for strip in strips if strip.chain == index]
        assert own[0].start == 0
        assert own[-1].end == shapes[chain.name][1]
        assert all(one.end == two.start for one, two in pairwise(own))
        for strip in own:
            rows = set(range(strip.rows[0].start, strip.rows[0].end))
            for source in chain.inputs:
                if source == IMAGE:
                    continue
                given = [
                    strips[need] for need in strip.needs if found[strips[need].chain].name == source
                ]
                assert rows <= {row for one in given for row in range(one.start, one.end)}
            assert all(need < strips.index(strip) for need in strip.needs)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "paper"])
def test_every_network_runs_in_strips_as_in_torch(name: str, tmp_path) -> None:
    """float32; one strip or several of each map, on one thread and on three: the same bits."""
    torch.manual_seed(5)
    config = NETWORKS[name]
    net = SuperPointNet(config).eval()
    save_weights(net, tmp_path / "net.safetensors")
    weights = load_weights(tmp_path / "net.safetensors")
    choice = choose(backend="ncnn", device="cpu", precision="float32")
    one, three = (make_backend(weights, choice, threads=threads) for threads in (1, 3))
    rng = np.random.default_rng(0)
    for size in [(8, 16), (48, 40), (328, 72)]:
        images = rng.integers(0, 256, (2, *size, config.in_channels), np.uint8)
        with torch.inference_mode():
            tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            expected = [maps.permute(0, 2, 3, 1).numpy() for maps in net(tensor)]
        for theirs, alone, shared in zip(expected, one.run(images), three.run(images), strict=True):
            np.testing.assert_array_equal(np.stack(alone), np.stack(shared))
            cells = np.stack([maps.reshape(*maps.shape[:2], -1) for maps in alone])
            if theirs is expected[1]:
                cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
            np.testing.assert_allclose(cells, theirs, atol=2e-4)
