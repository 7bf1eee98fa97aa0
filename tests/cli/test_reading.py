"""Pictures from files and to files: cut short, turned, impossible to write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint.errors import PictureError
from cv_superpoint.files import WriteError
from cv_superpoint.pictures.completeness import is_cut_short
from cv_superpoint.pictures.reading import read_picture, write_picture


@pytest.mark.parametrize(
    "options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]]
)
def test_cut_jpegs_are_noticed(options: list[int]) -> None:
    photograph = skimage.data.chelsea()
    data = cv2.imencode(".jpg", photograph, options)[1].tobytes()
    assert not is_cut_short(data)
    assert not is_cut_short(data + b"\xff\xda trailer of a phone \xff\xda")
    for length in range(4, len(data) - 2, 997):
        assert is_cut_short(data[:length]), length


def test_cut_pngs_are_noticed(tmp_path: Path) -> None:
    data = cv2.imencode(".png", skimage.data.chelsea())[1].tobytes()
    assert not is_cut_short(data)
    (tmp_path / "a.png").write_bytes(data[:-1000])
    with pytest.raises(PictureError, match="cut short"):
        read_picture(tmp_path / "a.png")


def test_turned_photographs_stand_upright_unless_asked(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", skimage.data.chelsea())[1].tobytes()
    # An EXIF block that says: turned by 90 degrees.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "turned.jpg").write_bytes(data[:2] + block + data[2:])
    assert read_picture(tmp_path / "turned.jpg").shape == (451, 300, 3)
    assert read_picture(tmp_path / "turned.jpg", upright=False, grey=True).shape == (300, 451)


def test_pictures_that_cannot_be_written(tmp_path: Path) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(PictureError, match="no picture format that OpenCV writes"):
        write_picture(tmp_path / "a.xyz", picture)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WriteError, match="Not a directory"):
        write_picture(tmp_path / "file" / "a.png", picture)
