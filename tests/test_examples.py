"""Every example does what it says, on photographs at hand and on the user's files."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from made_matchers import LITE, nearest_file

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "pictures")


class Runner:
    """Runs an example in this process: its main(), its output, its exit code."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        folder: Path,
    ) -> None:
        self.monkeypatch, self.capsys, self.folder = monkeypatch, capsys, folder
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.chdir(folder)

    def __call__(self, name: str, *arguments: Any, code: int = 0) -> str:
        self.monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        message = ""
        try:
            returned = importlib.import_module(name).main()
        except SystemExit as stop:
            # As the interpreter does: a text goes to stderr, and the exit code is 1.
            returned, message = (stop.code, "") if isinstance(stop.code, int) else (1, stop.code)
        output = "".join(self.capsys.readouterr()) + str(message)
        assert returned == code, output
        return output

    def save(self, name: str, picture: Any) -> str:
        cv2.imwrite(str(self.folder / name), picture)
        return name

    def picture(self, name: str) -> Any:
        picture = cv2.imread(str(self.folder / name))
        assert picture is not None, f"{name} was not written"
        assert picture.std() > 20, f"{name} is blank"
        return picture


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Runner:
    return Runner(monkeypatch, capsys, tmp_path)


def figure(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    assert found, f"{pattern!r} is not in\n{output}"
    return float(found[1])


def photograph(name: str) -> Any:
    return getattr(skimage.data, name)()[..., ::-1]


def test_a_script_elsewhere_runs_with_the_opencv_of_this_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import cv2; print(cv2.__version__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == cv2.__version__


def test_demo_as_a_script(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure(r"corner error  ([\d.]+) px", done.stdout) <= 2
    assert figure(r"matches       (\d+)", done.stdout) >= figure(
        r"inliers       (\d+)", done.stdout
    )
    assert figure(r"inliers       (\d+)", done.stdout) > 50
    picture = cv2.imread(str(tmp_path / "matches.png"))
    assert picture.shape == (512, 1024, 3)
    blue, green, red = picture.astype(int).transpose(2, 0, 1)
    assert ((green > blue + 60) & (green > red + 60)).sum() > 1000  # the lines, anti-aliased
    original = photograph("astronaut")
    assert np.all(picture[:, :512] == original, axis=2).mean() > 0.5


def test_demo_on_files(run: Runner) -> None:
    coffee = photograph("coffee")
    one, other = run.save("one.png", coffee[:, :400]), run.save("other.jpg", coffee[40:, 100:])
    output = run("demo", one, other, "--output", "out.png")
    assert "corner error" not in output
    assert figure(r"inliers       (\d+)", output) > 50
    assert run.picture("out.png").shape == (400, 900, 3)


def test_swap_sift(run: Runner) -> None:
    output = run("swap_sift")
    for name in ("SIFT", "SuperPoint"):
        assert figure(rf"(?m)^{name} .* corner error ([\d.]+) px$", output) < 3
    assert run.picture("swap_sift.png").shape == (1024, 1024, 3)


def test_homography(run: Runner) -> None:
    output = run("homography")
    assert figure(r"corner error  ([\d.]+) px", output) < 3
    assert "at a turn of 0 degrees" in output
    run.picture("homography.png")


def test_homography_of_a_turned_file(run: Runner) -> None:
    coffee = photograph("coffee")
    files = run.save("one.png", coffee), run.save("other.png", np.rot90(coffee[20:, 30:]))
    output = run("homography", *files, "--rotations", "--output", "turned.png")
    assert "at a turn of 270 degrees" in output
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d*(?:e[-+]\d+)?", output)][-9:]
    estimated = np.array(numbers).reshape(3, 3)
    # (x, y) of the whole is (x - 30, y - 20) of the piece, and (y', 569 - x') of that turned.
    truth = np.array([[0, 1, -20], [-1, 0, 599], [0, 0, 1]])
    np.testing.assert_allclose(estimated[:, :2], truth[:, :2], atol=0.02)
    np.testing.assert_allclose(estimated[:, 2], truth[:, 2], atol=3)
    assert run.picture("turned.png").shape == (570, 380, 3)


def test_panorama(run: Runner) -> None:
    output = run("panorama")
    # The views are cut with a focal length of 700 pixels.
    assert figure(r"focal lengths (\d+)", output) == pytest.approx(700, rel=0.1)
    picture = run.picture("panorama.png")
    assert picture.shape[1] > 600  # the views are 340 wide
    assert np.any(picture[60:-60] > 0, axis=2).mean() > 0.98


def test_panorama_of_files(run: Runner) -> None:
    coffee = photograph("coffee")
    files = [run.save("left.png", coffee[:, :400]), run.save("right.png", coffee[:, 200:])]
    run("panorama", *files, "--output", "two.png", "--megapixels", "0.1")
    assert run.picture("two.png").shape[1] > 400
    stranger = run.save("cat.png", photograph("chelsea"))
    output = run("panorama", *files, stranger, code=1)
    assert "only pictures 1, 2 belong together" in output


def test_track(run: Runner) -> None:
    output = run("track", "--frames", 12)
    assert figure(r"frames        (\d+)", output) == 12
    assert figure(r"followed      (\d+)%", output) > 50
    assert figure(r"longest track (\d+) frames", output) == 12
    again = run("track", "tracks.avi", "--frames", 3, "--output", "again.avi")
    assert figure(r"frames        (\d+)", again) == 3
    capture = cv2.VideoCapture(str(run.folder / "tracks.avi"))
    frames = [capture.read() for _ in range(13)]
    capture.release()
    assert [read for read, _ in frames] == [True] * 12 + [False]
    assert frames[0][1].shape == (240, 320, 3)
    assert frames[11][1].std() > 20
    run("track", "missing.avi", code=1)


def test_locate(run: Runner) -> None:
    output = run("locate")
    assert figure(r"corner error  ([\d.]+) px", output) < 3
    run.picture("located.png")


def test_locate_in_files(run: Runner) -> None:
    coffee = photograph("coffee")
    template = run.save("template.png", np.rot90(coffee[60:340, 150:470], 2))
    scene = run.save("scene.png", coffee)
    output = run("locate", template, scene, "--rotations", "--output", "found.png")
    corner = re.search(r"found at      \(([\d.]+), ([\d.]+)\)", output)
    assert corner
    np.testing.assert_allclose([float(value) for value in corner.groups()], [469, 339], atol=2)
    stranger = run.save("cat.png", photograph("chelsea"))
    assert "not found" in run("locate", stranger, scene, code=1)


def test_rotation_study(run: Runner) -> None:
    rows = [line for line in run("rotation_study").splitlines() if line.startswith("| turned")]
    methods = [row.split("|")[4].strip() for row in rows]
    assert methods[0] == "SIFT"
    assert "ours, 4 turns" in methods
    by_method = dict(zip(methods, rows, strict=True))
    turned, plain = (
        figure(r"\| (\d+) \| [\d.]+ \| [\w.]+ \|$", by_method[name])
        for name in ("ours, 4 turns", "ours")
    )
    assert turned > plain
    cells = [cell.strip() for cell in rows[0].split("|")]
    assert cells[2:4] == ["100", "0.80"]


def test_matching_study(run: Runner) -> None:
    learned = nearest_file(run.folder / "matcher.safetensors")
    output = run("matching_study", "--weights", LITE, "--matcher", learned)
    rows = {row.split("|")[1].strip(): row.split("|") for row in output.splitlines() if "|" in row}
    assert float(rows["ratio 0.8"][3]) > float(rows["none"][3])  # precision
    assert float(rows["ratio 0.8"][4]) < float(rows["none"][4])  # kept
    scores = [rows[f"learned, score above {least}"] for least in (0.02, 0.2, 0.5)]
    assert [int(row[2]) for row in scores] == sorted((int(row[2]) for row in scores), reverse=True)
    assert len(rows) == 22


@pytest.mark.parametrize("name", ["demo", "homography", "swap_sift", "panorama", "locate"])
def test_pictures_without_features(run: Runner, name: str) -> None:
    flat = run.save("flat.png", np.full((60, 80, 3), 127, np.uint8))
    output = run(name, flat, flat, code=1)
    assert re.search("no homography|no keypoints|no panorama|not found", output)


def test_a_video_without_features(run: Runner) -> None:
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(run.folder / "flat.avi"), codec, 20.0, (80, 60))
    for _ in range(3):
        writer.write(np.full((60, 80, 3), 127, np.uint8))
    writer.release()
    output = run("track", "flat.avi")
    assert figure(r"frames        (\d+)", output) == 3
    assert figure(r"followed      (\d+)%", output) == 0
    assert figure(r"longest track (\d+) frames", output) == 0


def test_render_scenes(run: Runner) -> None:
    run.save("texture.png", photograph("coffee"))
    (run.folder / "photographs").mkdir()
    (run.folder / "texture.png").rename(run.folder / "photographs/texture.png")
    arguments = ("scenes", "--photographs", "photographs", "--pairs", 1, "--size", 120, 160)
    assert "wrote 2 pairs" in run("render_scenes", *arguments, "--stereo")
    run.picture("scenes/scene0000/0.png")
    lines = (run.folder / "scenes/pairs.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [38, 38]


def test_opencv_only_says_what_is_wrong(run: Runner) -> None:
    """tests/matching/test_lightglue_export.py runs it on exported files."""
    output = run("opencv_only", "detector.onnx", "matcher.onnx", "a.png", "b.png", code=1)
    wanted = "cannot be read" if hasattr(cv2, "LightGlueMatcher") else "this needs OpenCV 5"
    assert wanted in output


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - {"render_scenes", "opencv_only"}))
def test_help(run: Runner, name: str) -> None:
    assert "--weights" in run(name, "--help")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("demo", ()),
        ("homography", ()),
        ("locate", ()),
        ("panorama", ()),
        ("swap_sift", ()),
        ("track", ("--frames", 3)),
    ],
)
def test_the_lite_set(run: Runner, name: str, arguments: tuple[Any, ...]) -> None:
    plain = run(name, *arguments)
    lite = run(name, *arguments, "--weights", "superpoint-lite")
    time = re.compile(r"[\d.]+ (ms|per second)")  # another one in every run
    assert time.sub("", lite) != time.sub("", plain)


@pytest.mark.parametrize("name", ["demo", "homography", "swap_sift", "panorama", "locate"])
def test_wrong_files(run: Runner, name: str) -> None:
    assert "name" in run(name, "only_one.png", code=2)
    output = run(name, "missing.png", "missing.png", code=1)
    assert "cannot read missing.png as a picture" in output
