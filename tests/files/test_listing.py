"""Which pictures a folder holds, and what is said of everything else in it."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_superpoint.errors import PictureError
from cv_superpoint.files import replace_file
from cv_superpoint.files.formats import mark_of, mark_png
from cv_superpoint.files.listing import Listing, list_pictures
from cv_superpoint.files.names import is_text, shown
from cv_superpoint.pictures.reading import read_picture, write_picture

PICTURE = cv2.imencode(".jpg", skimage.data.coffee()[:48, :64])[1].tobytes()


def make(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)


def names(listing: Listing) -> list[str]:
    return [name for _, name in listing.pictures]


def reasons(listing: Listing) -> dict[str, str]:
    return {each.name: each.why for each in listing.left_out}


def test_every_kind_of_entry(tmp_path: Path) -> None:
    make(tmp_path, "b.JPG", "a.jpg", "thumbs.jpg/c.png", "notes.txt", b"\xe9.jpg", "new\nline.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket is short
        server.bind("socket.jpg")
        os.chdir(before)
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "good.jpg").symlink_to("a.jpg")
    make(tmp_path, "raw.NEF")
    listing = list_pictures([tmp_path])
    assert names(listing) == [
        "a.jpg", "b.JPG", "good.jpg", "new\nline.jpg", "thumbs.jpg/c.png", os.fsdecode(b"\xe9.jpg"),
    ]  # fmt: skip
    assert reasons(listing) == {
        "broken.jpg": "a link to nowhere.jpg, which is not there",
        "loop.jpg": "a link that leads to itself",
        "pipe.jpg": "a pipe, not a file",
        "socket.jpg": "a socket, not a file",
        "zero.jpg": "a device, not a file",
        "raw.NEF": "a camera's raw file (NEF), of which OpenCV reads the small preview at most; "
        "develop it to PNG or JPEG",
    }
    assert [name for _, name in listing.others] == ["notes.txt"]
    for path, _ in listing.pictures:
        assert read_picture(path).shape == (48, 64, 3)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """Names are those of the real places; a ring of links ends."""
    make(tmp_path, "in/z/a.jpg", "in/z/b.jpg", "elsewhere/c.jpg")
    (tmp_path / "in" / "first").symlink_to("z")
    (tmp_path / "in" / "ring").symlink_to(".")
    (tmp_path / "in" / "z" / "up").symlink_to("..")
    (tmp_path / "in" / "far").symlink_to("../elsewhere")
    assert names(list_pictures([tmp_path / "in"])) == ["far/c.jpg", "z/a.jpg", "z/b.jpg"]


def test_a_folder_that_cannot_be_entered_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:  # others than root may enter those above it
        folder = Path(name)
        make(folder, "a.jpg", "closed/b.jpg")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        try:
            if os.getuid() == 0:  # root may enter everything
                os.seteuid(65534)
            listing = list_pictures([folder])
        finally:
            os.seteuid(os.getuid())
            (folder / "closed").chmod(0o755)
    assert names(listing) == ["a.jpg"]
    assert reasons(listing) == {"closed/": "the folder cannot be read (Permission denied)"}


def test_named_files(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "no_ending", "deep/a.jpg")
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / name for name in ("no_ending", "a.jpg", "pipe", "a.jpg", "deep/a.jpg")]
    listing = list_pictures(paths)
    assert names(listing) == ["no_ending", "a.jpg", "a.jpg"]  # one file named twice is one
    assert reasons(listing) == {"pipe": "a pipe, not a file"}
    with pytest.raises(PictureError, match=r"none\.jpg: there is no such file or folder"):
        list_pictures([tmp_path / "none.jpg"])
    with pytest.raises(PictureError, match=r"x: cannot be read \(File name too long"):
        list_pictures([tmp_path / ("x" * 300)])
    with pytest.raises(PictureError, match=r"no picture to read .*pipe: a pipe, not a file"):
        list_pictures([tmp_path / "pipe"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="there is no picture in this folder"):
        list_pictures([tmp_path / "a.jpg", tmp_path / "empty"])


def test_the_order_is_that_of_the_folders(tmp_path: Path) -> None:
    make(tmp_path, "a-b/x.jpg", "a/x.jpg", "a.jpg", "a/b/x.jpg")
    assert names(list_pictures([tmp_path])) == ["a/b/x.jpg", "a/x.jpg", "a-b/x.jpg", "a.jpg"]


def test_own_pictures_are_no_input(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "out/b.jpg")
    picture = np.zeros((8, 8, 3), np.uint8)
    write_picture(tmp_path / "a.jpg.keypoints.png", picture, made="drawing")
    write_picture(tmp_path / "panorama.png", picture, made="panorama")
    write_picture(tmp_path / "photograph.png", picture)
    for path, kind in (("a.jpg.keypoints.png", "drawing"), ("panorama.png", "panorama")):
        assert mark_of(tmp_path / path) == kind
        assert not cv2.imread(str(tmp_path / path)).any()  # every reader takes it
    assert names(list_pictures([tmp_path])) == [
        "a.jpg",
        "out/b.jpg",
        "panorama.png",
        "photograph.png",
    ]
    without = frozenset({"drawing", "panorama"})
    listing = list_pictures([tmp_path], output=tmp_path / "out", without=without)
    assert names(listing) == ["a.jpg", "photograph.png"]
    assert {each.name for each in listing.own} == {"a.jpg.keypoints.png", "out", "panorama.png"}
    # What is named is wanted, but for drawings, which a pattern of the shell names with the others.
    everything = sorted(tmp_path.glob("*.*"))
    assert names(list_pictures(everything, without=without)) == [
        "a.jpg", "panorama.png", "photograph.png",
    ]  # fmt: skip
    with pytest.raises(PictureError, match="written by cv-superpoint itself"):
        list_pictures([tmp_path / "a.jpg.keypoints.png"])


def test_the_output_is_no_input_of_its_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "panorama.jpg")
    (tmp_path / "link.jpg").symlink_to("panorama.jpg")
    listing = list_pictures([tmp_path], output=tmp_path / "panorama.jpg")
    assert names(listing) == ["a.jpg"]
    # A run whose results lie beside the pictures searches its folder all the same.
    assert len(list_pictures([tmp_path], output=tmp_path).pictures) == 3


def test_a_mark_changes_no_pixel() -> None:
    data = cv2.imencode(".png", skimage.data.chelsea())[1].tobytes()
    marked = mark_png(data, "drawing")
    assert marked != data
    decoded = cv2.imdecode(np.frombuffer(marked, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, skimage.data.chelsea())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "a HEIC picture, which this OpenCV"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), "a HEIC picture, which this OpenCV"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(100), "an AVIF picture, which this OpenCV"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "a JPEG 2000 picture, which this OpenCV"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "a JPEG XL picture, which this OpenCV"),
        (b"GIF89a" + bytes(100), "a GIF picture"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(4), "a WebP picture"),
        (b"II*\0" + bytes(100), "a TIFF picture"),
        (b"\0\x05\x16\x07" + bytes(100), "what macOS keeps beside a picture"),
        (b"%PDF-1.7" + bytes(100), "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
        (bytes(1000), "nothing but zeros"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "a film"),
        (b"some words", "not a picture that OpenCV can read"),
    ],
)
def test_what_is_no_picture_is_told_by_its_bytes(
    tmp_path: Path, content: bytes, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_reading_never_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PictureError, match="a pipe, not a file"):
        read_picture(tmp_path / "pipe.jpg")
    (tmp_path / "memory.jpg").symlink_to("/proc/self/mem")  # it cannot be read from its start
    with pytest.raises(PictureError, match=r"cannot be read \(Input/output error"):
        read_picture(tmp_path / "memory.jpg")


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=251).filter(lambda name: not {0, 47} & set(name)))
def test_any_name_is_listed_read_shown_and_stored(stem: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, stem + b".jpg")
        ((path, listed),) = list_pictures([folder]).pictures
        assert os.fsencode(listed) == stem + b".jpg"
        assert read_picture(path).shape == (48, 64, 3)
        assert json.loads(json.dumps(listed)) == listed
        text = shown(listed)
        assert len(text.splitlines()) == 1
        assert is_text(text)
        if is_text(listed) and listed.isprintable():
            assert text == listed
        replace_file(path, b"new")
        assert [each.name for each in folder.iterdir()] == [listed]
