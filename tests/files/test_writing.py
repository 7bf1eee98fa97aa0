"""Files that take their place whole or not at all, under names of every kind."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cv_superpoint.files import WriteError, replace_file, replacing, write_file
from cv_superpoint.files.guard import OverwriteError, is_inside, keep_inputs
from cv_superpoint.files.writing import sweep


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_file(path, b"old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("length", [100, 226, 255])
@pytest.mark.parametrize("letter", [b"x", "é".encode(), b"\xe9"], ids=["ascii", "two", "none"])
def test_names_as_long_as_the_disk_allows(tmp_path: Path, length: int, letter: bytes) -> None:
    """The length is in bytes: names of two bytes a letter, and names that are no UTF-8, count
    alike."""
    name = os.fsdecode((letter * length)[: length - length % len(letter)])
    write_file(tmp_path / "folder" / name, b"new")
    assert (tmp_path / "folder" / name).read_bytes() == b"new"
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_a_name_that_is_too_long_says_so_before_the_work(tmp_path: Path) -> None:
    begun = []
    with (
        pytest.raises(WriteError, match="File name too long; take a shorter name") as caught,
        replacing(tmp_path / ("x" * 256)),
    ):
        begun.append(True)
    assert not begun
    assert caught.value.is_about_the_name
    assert isinstance(caught.value, (OSError, ValueError))


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, says, number in (
        ("file/a", "Not a directory; a file stands where a folder is needed", errno.ENOTDIR),
        ("folder", "Is a directory; it is a folder; name a file in it", errno.EISDIR),
        ("pipe", "a pipe, a socket or a device; name a file", None),
        ("loop", "Too many levels of symbolic links", errno.ELOOP),
    ):
        with pytest.raises(WriteError, match=says) as caught:
            write_file(tmp_path / name, b"new")
        assert str(tmp_path / name) in str(caught.value) or name == "file/a"
        assert caught.value.errno == number
    with pytest.raises(WriteError, match="make its folder first"):
        replace_file(tmp_path / "none" / "a", b"new")
    with pytest.raises(WriteError, match="a pipe, a socket or a device"):
        replace_file("/dev/null", b"new")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_links_are_followed_and_permissions_kept(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o600)
    link.symlink_to("disk/real")
    replace_file(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    ahead = tmp_path / "ahead"
    ahead.symlink_to("disk/later")
    replace_file(ahead, b"new")
    assert (tmp_path / "disk" / "later").read_bytes() == b"new"


def test_a_full_disk_is_told_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    replace_file(path, b"old")
    script = f"""
import resource, signal
from cv_superpoint.files import WriteError, replace_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
try:
    replace_file({str(path)!r}, bytes(2000))
except WriteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"{path}: File too large" in done.stdout, done.stderr
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(("size", "stays"), [(1000, True), (2**20, False)])
def test_a_large_file_removes_what_killed_processes_left(
    size: int, stays: bool, tmp_path: Path
) -> None:
    script = f"""
import os
from cv_superpoint.files import replacing
with replacing({str(tmp_path / "a.onnx")!r}) as part:
    part.write_bytes(bytes(1000))
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    replace_file(tmp_path / "a.onnx", bytes(size))
    assert left.exists() == stays


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    script = f"""
import os
from cv_superpoint.files import replacing
with replacing({str(tmp_path / "a.bin")!r}, ".avi") as part:
    part.write_bytes(bytes(1000))
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    theirs = [f".0123abcd-{os.getpid()}-01234567.part", ".hidden", "a.part", ".1-2.part"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"")
    with (
        replacing(tmp_path / "other.bin") as mine,
        replacing(tmp_path / "b.bin", large=True) as part,
    ):
        mine.write_bytes(b"")
        part.write_bytes(b"")
        assert not left.exists()
        assert mine.exists()
    os.utime(tmp_path / theirs[0], (1, 1))  # of another machine, a day ago
    sweep(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [*theirs[1:], "b.bin", "other.bin"]
    )


def test_threads_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    replace_file(path, contents[0])
    seen = set()

    def write(data: bytes) -> None:
        for _ in range(20):
            replace_file(path, data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.add(path.read_bytes())
    assert seen <= set(contents)
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


def test_no_output_is_an_input_by_any_name(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"pixels")
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "hard.png").hardlink_to(picture)
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "deep").mkdir()
    names = ("a.png", "./a.png", "link.png", "hard.png", "folder/a.png", "deep/../a.png")
    for name in names:
        with pytest.raises(OverwriteError, match="is an input and would be overwritten"):
            keep_inputs([picture], [tmp_path / "new.png", f"{tmp_path}/{name}"])
    keep_inputs([picture, tmp_path / "none.png"], [tmp_path / "new.png", tmp_path / "none.png"])


def test_what_lies_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    assert is_inside(tmp_path / "link" / "b" / "new", tmp_path / "a")
    assert is_inside(tmp_path / "a", tmp_path / "link")
    assert not is_inside(tmp_path, tmp_path / "a")
    assert not is_inside(tmp_path / "a", tmp_path / "none")
