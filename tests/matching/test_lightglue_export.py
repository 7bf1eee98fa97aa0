"""Exported matchers: the command, and two images in, matches out, beside our own path."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import skimage.data
from made_matchers import LITE, nearest_file
from pinned import PINNED

from cv_superpoint import FeatureError, LightGlueMatcher, SuperPointFeature2D
from cv_superpoint.cli import main
from cv_superpoint.matching.lightglue.export import export_matcher

SIZE = (144, 192)
COUNT = 120
FIRST = np.ascontiguousarray(skimage.data.camera()[60:204, 130:322])
SECOND = cv2.warpAffine(FIRST, cv2.getRotationMatrix2D((96, 72), 8, 0.95), SIZE[::-1])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_file(tmp_path_factory.mktemp("matcher") / "m.safetensors")


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def as_input(*images: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": np.stack(images)[:, None].astype(np.float32) / 255}


def test_two_images_in_matches_out(learned: Path, tmp_path: Path) -> None:
    # float32, one thread
    options = ["--weights", LITE, "--matcher", str(learned), "--size", *map(str, SIZE)]
    target = tmp_path / "pair.onnx"
    command = ["export", str(target), "--layout", "pair", "-k", str(COUNT), *options]
    assert main(command) == 0
    run = session(target).run
    detector = SuperPointFeature2D.create(COUNT, weights=LITE, scales=(1.0,), **PINNED)
    matcher = LightGlueMatcher.create(learned, threads=1)
    blank = np.full(SIZE, 90, np.uint8)
    few = np.full(SIZE, 90, np.uint8)
    few[60:90, 60:120] = FIRST[60:90, 60:120]
    for images in ((FIRST, SECOND), (FIRST, few), (blank, SECOND), (FIRST, blank), (blank, blank)):
        keypoints0, keypoints1, matches, scores = run(None, as_input(*images))
        features = [detector.extract(image) for image in images]
        for found, expected in zip((keypoints0, keypoints1), features, strict=True):
            assert found.shape == (len(expected), 2)
            np.testing.assert_allclose(found, expected.keypoints, atol=1e-3)
        rows, values = matcher(*features)
        np.testing.assert_array_equal(matches, rows)
        np.testing.assert_allclose(scores, values, atol=1e-3)
        if images[1] is SECOND and images[0] is FIRST:
            assert len(rows) > 30


def test_what_cannot_be_exported_is_told(
    learned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "m.onnx"
    for arguments, says in (
        (["--layout", "pair", "--matcher", str(learned), "--weights", "superpoint"], "not of supe"),
        (["--layout", "matcher", "--matcher", str(learned), "--precision", "int8"], "in float32"),
        (["--layout", "full", "--matcher", str(learned)], "layout full has no matches"),
        (["--layout", "matcher", "--matcher", str(tmp_path / "none.safetensors")], "no such"),
        (["--layout", "matcher", "--weights", "magicpoint"], "find keypoints only"),
    ):
        assert main(["export", str(target), *arguments]) == 1
        assert says in capfd.readouterr().err
    assert main(["export", str(learned), "--layout", "matcher", "--matcher", str(learned)]) == 1
    assert not target.exists()
    with pytest.raises(FeatureError, match="multiples of 8"):
        export_matcher(learned, target, "pair", size=(100, 100))
    with pytest.raises(FeatureError, match="layout must be one of matcher"):
        export_matcher(learned, target, "full")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(cv2, "LightGlueMatcher"), reason="OpenCV 5 has LightGlueMatcher")
def test_the_exported_files_alone_find_a_homography(learned: Path, tmp_path: Path) -> None:
    """The whole pipeline of OpenCV 5, in a process without this package and its requirements."""
    for name, layout in (("detector", "disk"), ("matcher", "matcher")):
        command = ["export", str(tmp_path / f"{name}.onnx"), "--layout", layout, "--weights", LITE]
        extra = ["--matcher", str(learned)] if layout == "matcher" else ["--size", "144", "192"]
        assert main([*command, *extra]) == 0
    for name, image in (("a.png", FIRST), ("b.png", SECOND)):
        cv2.imwrite(str(tmp_path / name), image)
    script = Path(__file__).parents[2] / "examples" / "opencv_only.py"
    only = f"import runpy, sys\nrunpy.run_path({str(script)!r}, run_name='__main__')\n"
    check = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.partition('.')[0] in ('cv_superpoint', 'onnx', 'onnxruntime', 'torch'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    arguments = ["detector.onnx", "matcher.onnx", "a.png", "b.png", "--size", "144", "192"]
    done = subprocess.run(
        [sys.executable, "-c", check + only, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ and \d+ keypoints, \d+ matches, \d+ of them on one plane", lines[0])
    homography = np.array([[float(word) for word in line.split()] for line in lines[1:4]])
    truth = np.vstack([cv2.getRotationMatrix2D((96, 72), 8, 0.95), [0, 0, 1]])
    corners = np.array([[[0, 0], [191, 0], [191, 143], [0, 143]]], np.float64)
    moved = cv2.perspectiveTransform(corners, homography)
    assert np.abs(moved - cv2.perspectiveTransform(corners, truth)).max() < 3
