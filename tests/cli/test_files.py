"""Names, folders and outputs of every kind: a command loses nothing and passes over nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.cli import PROGRAM, main
from cv_superpoint.cli.arguments import positionals_first
from cv_superpoint.files.names import shown
from cv_superpoint.pictures.reading import read_picture

names_in_utf8 = pytest.mark.skipif(
    sys.getfilesystemencoding() != "utf-8", reason="names of files are not in UTF-8 here"
)
FEW = ("-k", "20", "--threshold", "0", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two small photographs."""
    monkeypatch.chdir(tmp_path)
    coffee = skimage.data.coffee()[..., ::-1]
    cv2.imwrite("a.png", coffee[100:196, 200:328])
    cv2.imwrite("b.jpg", coffee[120:216, 230:358])
    return tmp_path


def report(capfd: Any) -> Any:
    return json.loads(capfd.readouterr().out)


@names_in_utf8
def test_names_of_every_kind(folder: Path, capfd: Any) -> None:
    data = (folder / "b.jpg").read_bytes()
    odd = os.fsdecode(b"caf\xe9.jpg")
    long = "x" * 222 + ".jpg"
    too_long = "y" * 246 + ".jpg"  # its table has a name, its picture of the keypoints has none
    for name in ("thumbs.jpg/c.jpg", odd, long, too_long, "new\nline.jpg", "\x1b[2Jclear.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "broken.jpg").symlink_to("nowhere")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    assert main(["detect", ".", "-o", "out", *FEW]) == 3
    for name in ("a.png", "b.jpg", "thumbs.jpg/c.jpg", odd, long, "new\nline.jpg"):
        assert (folder / "out" / f"{name}.csv").read_bytes().startswith(b"x,y,score,size\n"), name
        assert read_picture(f"out/{name}.keypoints.png").shape == (96, 128, 3)
    said = capfd.readouterr()
    assert said.err.count("\n") == said.err.count("warning: left out: ") == 4
    assert "pipe.jpg: a pipe, not a file" in said.err
    assert "broken.jpg: a link to nowhere, which is not there" in said.err
    assert "photo.heic: a HEIC picture, which this OpenCV cannot decode" in said.err
    assert f"{too_long}.keypoints.png: File name too long" in said.err
    assert "caf\\xe9.jpg: 20 keypoints" in said.out
    assert "new\\nline.jpg: 20 keypoints" in said.out
    assert "\x1b" not in said.out
    assert main(["detect", ".", "-o", "other", "--json", *FEW]) == 3
    found = {each["image"] for each in report(capfd)["images"]}
    assert {odd, "new\nline.jpg", long} < found
    assert not any("keypoints.png" in name for name in found)


@names_in_utf8
def test_a_stream_that_knows_no_letters_stops_nothing(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "a.png").read_bytes())
    (folder / "Größe.png").write_bytes((folder / "a.png").read_bytes())
    command = [sys.executable, "-m", "cv_superpoint", "detect", ".", *FEW]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"caf\\xe9.png: 20 keypoints" in done.stdout
    assert b"Gr\\xf6\\xdfe.png: 20 keypoints" in done.stdout


