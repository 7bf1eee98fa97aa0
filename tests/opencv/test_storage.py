"""Files of parameters: OpenCV's formats, put in place whole, damaged ones named."""

from __future__ import annotations

import gzip
import resource
import signal
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from pinned import PINNED

from cv_superpoint import FeatureError, SuperPointFeature2D
from cv_superpoint.opencv import storage

NAMES = ("a.yml", "a.yaml", "a.xml", "a.json", "a.JSON", "a", "a.txt", ".xml")
COMPRESSED = ("a.gz", "a.yml.gz", "a.xml.gz", "a.json.gz", "a.json.gz9", "a.yml.gz0", "a.json.GZ")


@pytest.mark.parametrize("name", [*NAMES, *COMPRESSED])
def test_a_file_is_what_opencv_writes_under_its_name(tmp_path: Path, name: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    detector = SuperPointFeature2D.create(**PINNED, scales=(1.0, 0.5))
    detector.save(str(ours / name))
    opened = cv2.FileStorage(str(theirs / name), cv2.FILE_STORAGE_WRITE)
    detector.write(opened, "node")
    opened.release()
    (written,), (expected,) = ours.iterdir(), theirs.iterdir()
    assert written.name == expected.name
    both = [each.read_bytes() for each in (written, expected)]
    assert both[0][:4] == both[1][:4]
    whole = cv2.FileStorage(str(written), cv2.FILE_STORAGE_READ)
    assert whole.getNode("name").string() == "Feature2D.SuperPoint"
    starts = [(gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each)[:5] for each in both]
    assert starts[0] == starts[1]


@pytest.mark.parametrize("name", ["a?.yml", "a?base64.yml.gz", "two\nlines.json", "ü.xml"])
def test_parameters_go_under_any_name(tmp_path: Path, name: str) -> None:
    saved = SuperPointFeature2D.create(**PINNED, borderMargin=9)
    saved.save(str(tmp_path / name))
    assert [each.name for each in tmp_path.iterdir()] == [name]
    read = SuperPointFeature2D.create(**PINNED)
    read.read(str(tmp_path / name))
    assert read.getBorderMargin() == 9


def test_parameters_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("old", encoding="utf-8")
    detector = SuperPointFeature2D.create(**PINNED)
    signals = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(FeatureError, match=r"for writing: .*File too large"):
            detector.save(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signals)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["yml", "json", "xml", "yml.gz"])
def test_damaged_parameters_are_one_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    detector = SuperPointFeature2D.create(**PINNED, scales=(1.0, 0.5))
    detector.save(str(path))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        if random.integers(2):
            damaged = damaged[: random.integers(len(whole))]
        else:
            for place in random.integers(len(whole), size=3):
                damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with suppress(FeatureError):
            storage.read(str(path))
