"""Each command as a process, its files looked at; corner cases within this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import onnx
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.cli import main
from cv_superpoint.pictures.reading import read_picture

ARGUMENTS = [f"--{name}={value}" for name, value in PINNED.items()]


def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cv_superpoint", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def figures(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, a turned view of it, its halves, a cat, a half file and none."""
    root = tmp_path_factory.mktemp("pictures")
    coffee = np.ascontiguousarray(skimage.data.coffee()[..., ::-1])
    turn = cv2.getRotationMatrix2D((300, 200), 10, 0.9)
    made = {
        "one.jpg": coffee,
        "turned.png": cv2.warpAffine(coffee, turn, (600, 400)),
        "left.png": coffee[:, :380],
        "right.png": coffee[:, 200:],
        "cat.jpg": np.ascontiguousarray(skimage.data.chelsea()[::2, ::2, ::-1]),
    }
    for name, image in made.items():
        cv2.imwrite(str(root / name), image)
    folder = root / "folder"
    (folder / "inside").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), coffee[:120, :160])
    cv2.imwrite(str(folder / "inside" / "b.png"), coffee[100:220, 100:260])
    data = (root / "one.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "none.png").write_bytes(b"no picture")
    return root


def test_detect(pictures: Path, tmp_path: Path) -> None:
    folder = pictures / "folder"
    done = run("detect", folder, "-o", tmp_path / "out", "-k", 50, "--json", *ARGUMENTS, code=3)
    report = figures(done)
    assert [Path(each["image"]).name for each in report["images"]] == ["a.jpg", "b.png"]
    assert [Path(each["image"]).name for each in report["broken"]] == ["cut.jpg", "none.png"]
    assert "the file is cut short" in done.stderr
    table = np.loadtxt(tmp_path / "out/inside/b.png.csv", delimiter=",", skiprows=1)
    with np.load(tmp_path / "out/inside/b.png.npz") as file:
        np.testing.assert_allclose(table[:, :2], file["keypoints"], rtol=1e-6)
        np.testing.assert_allclose(table[:, 2], file["scores"], rtol=1e-6)
        assert file["descriptors"].shape == (len(table), 256)
        assert file["image_size"].tolist() == [120, 160]
    picture = cv2.imread(str(folder / "inside/b.png"))
    expected = SuperPointFeature2D.create(50, **PINNED).extract(picture)
    np.testing.assert_allclose(table[:, :2], expected.keypoints, atol=1e-3)
    overlay = cv2.imread(str(tmp_path / "out/inside/b.png.keypoints.png"))
    changed = np.any(overlay != picture, axis=2)
    x, y = np.rint(expected.keypoints[0]).astype(int)
    assert changed[y - 5 : y + 6, x - 5 : x + 6].any()
    assert 0.01 < changed.mean() < 0.5


def test_match(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = pictures / "one.jpg", pictures / "turned.png"
    done = run("match", *names, "-o", out, "--json", *ARGUMENTS)
    report = figures(done)
    truth = cv2.getRotationMatrix2D((300, 200), 10, 0.9)
    np.testing.assert_allclose(np.array(report["homography"])[:2, :2], truth[:, :2], atol=0.01)
    assert report["matches"] >= report["inliers"] > 50
    rows = np.loadtxt(out / "matches.csv", delimiter=",", skiprows=1)
    assert len(rows) == report["matches"]
    assert rows[:, 5].sum() == report["inliers"]
    assert cv2.imread(str(out / "matches.png")).shape == (400, 1200, 3)
    overlay = cv2.imread(str(out / "overlay.png")).astype(int)
    assert np.ptp(overlay[100:300, 150:450], axis=2).mean() < 12  # grey: they agree


def test_match_by_an_essential_matrix(tmp_path: Path) -> None:
    left, right, _ = skimage.data.stereo_motorcycle()
    for name, image in (("left.png", left), ("right.png", right)):
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    done = run(
        *("match", tmp_path / "left.png", tmp_path / "right.png", "-o", tmp_path / "out"),
        *("--model", "essential", "--focal", 995, "--pixels", 1, "--json", *ARGUMENTS),
    )
    report = figures(done)
    angle = np.rad2deg(np.arccos((np.trace(report["rotation_matrix"]) - 1) / 2))
    assert angle < 2
    assert report["direction"][0] < -0.9  # the second camera stands to the right
    singular = np.linalg.svd(report["essential"], compute_uv=False)
    np.testing.assert_allclose(singular, [1, 1, 0], atol=1e-3)
    assert not (tmp_path / "out" / "overlay.png").exists()


def test_extract(pictures: Path, tmp_path: Path) -> None:
    done = run("extract", pictures / "folder", "-o", tmp_path / "f.h5", code=3)
    assert "2 images" in done.stdout
    assert done.stderr.count("warning: left out") == 2
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["inside/b.png/descriptors"].shape[0] == 256
    again = run("extract", pictures / "folder", "-o", tmp_path / "f.h5", code=3)
    assert "2 images were done before" in again.stdout
    other = run(
        "extract", pictures / "folder", "-o", tmp_path / "f.h5", "--max-keypoints", 7, code=1
    )
    assert other.stderr.startswith("error: ")
    assert "max_keypoints was 1000, is 7" in other.stderr


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.avi"
    coffee = skimage.data.coffee()[..., ::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (160, 120))
    for index in range(10):
        piece = coffee[150 + index : 270 + index, 150 + 3 * index : 310 + 3 * index]
        writer.write(np.ascontiguousarray(piece))
    writer.release()
    return path


def test_track(film: Path, tmp_path: Path) -> None:
    options = ("--threshold", "0.01", "--json", *ARGUMENTS)
    done = run("track", film, "-o", tmp_path / "tracks.avi", *options)
    report = figures(done)
    assert (report["frames"], report["expected"]) == (10, 10)
    assert report["followed"] > 0.5
    assert report["longest"] == 10
    capture = cv2.VideoCapture(str(tmp_path / "tracks.avi"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    frames = [capture.read() for _ in range(11)]
    capture.release()
    assert [ok for ok, _ in frames] == [True] * 10 + [False]
    source = cv2.VideoCapture(str(film))
    drawn = [np.abs(frame.astype(int) - source.read()[1]) > 60 for _, frame in frames[:10]]
    source.release()
    assert drawn[9].sum() > 1.5 * drawn[0].sum() > 0  # tails where there were dots


def test_a_film_that_ends_early(film: Path, tmp_path: Path, capfd: Any) -> None:
    data = film.read_bytes()
    short = tmp_path / "short.avi"
    short.write_bytes(data[: len(data) * 6 // 10])
    assert main(["track", str(short), "-o", str(tmp_path / "t.avi")]) == 3
    error = capfd.readouterr().err
    assert "frames: the file is cut short; the tracks so far are written" in error
    assert cv2.VideoCapture(str(tmp_path / "t.avi")).read()[0]


def test_stitch(pictures: Path, tmp_path: Path) -> None:
    done = run(
        *("stitch", pictures / "left.png", pictures / "right.png", pictures / "folder/cut.jpg"),
        *("-o", tmp_path / "panorama.png", "--json", *ARGUMENTS),
        code=3,
    )
    report = figures(done)
    panorama = cv2.imread(str(tmp_path / "panorama.png"))
    assert list(panorama.shape[:2]) == report["size"]
    assert panorama.shape[1] > 450
    assert report["pairs"][0]["inliers"] > 20
    assert len(report["broken"]) == 1


def test_export(tmp_path: Path) -> None:
    done = run("export", tmp_path / "full.onnx", "--layout", "full", "--size", 120, 160, "--json")
    assert figures(done)["bytes"] == (tmp_path / "full.onnx").stat().st_size
    model = onnx.load(tmp_path / "full.onnx")
    assert [each.name for each in model.graph.output] == ["keypoints", "scores", "descriptors"]


def test_convert_there_and_back(tmp_path: Path, pictures: Path) -> None:
    run("convert", "superpoint", tmp_path / "theirs.pth", "--to", "magic-leap")
    for source, target, layout in (
        ("theirs.pth", "hf.safetensors", "hugging-face"),
        ("hf.safetensors", "ours.safetensors", "cv_superpoint"),
    ):
        assert (
            main(["convert", str(tmp_path / source), str(tmp_path / target), "--to", layout]) == 0
        )
    image = read_picture(pictures / "folder/a.jpg")
    options = {"scoreThreshold": 0.1, "scoreRadius": 2, **PINNED}
    expected = SuperPointFeature2D.create(**options).extract(image)
    for name in ("theirs.pth", "hf.safetensors", "ours.safetensors"):
        converted = SuperPointFeature2D.create(weights=tmp_path / name, **options)
        np.testing.assert_array_equal(converted.extract(image).keypoints, expected.keypoints)


def test_doctor() -> None:
    report = figures(run("doctor", "--threads", 1, "--json"))
    assert report["opencv"] == cv2.__version__
    assert report["milliseconds"] > 1
    assert "superpoint" in report["weights"]
    assert report["chosen"] == SuperPointFeature2D.create(threads=1).info()


def test_help_is_shown_in_any_encoding() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cv_superpoint", "--help"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("torch", ["train"], "train"),
        ("torch", ["convert", "superpoint", "x.pth", "--to", "magic-leap"], "torch"),
        ("h5py", ["extract", "folder", "-o", "x.h5"], "sfm"),
        ("pyarrow", ["extract", "folder", "-o", "x"], "ray"),
        ("onnx", ["export", "x.onnx"], "onnx"),
        ("gradio", ["view"], "viewer"),
    ],
)
def test_a_missing_extra_is_named(
    pictures: Path, package: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    # As where it is not installed, for import and for importlib alike.
    script = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name == {package!r} else found(name, package)
importlib.util.find_spec = find_spec
from cv_superpoint.cli import main
sys.exit(main({arguments!r}))
"""
    (tmp_path / "folder").symlink_to(pictures / "folder")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert package in done.stderr
    assert f'pip install "cv-superpoint[{extra}]"' in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder"]


def test_help_is_quick_and_imports_little() -> None:
    script = """
import sys
from cv_superpoint.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
heavy = {"torch", "train", "ray", "h5py", "gradio", "pycolmap", "openvino", "onnxruntime"}
heavy |= {"ncnn", "onnx"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    for name in (
        "detect",
        "match",
        "extract",
        "track",
        "stitch",
        "export",
        "convert",
        "view",
        "doctor",
    ):
        assert f" {name} " in done.stdout


# ---- what goes wrong ----

SAME = ("folder/a.jpg", "folder/a.jpg")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["detect", "none.jpg"], 1, "none.jpg: there is no such file or folder"),
        (["detect"], 1, "name at least one picture or folder"),
        (["match", "folder/cut.jpg", "one.jpg"], 1, "the file is cut short; copy it again"),
        (["match", "folder/none.png", "one.jpg"], 1, "not a picture that OpenCV can read"),
        (
            ["match", *SAME, "--max-distance", "3"],
            1,
            "max_distance must lie in",
        ),
        (
            ["match", *SAME, "--rotations", "45"],
            1,
            "rotations must be some of",
        ),
        (
            ["match", *SAME, "--model", "essential", "--focal", "-1"],
            1,
            "focal must",
        ),
        (
            ["match", *SAME, "-k", "3"],
            1,
            "no homography: too few matches agree",
        ),
        (["stitch", "one.jpg"], 1, "a panorama needs two pictures or more, got 1"),
        (["stitch", "left.png", "cat.jpg"], 1, "no two pictures belong together"),
        (["track", "none.avi"], 1, "none.avi: there is no such file"),
        (["track", "one.txt"], 1, "not a video that this OpenCV can read"),
        (["track", "film.avi", "-o", "t.gif"], 1, "the name of a video ends in .avi or .mp4"),
        (["export", "x.pt"], 1, "path must end in .onnx"),
        (["convert", "nothing", "x.pth"], 1, "neither bundled nor a file"),
        (["convert", "superpoint", "x.bin", "--to", "magic-leap"], 1, ".safetensors or .pth"),
        (["doctor", "--backend", "abacus"], 1, "backend must be 'auto' or one of"),
        (["extract", "nowhere"], 1, "there is no such folder"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_errors_are_one_line(
    pictures: Path,
    film: Path,
    arguments: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(pictures)
    (pictures / "one.txt").write_text("text", encoding="utf-8")
    if arguments[0] in ("match", "stitch", "detect"):
        arguments = [*arguments, "-o", str(tmp_path / "out.png")]
    arguments = [str(film) if each == "film.avi" else each for each in arguments]
    try:
        returned = main(arguments)
    except SystemExit as stop:
        returned = stop.code
    output = capfd.readouterr()
    assert returned == code, output
    assert says in output.err
    if code == 1:
        lines = [
            line for line in output.err.splitlines() if line.startswith(("error:", "warning:"))
        ]
        assert len(lines) == 1
        assert "Traceback" not in output.err


def test_an_error_as_json(capfd: Any) -> None:
    assert main(["detect", "none.jpg", "--json"]) == 1
    output = capfd.readouterr()
    assert json.loads(output.out) == {"error": "none.jpg: there is no such file or folder"}


def test_two_pictures_of_one_name(pictures: Path, tmp_path: Path, capfd: Any) -> None:
    copy = tmp_path / "one.jpg"
    copy.write_bytes((pictures / "one.jpg").read_bytes())
    assert main(["detect", str(copy), str(pictures / "one.jpg")]) == 1
    assert "more than one picture has this name" in capfd.readouterr().err