def test_text_of_names_is_shown_in_one_line() -> None:
    assert shown("Größe 日本 \U0001f600.jpg") == "Größe 日本 \U0001f600.jpg"
    assert shown("\udcff\n\x1b\u202e\u2028") == r"\xff\n\x1b\u202e\u2028"


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (["detect", ".", *FEW], False),
        (["detect", ".", "--json", *FEW], True),
        (["detect", "--help"], False),
        (["--help"], True),
        (["detect", "none.jpg"], True),
    ],
    ids=str,
)
def test_a_reader_that_leaves_is_no_error(folder: Path, arguments: list[str], both: bool) -> None:
    """A closed pipe, as in ``cv-superpoint ... | head`` and ``... 2>&1 | head``, stops no work."""
    command = [sys.executable, "-m", "cv_superpoint", *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    stderr = writing if both else subprocess.PIPE
    done = subprocess.run(command, stdout=writing, stderr=stderr, check=False)
    os.close(writing)
    assert done.returncode == int("none.jpg" in arguments)
    assert not done.stderr
    if arguments[:2] == ["detect", "."]:
        assert len(list(folder.glob("keypoints/*.npz"))) == 2


def test_without_standard_streams(folder: Path) -> None:
    command = f"exec {sys.executable} -m cv_superpoint detect . none.png {' '.join(FEW)} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 1
    command = command.replace("none.png", "")
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert len(list(folder.glob("keypoints/*.npz"))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        "--scales 1 0.5 a.png b.jpg",
        "a.png --scales 1 0.5 b.jpg",
        "a.png b.jpg --scales 1 0.5",
        "--scales 1 0.5 -- a.png b.jpg",
        "a.png -o keypoints b.jpg --no-overlay --scales 1 0.5",
    ],
)
def test_pictures_may_stand_anywhere(folder: Path, arguments: str, capfd: Any) -> None:
    assert main(["detect", "--json", *FEW, *arguments.split()]) == 0
    assert [each["image"] for each in report(capfd)["images"]] == ["a.png", "b.jpg"]
    with np.load("keypoints/a.png.npz") as table:
        assert set(table["octaves"].tolist()) == {0, 1}


@given(
    st.permutations(
        [["--scales", "1", "0.5"], ["-k", "20"], ["--no-overlay"], ["-o", "out"], ["--threads=1"]]
    ),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
)
def test_the_order_of_arguments_means_nothing(options: list[list[str]], places: list[int]) -> None:
    words = [[word] for word in ("a.png", "1.jpg", "b")]
    blocks = list(options)
    for word, place in zip(words, sorted(places), strict=True):
        blocks.insert(place + words.index(word), word)
    given_words = ["detect", *(word for block in blocks for word in block)]
    expected = ["detect", "a.png", "1.jpg", "b", *(word for each in options for word in each)]
    assert positionals_first(given_words, PROGRAM.commands) == expected


def test_other_options_of_any_length(folder: Path, capfd: Any) -> None:
    (folder / "-a.png").write_bytes((folder / "a.png").read_bytes())
    arguments = ["--focal", "100", "120", "a.png", "--rotations", "0", "90", "--", "-a.png"]
    assert main(["match", "--json", *FEW, *arguments]) == 0
    assert report(capfd)["inliers"] == 20


def test_nothing_overwrites_what_it_reads(folder: Path, capfd: Any) -> None:
    film = cv2.VideoWriter("tracks.avi", cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (128, 96))
    for _ in range(3):
        film.write(cv2.imread("a.png"))
    film.release()
    main(["convert", "superpoint", "w.safetensors"])
    (folder / "matches.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "a.png.keypoints.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "link.avi").symlink_to("tracks.avi")
    (folder / "hard.jpg").hardlink_to("b.jpg")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capfd.readouterr()
    for arguments in (
        ["track", "tracks.avi"],
        ["track", "tracks.avi", "-o", "link.avi"],
        ["track", "file:tracks.avi"],
        ["stitch", "a.png", "b.jpg", "-o", "b.jpg"],
        ["stitch", "a.png", "b.jpg", "-o", "./hard.jpg"],
        ["match", "a.png", "matches.png", "-o", "."],
        ["detect", "a.png", "a.png.keypoints.png", "-o", "."],
        ["convert", "w.safetensors", "./w.safetensors"],
        ["convert", "w.safetensors", "w.safetensors", "--to", "magic-leap"],
    ):
        assert main(arguments) == 1, arguments
        error = capfd.readouterr().err
        assert "is an input and would be overwritten; name another output" in error, arguments
        assert error.count("\n") == 1
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


def test_a_second_run_takes_no_picture_of_the_first(folder: Path, capfd: Any) -> None:
    for out in ("keypoints", "keypoints", "other", ".", "."):
        assert main(["detect", ".", "-o", out, "--json", *FEW]) == 0
        assert [each["image"] for each in report(capfd)["images"]] == ["a.png", "b.jpg"]
    assert main(["match", "a.png", "b.jpg", "-o", "matches", *FEW]) in (0, 1)
    assert (folder / "matches" / "matches.png").exists()
    everything = sorted(str(path) for path in folder.rglob("*.[pj][np]g"))
    assert main(["detect", *everything, "-o", "third", *FEW]) == 0
    said = capfd.readouterr().out
    assert "wrote third (2 of 2 pictures)" in said
    assert "passed over what cv-superpoint wrote itself: " in said


