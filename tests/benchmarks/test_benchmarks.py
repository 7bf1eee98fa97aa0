"""The benchmarks compare like with like, and their small runs hold what the documents promise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pinned import PINNED
from processes import needs_proc

from benchmarks import publish
from benchmarks.contenders import THRESHOLD, contenders, our_variants, ours
from benchmarks.measure import in_turn, photographs
from benchmarks.plain import plain_call, transformers_call
from benchmarks.process import fresh_process
from benchmarks.soak import run_soak
from benchmarks.speed import FLOOR, measure_speed, plot_speed, speed_markdown
from benchmarks.throughput import throughput
from cv_superpoint import SuperPointFeature2D
from cv_superpoint.weights import available_weights, load_weights

COUNT = 100


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return photographs(None, (120, 160), 1)[0]


def test_photographs_have_the_size_and_come_from_folders(tmp_path: Path) -> None:
    import cv2

    for size in [(480, 640), (120, 160), (1000, 300)]:
        assert [image.shape for image in photographs(None, size, 2)] == [size, size]
    cv2.imwrite(str(tmp_path / "a.png"), photographs(None, (50, 90), 1)[0])
    (tmp_path / "b.txt").write_text("no picture", encoding="utf-8")
    assert [image.shape for image in photographs(tmp_path, (40, 40), 5)] == [(40, 40)]
    with pytest.raises(ValueError, match="no such file or folder"):
        photographs(tmp_path / "nowhere", (40, 40), 1)


def test_peers_do_the_same_work(photograph: np.ndarray) -> None:
    """The same weights give the same keypoints, up to what each implementation rounds."""
    weights = load_weights()
    mine = SuperPointFeature2D.create(COUNT, THRESHOLD, subpixel=False, **PINNED)
    expected = {tuple(point) for point in mine.extract(photograph).keypoints.tolist()}
    assert len(expected) == COUNT
    points, _, descriptors = plain_call(weights, "cpu", THRESHOLD, COUNT)(photograph)
    assert len(points) == len(descriptors) == COUNT
    # The plain module keeps points at the border, which ours does not.
    inner = np.all((points >= 4) & (points < np.array([156, 116])), axis=1)
    assert {tuple(point) for point in points[inner].tolist()} <= expected
    assert inner.sum() > 0.7 * COUNT
    theirs, rows = transformers_call(weights, "cpu", THRESHOLD, COUNT)(photograph)
    assert theirs.shape[:2] == rows.shape[:2] == (1, COUNT)


def test_every_contender_runs_in_turn_and_is_reported(
    photograph: np.ndarray, tmp_path: Path
) -> None:
    result = measure_speed(
        load_weights(), [photograph], device="cpu", count=COUNT, threads=2, rounds=1
    )
    names = dict(contenders(load_weights(), device="cpu", count=COUNT, threads=2))
    assert set(result["calls"]) == {FLOOR, *names}
    assert {"cv2.SIFT", "cv2.ORB"} < set(names)
    assert len(our_variants("cpu")) >= 4
    text = speed_markdown(json.loads(json.dumps(result)))
    assert all(name in text for name in names)
    plot_speed(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_calls_alternate() -> None:
    order: list[str] = []
    calls = {name: (lambda _, name=name: order.append(name)) for name in "ab"}
    timings = in_turn(calls, [0, 1], 2)
    assert "".join(order) == "ab" * 6
    assert timings["a"].calls == 4
    assert timings["a"].low <= timings["a"].median <= timings["a"].high


def test_blocks_of_a_page_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x -->\nold\n<!-- end x -->\nafter\n", encoding="utf-8")
    row = "| " + "cell " * 30 + "|"
    publish.replace_block(page, "x", f"{'word ' * 30}end\n\n{row}")
    before, *block, after, _ = page.read_text(encoding="utf-8").split("\n")
    assert (before, after) == ("before", "after")
    assert block[:2] == ["<!-- x -->", ""]
    assert block[-4:] == ["", row, "", "<!-- end x -->"]
    prose = block[2:-4]
    assert " ".join(prose) == "word " * 30 + "end"
    assert max(len(line) for line in prose) <= publish.LONGEST_LINE
    with pytest.raises(ValueError, match="markers"):
        publish.replace_block(page, "y", "new")


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (
            publish.PERFORMANCE,
            (
                "speed_cpu", "speed_cuda", "throughput_cpu", "throughput_cuda", "pipeline",
                "processes", "busy", "parts", "growth", "train_cpu",
            ),
        ),
        (
            publish.PRECISION,
            [
                f"precision_{device} {weights}"
                for device in ("cpu", "cuda")
                for weights in available_weights()
                if load_weights(weights).precisions != ("float32",)
            ],
        ),
        (publish.GPU, ["kernels"]),
    ],
)  # fmt: skip
def test_pages_have_the_blocks_that_commands_write(page: Path, names: Sequence[str]) -> None:
    text = page.read_text(encoding="utf-8")
    for name in names:
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- end {name} -->") == 1, name


@needs_proc
def test_a_fresh_process_needs_little_memory_and_no_torch(tmp_path: Path) -> None:
    """The bar of docs/results/performance.md: at most 400 MiB at 480 x 640."""
    np.save(tmp_path / "image.npy", photographs(None, (480, 640), 1)[0])
    seen = fresh_process(
        "superpoint", "auto", "auto", tmp_path / "image.npy", count=1024, threads=2, calls=2
    )
    assert seen.keypoints == 1024
    assert not seen.torch
    assert seen.steady_mib <= 400


@needs_proc
@pytest.mark.parametrize("backend", ["ncnn", "openvino", "onnxruntime"])
def test_memory_does_not_grow_with_random_sizes(backend: str) -> None:
    """The short version of ``python -m benchmarks soak``."""
    detector = ours(backend, "float32", "cpu", COUNT, 2)
    seen = run_soak(detector, calls=160, largest=160)
    assert seen.keypoints > 1000
    assert seen.last_mib < seen.middle_mib + 25


def test_throughput_is_reported_for_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("superpoint", "superpoint-lite")
    throughput(weights=sets, size=(64, 80), keypoints=30, batches=(2,), rounds=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "thread" in line]
    cells = [line.split("|") for line in lines if line.startswith("|")]
    assert [row[1].strip() for row in cells] == [name for name in sets for _ in range(5)]
    assert [row[2].strip() for row in cells[:5]] == [
        "1 thread, extractBatch of 2",
        "1 thread, extractStream",
        "1 thread, 2 callers",
        "2 threads, extractBatch of 2",
        "2 threads, extractStream",
    ]
