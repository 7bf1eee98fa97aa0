"""A folder that changes between two runs: the content decides what is done, and nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow.parquet
import pytest
import skimage.data
from pinned import FLOAT32

from cv_superpoint.extract import ExtractConfig, ExtractError, Report, extract_folder, store, work
from cv_superpoint.files.fingerprint import Fingerprint, fingerprint
from cv_superpoint.interop import hloc

CONFIG = ExtractConfig(
    max_keypoints=20, threshold=0.0, shard_size=2, half=False, threads=1, **FLOAT32
)
PIECES = [
    np.ascontiguousarray(skimage.data.astronaut()[40 * index :, 30 * index :][:64, :80, ::-1])
    for index in range(7)
]


def make(folder: Path, **pieces: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, piece in pieces.items():
        cv2.imwrite(str(folder / f"{name}.png"), PIECES[piece])


def extract(folder: Path, output: Path) -> Report:
    return extract_folder(folder, output, CONFIG, readers=0)


def stored(output: Path) -> dict[str, Any]:
    """Keypoints by name."""
    found: dict[str, Any] = {}
    if output.is_file():
        with h5py.File(output) as file:
            return {name: file[name]["keypoints"][()] for name in hloc.image_names(output)}
    for path in sorted(output.glob("*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            assert row["name"] not in found, "an image in two shards"
            found[row["name"]] = np.float32(row["keypoints"]).reshape(-1, 2)
    return found


def assert_as_new(folder: Path, output: Path, also: tuple[str, ...] = ()) -> None:
    """The output is what a first run over the folder gives."""
    new = output.with_name(f"new-{output.name}")
    extract(folder, new)
    expected, found = stored(new), stored(output)
    assert sorted(found) == sorted({*expected, *also})
    for name, keypoints in expected.items():
        np.testing.assert_array_equal(found[name], keypoints)
    new.unlink() if new.is_file() else shutil.rmtree(new)


@pytest.fixture(params=["features.h5", "features"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def test_only_what_is_missing_is_done(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    make(folder, a=0, b=1, c=2)
    assert extract(folder, output).resumed == 0
    read: list[str] = []
    decode = work.decode

    def watched(path: Path, *options: Any) -> work.Decoded:
        read.append(path.name)
        return decode(path, *options)

    monkeypatch.setattr(work, "decode", watched)
    # Added.
    make(folder, d=3)
    report = extract(folder, output)
    assert (read, report.images, report.resumed, report.changed) == (["d.png"], 4, 3, ())
    monkeypatch.undo()
    assert_as_new(folder, output)
    monkeypatch.setattr(work, "decode", watched)
    # Nothing.
    read.clear()
    before = output.stat() if output.is_file() else None
    report = extract(folder, output)
    assert (read, report.images, report.resumed) == ([], 4, 4)
    assert report.keypoints == 80
    if before is not None:
        assert output.stat().st_ino == before.st_ino  # not even written again
    # Replaced; and one touched, one copied back with other times, which are the same still.
    make(folder, b=4)
    os.utime(folder / "a.png")
    shutil.copy2(folder / "c.png", folder / "copy.txt")
    os.replace(folder / "copy.txt", folder / "c.png")
    report = extract(folder, output)
    assert (read, report.images, report.resumed, report.changed) == (["b.png"], 4, 3, ("b.png",))
    monkeypatch.undo()
    assert_as_new(folder, output)
    # Removed: nothing is lost.
    (folder / "a.png").unlink()
    report = extract(folder, output)
    assert (report.images, report.resumed, report.gone) == (4, 3, ("a.png",))
    assert_as_new(folder, output, ("a.png",))


def test_a_replaced_file_of_the_same_size_and_time(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, piece in (("a.bmp", 0), ("b.bmp", 1)):
        cv2.imwrite(str(folder / name), PIECES[piece])
    extract(folder, output)
    times = (folder / "a.bmp").stat()
    size = times.st_size
    cv2.imwrite(str(folder / "a.bmp"), PIECES[5])
    os.utime(folder / "a.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (folder / "a.bmp").stat().st_size == size
    assert extract(folder, output).changed == ("a.bmp",)
    assert_as_new(folder, output)


def test_pictures_that_were_repaired_or_broken(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "images"
    make(folder, a=0, b=1, c=2)
    (folder / "c.png").write_bytes(b"")
    report = extract(folder, output)
    assert report.broken == (("c.png", f"{folder}/c.png: the file is empty; copy it again"),)
    make(folder, c=3)
    report = extract(folder, output)
    assert (report.images, report.broken, report.changed) == (3, (), ())
    assert_as_new(folder, output)
    assert not output.with_name("features.h5.broken.txt").exists()
    (folder / "a.png").write_bytes(b"no picture any more")
    report = extract(folder, output)
    assert [name for name, _ in report.broken] == ["a.png"]
    assert (report.images, report.changed) == (2, ("a.png",))
    assert "a.png" not in stored(output)  # features of another picture would be wrong
    for _ in range(2):
        assert extract(folder, output).images == 2
    assert len(list(tmp_path.glob("features/*.parquet"))) <= 3  # no file more with each try


def test_changes_while_a_run_is_stopped(tmp_path: Path, output: Path) -> None:
    """What was finished before the stop is held against the files, too."""
    folder = tmp_path / "images"
    make(folder, a=0, b=1, c=2, d=3, e=4)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_folder(folder, output, CONFIG, readers=0, tick=stop)
    make(folder, b=5, f=6)
    report = extract(folder, output)
    assert (report.images, report.changed) == (6, ("b.png",))
    assert report.resumed >= 1
    assert_as_new(folder, output)


def test_stopped_between_the_last_shard_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "images", tmp_path / "features.h5"
    make(folder, a=0, b=1)
    extract(folder, output)
    make(folder, a=2, c=3)
    before = output.read_bytes()

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "merge", stop)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, output)
    assert output.read_bytes() == before
    monkeypatch.undo()
    assert extract(folder, output).resumed == 3
    assert_as_new(folder, output)
    assert not (tmp_path / "features.h5.parts").exists()


def test_names_of_every_kind(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "images"
    make(folder, a=0)
    data = (folder / "a.png").read_bytes()
    odd = os.fsdecode(b"caf\xe9.png")
    good = ["x" * 222 + ".png", "x" * 251 + ".png", "new\nline.png", "tab\t.png", "Größe.png"]
    good += ["thumbs.jpg/c.png", "keypoints.png", "." * 3 + "png.png"]
    for name in (*good, odd, "broken\n.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data if "broken" not in name else b"")
    os.mkfifo(folder / "pipe.png")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    report = extract(folder, output)
    assert dict(report.broken).keys() == {odd, "pipe.png", "photo.heic", "broken\n.png"}
    assert (
        "its name is not UTF-8, as names in the output are; rename it" in dict(report.broken)[odd]
    )
    assert sorted(stored(output)) == sorted(["a.png", *good])
    if output.suffix:
        listed = output.with_name("features.h5.broken.txt").read_text(encoding="utf-8").splitlines()
        assert [line.split("\t")[0] for line in listed] == [
            r"broken\n.png", "photo.heic", "pipe.png", r"caf\xe9.png",
        ]  # fmt: skip
    assert extract(folder, output).resumed == 9


def test_what_lies_beside_the_shards_stays(tmp_path: Path) -> None:
    folder, parts = tmp_path / "images", tmp_path / "features.h5.parts"
    make(folder, a=0)
    parts.mkdir()
    (parts / "notes.txt").write_text("mine", encoding="utf-8")
    extract(folder, tmp_path / "features.h5")
    assert [each.name for each in parts.iterdir()] == ["notes.txt"]


def test_the_output_may_lie_among_the_images(tmp_path: Path) -> None:
    make(tmp_path, a=0, b=1)
    for name in ("features.h5", "features"):
        assert extract(tmp_path, tmp_path / name).images == 2
        assert extract(tmp_path, tmp_path / name).resumed == 2


def test_another_folder_is_told(tmp_path: Path, output: Path) -> None:
    make(tmp_path / "images", a=0)
    make(tmp_path / "others", b=1)
    extract(tmp_path / "images", output)
    with pytest.raises(ExtractError, match=r"features of other images, such as a\.png, none of"):
        extract(tmp_path / "others", output)
    assert not (tmp_path / "features.h5.parts").exists()
    assert extract(tmp_path / "images", output).resumed == 1


def test_numbered_files_of_others_are_not_written_over(tmp_path: Path) -> None:
    make(tmp_path / "images", a=0)
    (tmp_path / "images" / "000000.json").write_text("labels", encoding="utf-8")
    with pytest.raises(ExtractError, match=r"000000\.json is no shard of a run; name another"):
        extract(tmp_path / "images", tmp_path / "images")
    assert (tmp_path / "images" / "000000.json").read_text(encoding="utf-8") == "labels"


def test_notes_that_are_damaged_are_told(tmp_path: Path) -> None:
    make(tmp_path / "images", a=0)
    extract(tmp_path / "images", tmp_path / "features")
    for text in ("{", "[]", "{}"):
        (tmp_path / "features" / "000000.json").write_text(text, encoding="utf-8")
        with pytest.raises(ExtractError, match=r"000000\.json is damaged .* run the same command"):
            extract(tmp_path / "images", tmp_path / "features")


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Also one from standard input, which no process could start again."""
    make(tmp_path / "images", a=0, b=1)
    script = """
from pathlib import Path
from cv_superpoint.extract import ExtractConfig, extract_folder
print("begin")
report = extract_folder(Path("images"), Path(OUTPUT), ExtractConfig(max_keypoints=20, threads=1))
print(report.images)
"""
    (tmp_path / "script.py").write_text(script.replace("OUTPUT", "'file.h5'"), encoding="utf-8")
    for command, text in (
        ([sys.executable, "script.py"], None),
        ([sys.executable, "-"], script.replace("OUTPUT", "'input.h5'")),
        ([sys.executable, "-c", script.replace("OUTPUT", "'command.h5'")], None),
    ):
        done = subprocess.run(
            command, cwd=tmp_path, input=text, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("begin\n2\n", "")


def test_the_old_name_of_readers_is_deprecated(tmp_path: Path) -> None:
    make(tmp_path / "images", a=0)
    with pytest.warns(DeprecationWarning, match="processes is called readers now"):
        extract_folder(tmp_path / "images", tmp_path / "f.h5", CONFIG, processes=0)


def test_a_file_is_read_again_only_where_its_times_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = fingerprint(path)
    assert before.ctime_ns == 0  # written just now: a change might have the same time
    assert before.describes(path)
    found = path.stat()
    known = Fingerprint(
        sha256="of another content", size=3, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns
    )
    assert known.describes(path)  # not read
    os.utime(path, (1, 1))
    assert not known.describes(path)  # read
    assert before.describes(path)
    path.write_bytes(b"two")
    assert not before.describes(path)


def test_a_damaged_output_is_one_error(tmp_path: Path) -> None:
    output = tmp_path / "features.h5"
    make(tmp_path / "images", a=0, b=1)
    extract(tmp_path / "images", output)
    whole, random, refused = output.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(3000, size=3):
            damaged[place] = random.integers(256)
        output.write_bytes(damaged)
        try:
            extract(tmp_path / "images", output)
        except ExtractError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("before", "after"),
    [('"sha256"', '"sha25"'), ('"broken": {}', '"broken": 3'), ('"a.png": [', '"a.png": [[], ')],
)
def test_damaged_notes_of_a_shard_are_one_error(before: str, after: str, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    make(tmp_path / "images", a=0)
    extract(tmp_path / "images", output)
    (notes,) = output.glob("0*.json")
    text = notes.read_text(encoding="utf-8")
    assert before in text
    notes.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ExtractError, match="not the notes of a shard"):
        extract(tmp_path / "images", output)


def test_what_the_output_says_of_itself(tmp_path: Path) -> None:
    """Texts have a fixed length, because damaged ones of any length make the HDF5 library loop."""
    output = tmp_path / "features.h5"
    make(tmp_path / "images", a=0)
    extract(tmp_path / "images", output)
    with h5py.File(output, "r+") as file:
        for item in (file, file["a.png"]):
            assert item.attrs.get_id(store.ATTRIBUTE).dtype.kind == "S"
            item.attrs[store.ATTRIBUTE] = item.attrs[store.ATTRIBUTE].decode()  # as it was
    assert extract(tmp_path / "images", output).resumed == 1
