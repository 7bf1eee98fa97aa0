"""How long a film is, and whether it is whole: by its own tables, not by guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_films import film, header_first, shown, turned, with_edits

from cv_superpoint.matching.tracking import Video
from cv_superpoint.pictures.video_length import length_of

HALF = 6 * 512
"""A moment of the medium: frame 6, in units of 1/15360 s."""


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("edits", "frames"),
    [
        ([(400, 0)], 12),  # all of it
        ([(200, 0)], 6),  # the end is trimmed
        ([(200, HALF)], 6),  # the beginning is
        ([(100, 4 * 512)], 3),  # both are
        ([(210, 0)], 7),  # within a frame
        ([(190, 100)], 5),
        ([(100, 0), (100, HALF)], 6),  # the middle is
        ([(200, 0), (200, 0)], 12),  # one part twice
        ([(300, -1), (400, 0)], 12),  # a pause before it
        ([(300, -1), (200, 0)], 6),
        ([(9000, 0)], 12),  # longer than the film
        ([(10, 0)], 1),
    ],
)
def test_films_trimmed_by_an_edit_list_are_whole(
    edits: list[tuple[int, int]], frames: int, version: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(with_edits(film(path), edits, version))
    assert len(shown(path)) == frames
    video = Video(str(path))
    assert video.expected == frames
    assert sum(1 for _ in video) == frames
    assert video.why_short(frames) == ""


def test_a_trimmed_film_may_miss_a_frame_at_each_cut_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(with_edits(film(path), [(100, 0), (200, HALF)]))
    video = Video(str(path))
    assert video.expected == 9
    assert video.why_short(7) == ""
    assert video.why_short(6) == "the others are damaged"


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.avi", "MJPG")]
)
def test_whole_films_state_their_frames(name: str, code: str, tmp_path: Path) -> None:
    film(tmp_path / name, code=code)
    length = length_of(tmp_path / name, 12)
    assert (length.frames, length.slack, length.ends_early) == (12, 0, False)
    video = Video(str(tmp_path / name))
    assert (video.expected, video.why_short(12), video.why_short(11)) == (
        *(12, "", "the others are damaged"),
    )


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "MJPG"), ("a.webm", "VP80")]
)
def test_films_that_are_cut_short(name: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / name
    data = film(path, code=code)
    data = header_first(data) if name == "a.mp4" else data
    path.write_bytes(data)
    assert not length_of(path, 12).ends_early
    path.write_bytes(data[: len(data) * 6 // 10])
    video = Video(str(path))
    count = sum(1 for _ in video)
    assert 0 < count < 12
    assert video.why_short(count) == "the file is cut short"


def test_a_trimmed_film_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    data = header_first(with_edits(film(path), [(300, 0)]))
    path.write_bytes(data[: len(data) * 5 // 10])
    video = Video(str(path))
    assert video.expected == 9
    assert video.why_short(sum(1 for _ in video)) == "the file is cut short"


def test_a_number_that_is_a_guess_is_no_promise(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"  # its number of frames is made of duration and rate
    film(path, code="MJPG")
    video = Video(str(path))
    assert length_of(path, 12).frames is None
    assert video.expected == 12
    assert video.why_short(11) == ""


def test_a_frame_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    data = bytearray(film(path, code="MJPG"))
    frame = data.index(b"00dc", data.index(b"00dc") + 4) + 8
    size = int.from_bytes(data[frame - 4 : frame], "little")
    data[frame : frame + size] = bytes(size)
    path.write_bytes(data)
    video = Video(str(path))
    count = sum(1 for _ in video)
    assert count < 12
    assert video.why_short(count) == "the others are damaged"


def test_frames_stand_upright_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(turned(film(path)))
    upright, stored = (next(iter(Video(str(path), upright=each))) for each in (True, False))
    assert (upright.shape, stored.shape) == ((128, 96, 3), (96, 128, 3))
    np.testing.assert_array_equal(np.rot90(stored, -1), upright)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\0\0\0\0moov", b"\x1a\x45\xdf\xa3", b"text"])
def test_other_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    length_of(tmp_path / "a", 5)
    assert length_of(tmp_path / "none", 5).frames is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_tables_never_raise(tmp_path: Path, data: st.DataObject) -> None:
    source = tmp_path / "whole.mp4"
    whole = bytearray(source.read_bytes() if source.exists() else film(source, frames=3))
    movie = whole.index(b"moov")
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(movie, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.mp4").write_bytes(whole[: data.draw(st.integers(movie, len(whole)))])
    length = length_of(tmp_path / "a.mp4", 3)
    assert length.frames is None or 0 <= length.frames <= 3
