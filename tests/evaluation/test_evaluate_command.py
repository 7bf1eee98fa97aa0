"""Evaluation sets, named detectors, the cache of predictions, and the command over them."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
from evaluating import main

from cv_superpoint.evaluation import detectors
from cv_superpoint.evaluation.datasets import HPatches
from cv_superpoint.evaluation.predictions import PredictionCache, detect
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs, warp_pair

IDENTITY = np.eye(3)


@pytest.fixture(scope="module")
def coffee():
    return cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY)


def write_sequence(folder, image, suffix, numbers=(1, 2), homography=IDENTITY):
    folder.mkdir(parents=True)
    for number in numbers:
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), image)
        if number > 1:
            np.savetxt(folder / f"H_1_{number}", homography)


@pytest.fixture
def hpatches(tmp_path, shifted_pair, coffee):
    """Two good sequences, and one of each fault."""
    root = tmp_path / "hpatches"
    first, second = shifted_pair.images
    write_sequence(root / "v_shift", first, ".png", homography=shifted_pair.h_0to1)
    assert cv2.imwrite(str(root / "v_shift" / "2.png"), second)
    colour = np.dstack([coffee, coffee // 2, coffee])
    write_sequence(root / "i_same", colour, ".ppm", (1, 2, 4))
    write_sequence(root / "v_headless", coffee, ".png", (2, 3))
    write_sequence(root / "v_unknown", coffee, ".png", (1, 2, 3))
    (root / "v_unknown" / "H_1_2").unlink()
    (root / "v_unknown" / "H_1_3").write_text("1 0 0 0 1", encoding="utf-8")
    write_sequence(root / "v_flat", coffee, ".png", (1, 2), np.ones((3, 3)))
    (root / "notes.txt").write_text("not a sequence", encoding="utf-8")
    return root


def test_the_reader_takes_what_is_there_and_lists_the_rest(hpatches, shifted_pair):
    source = HPatches(root=hpatches)
    pairs = list(source)
    assert [pair.name for pair in pairs] == ["i_same 1-2", "i_same 1-4", "v_shift 1-2"]
    assert [pair.kind for pair in pairs] == ["illumination", "illumination", "viewpoint"]
    assert len(source) == 3
    assert all(image.ndim == 2 for pair in pairs for image in pair.images)
    np.testing.assert_allclose(pairs[-1].h_0to1, shifted_pair.h_0to1)
    assert {(item.name, item.reason) for item in source.skipped} == {
        ("i_same", "no image 3, 5, 6"),
        ("v_headless", "no image 1"),
        ("v_unknown 1-2", "no H_1_2"),
        ("v_unknown 1-3", "H_1_3 is not nine numbers"),
        ("v_unknown", "no image 4, 5, 6"),
        ("v_flat 1-2", "H_1_2 cannot be inverted"),
        ("v_flat", "no image 3, 4, 5, 6"),
        ("v_shift", "no image 3, 4, 5, 6"),
    }


def test_the_reader_can_be_limited(hpatches):
    assert [p.name for p in HPatches(root=hpatches, only=("v_s*",))] == ["v_shift 1-2"]
    excluded = HPatches(root=hpatches, excluded=("i_same",))
    assert ("i_same", "left out by the protocol") in excluded.skipped
    assert len(excluded) == 1


def test_the_reader_says_what_is_wrong(tmp_path, hpatches):
    with pytest.raises(ValueError, match="is not a folder"):
        HPatches(root=tmp_path / "missing")
    with pytest.raises(ValueError, match=r"no HPatches sequence in .*v_headless: no image 1"):
        HPatches(root=hpatches, only=("v_headless",))
    (hpatches / "v_shift" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"2\.png: not a picture that OpenCV can read"):
        list(HPatches(root=hpatches, only=("v_shift",)))


@pytest.fixture
def photographs(tmp_path, photograph, coffee):
    root = tmp_path / "photographs"
    (root / "more").mkdir(parents=True)
    assert cv2.imwrite(str(root / "astronaut.png"), photograph)
    assert cv2.imwrite(str(root / "more" / "coffee.jpg"), coffee)
    (root / "readme.txt").write_text("two photographs", encoding="utf-8")
    return root


def test_warps_of_photographs_are_reproducible(photographs):
    source = WarpedPhotographs(root=photographs)
    assert len(source) == 4
    pairs, again = list(source), list(source)
    assert [pair.name for pair in pairs] == [
        "astronaut.png 0",
        "astronaut.png 1",
        "more/coffee.jpg 0",
        "more/coffee.jpg 1",
    ]
    for one, other in zip(pairs, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.h_0to1, other.h_0to1)
    assert not np.allclose(pairs[0].h_0to1, pairs[1].h_0to1)
    assert source.skipped == [("readme.txt", "not an image")]
    # Neither other photographs nor their number change a pair.
    (alone,) = list(WarpedPhotographs(root=photographs, only=("more/*",)))[:1]
    np.testing.assert_array_equal(alone.images, pairs[2].images)
    other_seed = next(iter(WarpedPhotographs(root=photographs, config=WarpConfig(seed=1))))
    assert not np.allclose(other_seed.h_0to1, pairs[0].h_0to1)


def test_photographs_of_any_name_are_measured_and_others_named(photographs, tmp_path, capfd):
    odd = os.fsdecode(b"caf\xe9.png")
    (photographs / odd).write_bytes((photographs / "astronaut.png").read_bytes())
    (photographs / "broken.png").write_bytes(b"")
    os.mkfifo(photographs / "pipe.png")
    out = tmp_path / "out"
    arguments = ["--data", str(photographs), "--protocol", "warp", "--detectors", "orb"]
    arguments += ["--out", str(out), "--per-pair", "--resamples", "0"]
    assert main(arguments) == 3
    assert "caf\\udce9.png 1" in capfd.readouterr().out
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {f"{odd} 0", f"{odd} 1"} < {each["name"] for each in results["results"]["orb"]}
    assert [each["name"] for each in results["skipped"]] == ["readme.txt", "pipe.png", "broken.png"]
    # Its own pictures are no photographs of a later run.
    shutil.copytree(out, photographs / "out")
    assert len(WarpedPhotographs(root=photographs).paths) == 4
    (photographs / "more" / "coffee.jpg").unlink()
    (photographs / "more" / "bad.png").write_bytes(b"")
    assert main([*arguments, "--only", "more/*"]) == 1
    assert "none of the images that are asked for can be read" in capfd.readouterr().err


def test_the_homography_of_a_warp_is_the_one_of_its_images(photograph):
    still = WarpConfig(size=(120, 160), noise=0, blur=0, contrast=1, brightness=0)
    for number in range(3):
        pair = warp_pair(photograph, "astronaut", number, still)
        assert [image.shape for image in pair.images] == [(120, 160)] * 2
        warped = cv2.warpPerspective(pair.images[0], pair.h_0to1, (160, 120))
        seen = cv2.warpPerspective(np.full((120, 160), 255, np.uint8), pair.h_0to1, (160, 120))
        difference = np.abs(warped.astype(int) - pair.images[1])[seen == 255]
        assert np.median(difference) <= 1


def test_the_warps_of_the_protocol_stay_bit_for_bit():
    """Figures of one release are compared with another's only if their pairs are the same."""
    digest = hashlib.sha256()
    for number in range(3):
        pair = warp_pair(skimage.data.camera(), "camera", number, WarpConfig())
        for array in (pair.h_0to1, *pair.images):
            digest.update(np.ascontiguousarray(array).tobytes())
    # OpenCV 4 and 5 resample differently by a level.
    assert (
        digest.hexdigest()
        == {
            "4": "2506affc835272d5228cf81eef9e02cf54e7230d8325ae4414bde69706288500",
            "5": "131e67fb861a9eab06c2a7703947e91997c4ffca1e83330a64f0bd85628e69d7",
        }[cv2.__version__[0]]
    )


