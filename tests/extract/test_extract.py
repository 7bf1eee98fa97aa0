"""Extraction: the same features as one by one, whatever stops it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow.parquet
import pytest
import skimage.data
from pinned import PINNED
from processes import needs_proc, processes
from stored import content

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.extract import ExtractConfig, ExtractError, extract_folder, work
from cv_superpoint.extract.run import RayOptions
from cv_superpoint.interop import hloc
from cv_superpoint.pictures.reading import read_picture

CONFIG = ExtractConfig(max_keypoints=60, threshold=0.0, shard_size=3, half=False, **PINNED)
BROKEN = ("d/cut.jpg", "z.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small pictures of three sizes in two folders, one cut short and one no picture."""
    root = tmp_path_factory.mktemp("images")
    (root / "d").mkdir()
    photograph = skimage.data.astronaut()[..., ::-1]
    for index in range(10):
        piece = photograph[20 * index :, 30 * index :][:96, : (96, 120, 131)[index % 3]]
        name = f"d/{index}.png" if index % 2 else f"{index}.jpg"
        cv2.imwrite(str(root / name), piece)
    data = cv2.imencode(".jpg", photograph)[1].tobytes()
    (root / BROKEN[0]).write_bytes(data[: len(data) // 2])
    (root / BROKEN[1]).write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "features.h5"
    report = extract_folder(folder, output, CONFIG, readers=0)
    assert (report.images, report.resumed) == (10, 0)
    assert [name for name, _ in report.broken] == list(BROKEN)
    return output


def assert_same(one: Path, other: Path, tolerance: float = 0) -> None:
    first, second = content(one), content(other)
    assert list(first) == list(second)
    assert len(first) == 40
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=tolerance, rtol=0)


def test_the_file_holds_what_the_detector_finds(folder: Path, undisturbed: Path) -> None:
    detector = SuperPointFeature2D.create(60, 0.0, **PINNED)
    assert len(hloc.image_names(undisturbed)) == 10
    for name in ("0.jpg", "d/1.png", "8.jpg"):
        image = read_picture(folder / name, grey=True, upright=False)
        expected, stored = detector.extract(image), hloc.read_features(undisturbed, name)
        assert len(stored) > 10
        assert stored.image_size == image.shape
        np.testing.assert_allclose(stored.keypoints, expected.keypoints, atol=1e-3)
        np.testing.assert_allclose(stored.descriptors, expected.descriptors, atol=1e-4)
    listed = undisturbed.with_name("features.h5.broken.txt").read_text(encoding="utf-8")
    assert [line.split("\t")[0] for line in listed.splitlines()] == list(BROKEN)
    assert "cut short" in listed
    assert sorted(each.name for each in undisturbed.parent.iterdir()) == [
        "features.h5",
        "features.h5.broken.txt",
    ]


def test_decoding_threads_change_nothing(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    extract_folder(folder, tmp_path / "f.h5", CONFIG, readers=2)
    assert_same(undisturbed, tmp_path / "f.h5")


def test_small_batches_change_nothing(
    folder: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BATCH_PIXELS", 96 * 120)
    monkeypatch.setattr(work, "WAITING_PIXELS", 96 * 140)
    extract_folder(folder, tmp_path / "f.h5", CONFIG, readers=0)
    assert_same(undisturbed, tmp_path / "f.h5", 1e-4)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def has_ended(group: int) -> bool:
    """Whether all processes of a group end within a minute; a second will do on an idle machine."""
    for _ in range(6000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_killed_in_the_middle(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    for index in range(30):
        shutil.copy(folder / "d/1.png", images / f"x{index:02}.png")
    options = ["--max-keypoints", "60", "--shard-size", "2", "--threads", "1", "--processes", "1"]
    command = [sys.executable, "-m", "cv_superpoint", "extract", str(images), *options]

    def shards(name: str) -> int:
        return len(list((tmp_path / f"{name}.parts").glob("*.h5")))

    stopped = [*command, "-o", str(tmp_path / "killed.h5")]
    run = subprocess.Popen(stopped, start_new_session=True, stderr=subprocess.DEVNULL)
    while shards("killed.h5") < 3 and run.poll() is None:
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert 3 <= shards("killed.h5") < 21  # stopped in the middle
    assert not (tmp_path / "killed.h5").exists()
    assert has_ended(run.pid)
    for name in ("killed.h5", "whole.h5"):
        again = [*command, "-o", str(tmp_path / name), "--json"]
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert ('"resumed": 0' in done.stdout) == (name == "whole.h5")
        assert not (tmp_path / f"{name}.parts").exists()
    first, second = content(tmp_path / "killed.h5"), content(tmp_path / "whole.h5")
    assert list(first) == list(second)
    assert len(first) == 160
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_ctrl_c_is_one_line_and_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "features"
    shutil.copytree(folder, images)
    # More than a busy machine gets through before the signal comes.
    for index in range(400):
        shutil.copy(folder / "d/1.png", images / f"x{index:03}.png")
    command = [sys.executable, "-m", "cv_superpoint", "extract", str(images), "-o", str(output)]
    command += ["--shard-size", "1", "--processes", "1"]
    # A process that was started in the background ignores Ctrl-C, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # As from a terminal: the whole group gets the signal.
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    while not list(output.glob("*.parquet")) and run.poll() is None:
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGINT)
    error = run.communicate(timeout=300)[1]
    assert (run.returncode, error) == (130, "error: stopped\n")
    assert 1 <= len(list(output.glob("*.parquet"))) < 400
    assert not list(output.glob("*.part*"))


def test_parquet_shards_hold_the_same(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "features"
    report = extract_folder(folder, output, CONFIG, readers=0)
    assert report.images == 10
    table = pyarrow.parquet.read_table(output / "000000.parquet")
    assert table.column("name").to_pylist() == ["0.jpg", "2.jpg", "4.jpg"]
    rows = {}
    for path in sorted(output.glob("*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            rows[row["name"]] = row
    assert sorted(rows) == hloc.image_names(undisturbed)
    for name, row in rows.items():
        stored = hloc.read_features(undisturbed, name)
        assert (row["height"], row["width"]) == stored.image_size
        np.testing.assert_array_equal(np.float32(row["keypoints"]).reshape(-1, 2), stored.keypoints)
        descriptors = np.float32(row["descriptors"]).reshape(len(stored), -1)
        np.testing.assert_array_equal(descriptors, stored.descriptors)
    again = extract_folder(folder, output, CONFIG, readers=0)
    assert (again.images, again.resumed) == (10, 10)
    assert [name for name, _ in again.broken] == list(BROKEN)  # tried again, and still broken


def test_shrunk_pictures_keep_their_coordinates(folder: Path, tmp_path: Path) -> None:
    config = ExtractConfig(max_keypoints=30, threshold=0.0, longest_side=64, half=True, **PINNED)
    extract_folder(folder, tmp_path / "f.h5", config, readers=0)
    stored = hloc.read_features(tmp_path / "f.h5", "8.jpg")
    image = read_picture(folder / "8.jpg", grey=True)
    assert stored.image_size == image.shape == (96, 131)
    small = cv2.resize(image, (64, 47), interpolation=cv2.INTER_AREA)
    expected = SuperPointFeature2D.create(30, 0.0, **PINNED).extract(small)
    x = (expected.keypoints[:, 0] + 0.5) * 131 / 64 - 0.5
    np.testing.assert_allclose(stored.keypoints[:, 0], x, atol=0.01)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["8.jpg/descriptors"].dtype == np.float16
        assert file["8.jpg/keypoints"].dtype == np.float32


def ray_workers() -> list[int]:
    """Process numbers of Ray's actors that were started by this process."""
    parents = processes()

    def is_ours(number: int) -> bool:
        while number in parents:
            if number == os.getpid():
                return True
            number = parents[number][0]
        return False

    return [
        number
        for number, (_, command) in parents.items()
        if "ray::" in command and "ShardActor" in command and is_ours(number)
    ]


@needs_proc
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_finds_the_same_though_a_worker_is_killed(
    folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_once(done: int, total: int) -> None:
        if 0 < done < total and not killed:
            killed.extend(ray_workers())
            for number in killed:
                os.kill(number, signal.SIGKILL)

    report = extract_folder(
        folder,
        tmp_path / "f.h5",
        CONFIG,
        readers=0,
        ray=RayOptions(actors=1),
        tick=kill_once,
    )
    assert killed
    assert report.images == 10
    assert [name for name, _ in report.broken] == list(BROKEN)
    assert_same(undisturbed, tmp_path / "f.h5", 1e-3)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_does_not_answer(folder: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(ExtractError, match=r"does not answer .*check the address"):
        extract_folder(folder, tmp_path / "f.h5", CONFIG, ray=RayOptions(address=address))


# ---- what cannot start or go on ----


@pytest.mark.parametrize("name", ["features.h5", "features"])
def test_other_options_do_not_mix(folder: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    extract_folder(folder, output, CONFIG, readers=0)
    before = files_in(tmp_path)
    config = replace(CONFIG, nms_radius=5, weights="superpoint-lite")
    with pytest.raises(
        ExtractError, match=r"nms_radius was 4, is 5; .*weights was .*go on with the"
    ):
        extract_folder(folder, output, config, readers=0)
    assert files_in(tmp_path) == before
    # Where the network runs, and how the work is cut, is no difference.
    config = replace(CONFIG, threads=2, shard_size=100, backend="torch")
    assert extract_folder(folder, output, config, readers=0).resumed == 10
    record = output / "run.json"
    if name == "features":
        record.write_text("{", encoding="utf-8")
        with pytest.raises(ExtractError, match=r"is damaged .*; delete the folder"):
            extract_folder(folder, output, CONFIG, readers=0)
        record.write_text('{"of": "another program"}', encoding="utf-8")
        with pytest.raises(ExtractError, match=r"run\.json belongs to another program"):
            extract_folder(folder, output, CONFIG, readers=0)
        assert record.read_text(encoding="utf-8") == '{"of": "another program"}'


def test_outputs_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    hloc.write_features(tmp_path / "theirs.h5", {})
    with pytest.raises(ExtractError, match=r"theirs\.h5 is there already and does not tell"):
        extract_folder(folder, tmp_path / "theirs.h5", CONFIG)
    (tmp_path / "text.h5").write_text("text", encoding="utf-8")
    with pytest.raises(ExtractError, match=r"text\.h5 is no HDF5 file; delete"):
        extract_folder(folder, tmp_path / "text.h5", CONFIG)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "000000.parquet").write_text("theirs", encoding="utf-8")
    with pytest.raises(ExtractError, match="is no shard of a run; name another output"):
        extract_folder(folder, tmp_path / "tables", CONFIG)
    assert [each.name for each in (tmp_path / "tables").iterdir()] == ["000000.parquet"]
    with pytest.raises(ExtractError, match=r"ending in \.h5, or a folder"):
        extract_folder(folder, tmp_path / "features.npz", CONFIG)
    with pytest.raises(ExtractError, match="no such folder"):
        extract_folder(folder / "none", tmp_path / "f.h5", CONFIG)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in this folder"):
        extract_folder(tmp_path / "empty", tmp_path / "f.h5", CONFIG)
    for wrong in ({"shard_size": 0}, {"longest_side": 3}):
        with pytest.raises(ExtractError, match=next(iter(wrong))):
            ExtractConfig(**wrong)


@pytest.mark.parametrize("format", ["features.h5", "features"])
def test_a_full_disk_keeps_what_is_done(folder: Path, tmp_path: Path, format: str) -> None:
    output = tmp_path / format
    # A limit on the size of files stands for the end of the disk: the same calls fail.
    limit = 60_000 if format == "features" else 400_000
    arguments = ["extract", str(folder), "-o", str(output), "--threshold", "0"]
    arguments += ["--shard-size", "1", "--processes", "0", "--no-half"]
    script = f"""
import resource, sys
from cv_superpoint.cli import main
from cv_superpoint.extract import work
write_shard = work.write_shard
def limited(*arguments, **options):  # not before: the network goes through files, too
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    return write_shard(*arguments, **options)
work.write_shard = limited
sys.exit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: cannot write ")
    assert "make room on the disk and run the same command again" in done.stderr
    assert done.stderr.count("\n") == 1
    parts = output if format == "features" else tmp_path / "features.h5.parts"
    assert not list(parts.glob("*.part*"))
    assert not (tmp_path / "features.h5").exists()
