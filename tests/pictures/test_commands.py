"""The commands read pictures and films by one rule, and tell what was done to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_files import RGB, tiff, upright, with_orientation
from made_films import film, turned, with_edits
from train.evaluate.datasets import read_grey

from cv_superpoint.cli import main
from train.data.images import ImageConfig, load_image

KINDS = {"JPEG": "a.jpg", "PNG": "b.png", "WEBP": "c.webp", "TIFF": "d.tif"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One picture in four formats, each lying on its side, and upright as it is shown."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for kind, name in KINDS.items():
        (folder / name).write_bytes(with_orientation(kind, 6))
    cv2.imwrite(str(folder / "e.png"), upright(6))
    return folder


def run(capfd: Any, *arguments: Any, code: int = 0) -> tuple[Any, str]:
    """The JSON object that a command prints, and its standard error."""
    returned = main([*map(str, arguments), "--json"])
    output = capfd.readouterr()
    assert returned == code, output
    return json.loads(output.out), output.err


@pytest.mark.parametrize("stands", [True, False])
def test_detect_sees_every_format_alike(
    stands: bool, pictures: Path, tmp_path: Path, capfd: Any
) -> None:
    options = ["-o", tmp_path / "out", "--format", "npz", "--no-overlay", "-k", 20]
    report, _ = run(capfd, "detect", pictures, *options, *([] if stands else ["--no-upright"]))
    assert [each["turned"] for each in report["images"]] == [stands] * 4 + [False]
    found = {}
    for each in report["images"]:
        name = Path(each["image"]).name
        with np.load(tmp_path / "out" / f"{name}.npz") as file:
            found[name] = file["keypoints"], file["image_size"].tolist()
    sizes = [size for _, size in found.values()]
    assert sizes == [[210, 160] if stands else [160, 210]] * 4 + [[210, 160]]
    for name in ("c.webp", "d.tif"):  # without the losses of a JPEG
        np.testing.assert_array_equal(found[name][0], found["b.png"][0])
    if stands:
        np.testing.assert_array_equal(found["b.png"][0], found["e.png"][0])


def test_match_stands_upright_unless_asked(pictures: Path, tmp_path: Path, capfd: Any) -> None:
    both = pictures / "d.tif", pictures / "e.png"
    options = ["-o", tmp_path / "out", "-k", 100]
    report, _ = run(capfd, "match", *both, *options)
    np.testing.assert_allclose(report["homography"], np.eye(3), atol=1e-3)
    assert [each["turned"] for each in report["pictures"]] == [True, False]
    report, _ = run(capfd, "match", *both, *options, "--no-upright", "--rotations", 0, 90, 270)
    assert report["rotation"] in (90, 270)
    assert [each["turned"] for each in report["pictures"]] == [False, False]


def test_training_and_evaluation_stand_upright(pictures: Path) -> None:
    for name in ("b.png", "c.webp", "d.tif"):
        colour = load_image(
            pictures / name, ImageConfig(shorter_side=160, longest_side=208, colour=True)
        )
        np.testing.assert_array_equal(colour[..., ::-1], upright(6)[1:209])
        grey = cv2.cvtColor(upright(6), cv2.COLOR_BGR2GRAY)
        np.testing.assert_allclose(read_grey(pictures / name), grey, atol=1)


def test_values_of_more_bits_are_told(tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    cv2.imwrite(str(folder / "8.png"), bgr)
    cv2.imwrite(str(folder / "12.png"), bgr.astype(np.uint16) << 4)
    warm = tiff(27315 + RGB.astype(np.uint16) * 10, photometric="rgb")
    (folder / "warm.tif").write_bytes(warm)
    arguments = ["detect", folder, "-o", tmp_path / "out", "--no-overlay"]
    report, errors = run(capfd, *arguments)
    notes = {Path(each["image"]).name: each["notes"] for each in report["images"]}
    assert notes == {
        "12.png": ["uint16 values, the upper 8 of 12 bits taken"],
        "8.png": [],
        "warm.tif": ["uint16 values, 27315 to 29795 spread over 0 to 255"],
    }
    counts = {Path(each["image"]).name: each["keypoints"] for each in report["images"]}
    assert counts["8.png"] == counts["12.png"] > 20
    assert counts["warm.tif"] >= 0.9 * counts["8.png"]
    assert errors == ""
    assert main([*map(str, arguments)]) == 0
    assert "12.png: uint16 values, the upper 8 of 12 bits taken\n" in capfd.readouterr().out


def test_a_jpeg_without_its_end_mark_is_read_with_a_warning(tmp_path: Path, capfd: Any) -> None:
    data = with_orientation("JPEG", 1)
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    arguments = ["detect", tmp_path / "a.jpg", "-o", tmp_path / "out", "-k", 5]
    report, errors = run(capfd, *arguments)
    assert report["broken"] == []
    assert report["images"][0]["notes"] == ["the file lacks its end mark, but every row is there"]
    lines = [line for line in errors.splitlines() if not line.startswith("Corrupt JPEG data")]
    assert lines == [
        f"warning: {tmp_path / 'a.jpg'}: the file lacks its end mark, but every row is there"
    ]
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    report, errors = run(capfd, *arguments, code=1)
    assert "the file is cut short; copy it again" in errors


def test_track_ends_normally_where_an_edit_list_says(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(turned(with_edits(film(path), [(200, 0)])))
    arguments = ["track", path, "-o", tmp_path / "tracks.avi", "-k", 30]
    report, errors = run(capfd, *arguments)
    assert (report["frames"], report["expected"]) == (6, 6)
    assert "warning" not in errors
    sizes = []
    for options in ([], ["--no-upright"]):
        run(capfd, *arguments, "--frames", 1, *options)
        sizes.append(cv2.VideoCapture(str(tmp_path / "tracks.avi")).read()[1].shape[:2])
    assert sizes == [(128, 96), (96, 128)]