@pytest.mark.parametrize(
    "options", [{"size": (8, 320)}, {"pairs_per_image": 0}, {"scale": 0.5}, {"perspective": 0.6}]
)
def test_warp_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        WarpConfig(**options)


def test_names_of_detectors():
    assert detectors.split_names(["sift,orb(nfeatures=20, scaleFactor=1.5)", "akaze"]) == (
        "sift",
        "orb(nfeatures=20, scaleFactor=1.5)",
        "akaze",
    )
    orb = detectors.build_detector("orb(scaleFactor=1.5)", quota=77)
    assert orb.getMaxFeatures() == 77
    assert orb.getScaleFactor() == pytest.approx(1.5)
    assert detectors.build_detector("orb(nfeatures=5)", quota=77).getMaxFeatures() == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("surf", "no detector is called 'surf'; use superpoint, sift"),
        ("sift(nothing=1)", r"cannot create sift\(nothing=1\)"),
        ("sift(7)", "write it as name"),
        ("sift(contrastThreshold=open)", "write it as name"),
        ("no.such.module:make", "cannot import no.such.module:make"),
        ("math:pi", "math:pi is not callable"),
        ("builtins:dict", "made a dict without detectAndCompute"),
    ],
)
def test_unusable_detectors_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        detectors.build_detector(spec, quota=100)


def test_keypoints_and_descriptors_must_belong_together(photograph):
    class Careless:
        def detectAndCompute(self, image, mask):  # noqa: N802
            return (cv2.KeyPoint(1, 1, 1),), np.zeros((2, 8), np.float32)

    with pytest.raises(ValueError, match="1 keypoints and 2 descriptors"):
        detect(Careless(), photograph)


