"""A file that lacks only its last mark is read; one that lacks rows is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint.pictures.completeness import is_cut_short, with_end
from cv_superpoint.pictures.reading import PictureError, load_picture, read_picture

CAT = skimage.data.chelsea()[20:250, 40:391]
JPEGS = {
    "sequential": [],
    "coarse": [cv2.IMWRITE_JPEG_QUALITY, 20],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "progressive, restarts": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
    "full colour": [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
    "grey": [],
}


def jpeg(name: str) -> bytes:
    image = CAT[..., 0] if name == "grey" else CAT
    return cv2.imencode(".jpg", image, JPEGS[name])[1].tobytes()


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize(
    ("missing", "more"),
    [
        (2, b""),
        (1, b""),  # half of the mark
        (2, b"\0" * 4096),  # room that was never written to
        (2, b"\xff" * 512),  # the same of a flash memory
        (2, b"\xff\xe1\0\x99Exif"),  # what came after the picture is cut
    ],
)
def test_a_jpeg_without_its_end_mark(name: str, missing: int, more: bytes, tmp_path: Path) -> None:
    data = jpeg(name)
    cut = data[:-missing] + more
    assert is_cut_short(cut)
    (tmp_path / "a.jpg").write_bytes(cut)
    picture = load_picture(tmp_path / "a.jpg")
    np.testing.assert_array_equal(picture.pixels, decoded(data))
    assert "every row is there" in picture.damage


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_rows_is_refused(name: str, tmp_path: Path) -> None:
    data = jpeg(name)
    lengths = [*range(len(data) - 24, len(data) - 4), *range(4, len(data) - 40, 1999)]
    for length in lengths:
        assert is_cut_short(data[:length]), length
        mended = with_end(data[:length])
        if mended is not None:  # some coefficients of the last block, which hardly show
            changed = np.argwhere(decoded(mended) != decoded(data))
            assert np.all(changed[:, :2] >= (230 // 16 * 16 - 16, 351 // 16 * 16 - 16)), length
        assert with_end(data[:length] + bytes(9999)) is None or mended is not None
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match="cut short"):
        load_picture(tmp_path / "a.jpg")


def test_a_progressive_jpeg_without_its_last_scan_is_refused() -> None:
    data = jpeg("progressive")
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    assert with_end(data[:tables]) is None


def test_whole_jpegs_are_left_alone() -> None:
    for name in JPEGS:
        assert not is_cut_short(jpeg(name))
        assert not is_cut_short(jpeg(name) + b"\xff\xda trailer of a phone \xff\xda")


@pytest.mark.parametrize("more", [b"", b"\0\0\0\0IE", b"\0\0\1\0tEXthalf"])
def test_a_png_without_its_end_chunk(more: bytes, tmp_path: Path) -> None:
    data = cv2.imencode(".png", CAT)[1].tobytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + more)
    picture = load_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, CAT)
    assert "every row is there" in picture.damage


def test_a_png_that_lacks_rows_is_refused() -> None:
    data = cv2.imencode(".png", CAT)[1].tobytes()
    for length in [*range(len(data) - 40, len(data) - 12), *range(20, len(data) - 40, 4999)]:
        assert is_cut_short(data[:length])
        assert with_end(data[:length]) is None
    damaged = bytearray(data[:-12])
    damaged[len(damaged) // 2] ^= 255
    assert with_end(bytes(damaged)) is None


def test_what_was_done_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("sequential")[:-2])
    with caplog.at_level(logging.WARNING, "cv_superpoint"):
        read_picture(tmp_path / "a.jpg")
    (record,) = caplog.records
    assert record.getMessage().startswith(str(tmp_path / "a.jpg"))
    assert "lacks its end mark" in record.getMessage()


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".tif", ".webp"])
def test_other_formats_that_end_early_are_refused(suffix: str, tmp_path: Path) -> None:
    data = cv2.imencode(suffix, CAT)[1].tobytes()
    for share in (0.5, 0.99):
        (tmp_path / "a").write_bytes(data[: int(share * len(data))])
        with pytest.raises(PictureError, match="a: "):
            load_picture(tmp_path / "a")
