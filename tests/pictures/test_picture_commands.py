"""The commands read pictures and films by one rule, and tell what was done to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from made_files import RGB, tiff, upright, with_orientation
from made_films import film, turned, with_edits

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.cli import main
from cv_superpoint.evaluation.datasets import read_grey
from cv_superpoint.pictures.reading import read_picture
from train.data.images import ImageConfig, load_image

KEYPOINTS = ("--max-keypoints", 20)
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


def features_of(path: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    with h5py.File(path) as file:
        return {
            name: (group["keypoints"][...], group["image_size"][...].tolist())
            for name, group in file.items()
        }


def test_extract_stands_upright_and_counts_as_asked(
    pictures: Path, tmp_path: Path, capfd: Any
) -> None:
    found = {}
    for name, options in {
        "upright": [],
        "stored": ["--no-upright"],
        "colmap": ["--stored-points"],
    }.items():
        arguments = ["extract", pictures, "-o", tmp_path / f"{name}.h5", *KEYPOINTS, *options]
        report, errors = run(capfd, *arguments)
        found[name] = features_of(tmp_path / f"{name}.h5")
        said = "4 images, such as a.jpg, were turned upright" in errors
        assert said == (len(report["notes"]) == 4) == (name == "upright")
    shown, sizes = zip(*found["upright"].values(), strict=True)
    assert list(sizes) == [[160, 210]] * 5  # hloc's order: width, height
    for keypoints in shown[1:]:  # formats differ in how they make grey of colours
        apart = np.abs(keypoints[:, None] - shown[1][None]).max(axis=2).min(axis=0)
        assert np.mean(apart < 0.1) >= 0.9
    detector = SuperPointFeature2D.create(20, device="cpu")
    expected = detector.extract(read_picture(pictures / "b.png", grey=True))
    np.testing.assert_allclose(shown[1], expected.keypoints, atol=0.01)
    # As COLMAP: the same points, in pixels as stored.
    keypoints, size = found["colmap"]["d.tif"]
    assert size == [210, 160]
    np.testing.assert_array_equal(keypoints, np.stack([shown[3][:, 1], 159 - shown[3][:, 0]], 1))
    np.testing.assert_array_equal(found["colmap"]["e.png"][0], shown[4])  # it was upright
    keypoints, size = found["stored"]["d.tif"]
    assert size == [210, 160]
    stored = detector.extract(read_picture(pictures / "d.tif", grey=True, upright=False))
    np.testing.assert_allclose(keypoints, stored.keypoints, atol=0.01)


def test_extract_tells_what_became_of_values_and_damage(tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), RGB[..., 0].astype(np.uint16) << 4)
    (folder / "c.jpg").write_bytes(with_orientation("JPEG", 1)[:-2])
    report, errors = run(capfd, "extract", folder, "-o", tmp_path / "a.h5", *KEYPOINTS)
    bits = "uint16 values, the upper 8 of 12 bits taken"
    damage = "the file lacks its end mark, but every row is there"
    assert report["notes"] == {"a.png": [bits], "b.png": [bits], "c.jpg": [damage]}
    assert f"warning: 2 images, such as a.png: {bits}" in errors
    assert f"warning: 1 images, such as c.jpg: {damage}" in errors
    report, errors = run(capfd, "extract", folder, "-o", tmp_path / "a.h5", *KEYPOINTS)
    assert (report["resumed"], report["notes"], errors) == (3, {}, "")


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