def test_the_cache_answers_for_the_detector(tmp_path, photograph, caplog):
    class Counting:
        calls = 0

        def detectAndCompute(self, image, mask):  # noqa: N802
            self.calls += 1
            return (cv2.KeyPoint(3, 4, 1, -1, 0.5),), np.ones((1, 8), np.uint8)

    detector = Counting()
    cache = PredictionCache(folder=tmp_path / "c", detector=detector, name="counting", quota=9)
    first, second = cache(photograph), cache(photograph)
    assert detector.calls == 1
    assert second.points.tolist() == first.points.tolist() == [[3, 4]]
    assert second.binary
    cache(photograph[1:])
    assert detector.calls == 2
    for file in (tmp_path / "c").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    assert cache(photograph).points.tolist() == [[3, 4]]
    assert detector.calls == 3
    assert "damaged" in caplog.text


def test_the_command_writes_and_prints(hpatches, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--data", str(hpatches), "--protocol", "plain", "--detectors", "sift,orb"]
    assert main([*arguments, "--out", str(out), "--per-pair", "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "Protocol `plain`" in printed
    assert "| v_shift 1-2" in printed
    assert "- v_headless: no image 1" in printed
    document = json.loads(
        (out / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail
    )
    assert document["protocol"] == "plain"
    assert document["detectors"]["sift"]["viewpoint"]["accuracy_1"]["value"] == 1
    assert document["detectors"]["sift"]["all"]["repeatability"]["low"] is not None
    names = [result["name"] for result in document["results"]["orb"]]
    assert names == ["i_same 1-2", "i_same 1-4", "v_shift 1-2"]
    assert (out / "results.md").read_text(encoding="utf-8") in printed
    assert (out / "pairs.csv").read_text(encoding="utf-8").startswith("protocol,detector,name,")
    for picture in ("bars_all", "bars_viewpoint", "matches_sift_best", "matches_orb_worst"):
        assert cv2.imread(str(out / f"{picture}.png")) is not None


def test_tables_are_printed_in_any_encoding(photographs, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    arguments = ["--data", str(photographs), "--protocol", "warp", "--size", "120", "160"]
    assert main([*arguments, "--detectors", "orb", "--resamples", "20"]) == 0
    sys.stdout.flush()
    assert b"\\u2013" in printed.getvalue()  # the dash of an interval


def test_the_command_takes_any_factory(photographs, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_detectors.py").write_text(
        "import cv2\ndef few(n=50):\n    return cv2.ORB_create(nfeatures=n)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = "my_detectors:few(n=60)"
    arguments = ["--data", str(photographs), "--protocol", "warp", "--size", "120", "160"]
    assert main([*arguments, "--detectors", spec, "--ransac-threshold", "2"]) == 0
    assert spec in capsys.readouterr().out
    sys.modules.pop("my_detectors")


def test_the_command_names_what_is_wrong(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["--protocol", "paper"])
    # tyro breaks the line anywhere.
    assert "needs images: name a folder" in " ".join(capsys.readouterr().err.split())
    assert main(["--data", str(tmp_path), "--detectors", "sift,sift"]) == 1
    assert "named once each" in capsys.readouterr().err


def test_objects_can_be_evaluated_from_python(photographs):
    config = EvaluateConfig(data=photographs, protocol="warp", pairs_per_image=1, resamples=0)
    report = evaluate(config, {"mine": cv2.SIFT_create(200)})
    assert list(report.summaries) == ["mine"]
    assert report.settings["warp"]["size"] == (240, 320)


def test_synthetic_protocol_ranks_harris_above_noise():
    class Random:
        def detectAndCompute(self, image, mask):  # noqa: N802
            rng = np.random.default_rng(0)
            x, y = rng.uniform(0, 1, (2, 20)) * [[image.shape[1] - 1], [image.shape[0] - 1]]
            return tuple(map(cv2.KeyPoint, x.tolist(), y.tolist(), [1.0] * 20)), None

    config = EvaluateConfig(protocol="synthetic", images=20, resamples=50)
    harris = detectors.build_detector("harris", quota=1)
    report = evaluate(config, {"harris": harris, "random": Random()})
    assert report.protocol == "synthetic"
    for kind in ("clean", "noise"):
        scores = {name: s[kind]["average_precision"] for name, s in report.summaries.items()}
        assert scores["harris"].value > 2 * scores["random"].value
        assert scores["harris"].low < scores["harris"].value < scores["harris"].high
    assert "AP" in report.to_markdown()
    assert len(json.loads(report.to_json())["results"]["harris"]) == 40


def test_the_evaluation_needs_no_torch(photographs):
    script = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "scipy", "train"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
from cv_superpoint.cli import main
sys.exit(main(sys.argv[1:]))
"""
    warp = ["--data", str(photographs), "--protocol", "warp", "--size", "120", "160"]
    synthetic = ["--protocol", "synthetic", "--images", "2"]
    for arguments in (warp, synthetic):
        options = [*arguments, "--detectors", "sift", "orb", "--resamples", "0"]
        command = [sys.executable, "-c", script, "evaluate", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "| sift" in done.stdout
        assert "| orb" in done.stdout


def test_limits_are_of_what_is_known(photographs, capsys):
    options = ["--data", str(photographs), "--protocol", "limits", "--only", "fog"]
    assert main(options) == 1
    assert "limits are of rotation, scale, turned, blur, night; got fog" in capsys.readouterr().err