def test_a_second_panorama_is_made_of_the_same_pictures(folder: Path, capfd: Any) -> None:
    coffee = np.ascontiguousarray(skimage.data.coffee()[..., ::-1])
    (folder / "in").mkdir()
    cv2.imwrite("in/left.png", coffee[:, :380])
    cv2.imwrite("in/right.png", coffee[:, 200:])
    sizes = []
    for out in ("in/panorama.png", "in/other.png", "in/p.jpg", "in/p.jpg"):
        assert main(["stitch", "in", "-o", out, "--json", "--threads", "1"]) == 0
        if out == "in/p.jpg":  # a JPEG file carries no mark, but it is the output
            (folder / "in/p.jpg").touch()
        sizes.append(report(capfd)["keypoints"])
    assert sizes == [sizes[0]] * 4
    assert len(sizes[0]) == 2
    assert read_picture("in/panorama.png").shape[1] > 450


def test_an_address_that_does_not_answer(capfd: Any) -> None:
    assert main(["track", "rtsp://user:secret@127.0.0.1:1/stream"]) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: rtsp://127.0.0.1: does not answer, or not with a video")
    assert "secret" not in error


def test_an_old_video_stays_until_the_new_one_is_whole(folder: Path, capfd: Any) -> None:
    film = cv2.VideoWriter("film.avi", cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (128, 96))
    for _ in range(3):
        film.write(cv2.imread("a.png"))
    film.release()
    (folder / "tracks.avi").write_bytes(b"old")
    (folder / "tracks.mp4").mkdir()
    assert main(["track", "film.avi", "-o", "tracks.mp4", *FEW]) == 1
    assert "Is a directory" in capfd.readouterr().err
    assert main(["track", "film.avi", *FEW]) == 0
    assert cv2.VideoCapture("tracks.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert sorted(each.name for each in folder.iterdir()) == [
        "a.png", "b.jpg", "film.avi", "tracks.avi", "tracks.mp4",
    ]  # fmt: skip


@names_in_utf8
def test_names_that_opencv_does_not_take_end_no_process(folder: Path, capfd: Any) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / f"{name}.avi").write_bytes(b"film")
    os.mkfifo("pipe.avi")
    for arguments in (
        ["track", f"{name}.avi"],
        ["track", "a.png", "-o", f"{name}.avi"],
        ["track", "a.png", "-o", f"{name}/tracks.avi"],
    ):
        assert main(arguments) == 1
        assert "caf\\xe9" in (said := capfd.readouterr().err)
        assert "OpenCV takes names of videos in UTF-8 only; rename it" in said
    assert main(["stitch", "a.png", "a.png", "-o", os.fsdecode(b"a.\xe9")]) == 1
    detector = SuperPointFeature2D.create(threads=1)
    for call in (detector.save, detector.write, detector.read):
        with pytest.raises(FeatureError, match=r"OpenCV takes file names in UTF-8 only|no file"):
            call(f"{name}.yml")
    assert main(["track", "pipe.avi"]) == 1  # for which OpenCV would wait
    assert "pipe.avi: a pipe; save what comes from it as a file" in capfd.readouterr().err


def test_a_disk_that_fills_up_stops_at_once(folder: Path) -> None:
    """What is about one name leaves one picture out; what is about the disk ends the command."""
    script = f"""
import resource, signal, sys
from cv_superpoint import SuperPointFeature2D
from cv_superpoint.cli import main
from cv_superpoint.files import writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
replace_file = writing.replace_file
def limited(*arguments):  # not before: the network goes through files, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    return replace_file(*arguments)
writing.replace_file = limited
sys.exit(main(["detect", ".", *{FEW!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(folder.glob("keypoints/*.npz"))
    assert not list(folder.glob("keypoints/*.part*"))
