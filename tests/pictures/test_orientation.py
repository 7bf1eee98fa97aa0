"""A picture stands upright, or lies as it is stored, by one rule for every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import RGB, tiff, upright, with_orientation

from cv_superpoint.pictures.containers import tiff_directory
from cv_superpoint.pictures.orientation import (
    orientation,
    stored_points,
    turn,
    without_orientation,
)
from cv_superpoint.pictures.reading import load_picture, read_picture

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def close(picture: np.ndarray, expected: np.ndarray) -> bool:
    """The same pixels, but for the losses of JPEG and AVIF."""
    if picture.shape != expected.shape:
        return False
    return bool(np.abs(picture.astype(int) - expected).mean() < 3)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_and_orientation(kind: str, value: int, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(with_orientation(kind, value))
    stored = load_picture(path, upright=False)
    assert close(stored.pixels, RGB[..., ::-1])
    assert not stored.turned
    shown = load_picture(path)
    assert close(shown.pixels, upright(value))
    assert shown.turned == (value > 1)
    grey = read_picture(path, grey=True)
    assert grey.shape == shown.pixels.shape[:2]
    assert grey.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"tile": (32, 32)}])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_tiffs_of_every_make(
    kind: str, options: dict[str, object], byteorder: str, tmp_path: Path
) -> None:
    # OpenCV turns these on its own, whether they are of 8 bits or not.
    grey = RGB[..., 1]
    values = {"uint8": grey, "uint16": grey.astype(np.uint16) * 257, "float32": grey / 255}[kind]
    extra = [(274, "H", 1, 6, True)]
    data = tiff(values.astype(kind), byteorder=byteorder, extratags=extra, **options)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    assert orientation(data) == 6
    np.testing.assert_array_equal(read_picture(path, grey=True, upright=False), grey)
    np.testing.assert_array_equal(read_picture(path, grey=True), np.rot90(grey, -1))


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_that_does_not_exist_means_upright(kind: str, value: int) -> None:
    assert orientation(with_orientation(kind, value)) == 1


def test_a_png_block_with_the_prefix_of_a_jpeg_counts() -> None:
    data = with_orientation("PNG", 6)
    start = data.index(b"eXIf")
    size = int.from_bytes(data[start - 4 : start], "big")
    block = b"Exif\0\0" + data[start + 4 : start + 4 + size]
    changed = data[: start - 4] + len(block).to_bytes(4, "big") + b"eXIf" + block
    assert orientation(changed + data[start + 4 + size :]) == 6


def test_the_block_of_another_application_does_not_hide_it() -> None:
    data = with_orientation("JPEG", 8)
    other = b"\xff\xe1" + (30).to_bytes(2, "big") + b"http://ns.adobe.com/xap/1.0/"[:28]
    assert orientation(data[:2] + other + data[2:]) == 8


def test_only_the_orientation_of_a_tiff_is_taken_out() -> None:
    data = with_orientation("TIFF", 6)
    other = without_orientation(data)
    assert orientation(other) == 1
    changed = [index for index in range(len(data)) if data[index] != other[index]]
    assert changed == [tiff_directory(data)[274].position]
    jpeg = with_orientation("JPEG", 6)
    assert without_orientation(jpeg) == jpeg


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_turns_keep_the_channels(channels: int | None) -> None:
    shape = (3, 5) if channels is None else (3, 5, channels)
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for value in range(1, 9):
        turned = turn(image, value)
        assert turned.size == image.size
        assert turned.shape[:2] == ((3, 5) if value < 5 else (5, 3))


@given(st.integers(1, 8), st.integers(1, 7), st.integers(1, 7), st.data())
def test_points_find_their_pixel_again(
    value: int, height: int, width: int, data: st.DataObject
) -> None:
    image = np.zeros((height, width), np.uint8)
    row = data.draw(st.integers(0, height - 1))
    column = data.draw(st.integers(0, width - 1))
    image[row, column] = 255
    points = np.argwhere(turn(image, value))[:, ::-1].astype(np.float32)
    back = stored_points(points, (height, width), value)
    assert back.tolist() == [[column, row]]
    assert back.dtype == np.float32


@given(st.sampled_from(KINDS), st.data())
def test_damaged_headers_never_raise(kind: str, data: st.DataObject) -> None:
    whole = bytearray(with_orientation(kind, 6, RGB[:16, :16]))
    for _ in range(data.draw(st.integers(1, 6))):
        index = data.draw(st.integers(0, len(whole) - 1))
        whole[index] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert 1 <= orientation(damaged) <= 8
    assert len(without_orientation(damaged)) == len(damaged)


@given(st.binary(max_size=300), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]))
def test_any_directory_is_read(rest: bytes, start: bytes) -> None:
    for entry in tiff_directory(start + rest).values():
        assert entry.position + entry.width <= len(start + rest)
