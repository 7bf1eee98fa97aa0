"""Whole protocols on pairs whose answers are known, the readers, and the command."""

import json
import math
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import skimage.data

from train.evaluate import detectors, metrics
from train.evaluate.datasets import HPatches, ImagePair
from train.evaluate.measure import evaluate_pairs, find_turned, fit_pair, measure
from train.evaluate.predictions import Detections, PredictionCache, detect
from train.evaluate.protocols import PROTOCOLS, Fit
from train.evaluate.results import summarise
from train.evaluate.run import EvaluateConfig, evaluate, main
from train.evaluate.warps import WarpConfig, WarpedPhotographs, warp_pair

SHIFT = np.array([[1, 0, -37], [0, 1, 21], [0, 0, 1.0]])


@pytest.fixture(scope="module")
def photograph():
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def coffee():
    return cv2.cvtColor(skimage.data.coffee(), cv2.COLOR_RGB2GRAY)


def translated_pair(image):
    """Two windows of 300 x 400 that are 37 px and 21 px apart."""
    first, second = image[60:360, 40:440], image[39:339, 77:477]
    return ImagePair(
        name="v_shift 1-2",
        sequence="v_shift",
        kind="viewpoint",
        images=(np.ascontiguousarray(first), np.ascontiguousarray(second)),
        h_0to1=SHIFT,
        keys=("1", "2"),
    )


class PerfectDetector:
    """Knows where 400 world points lie in the images it was told of, and describes each alike."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.world = rng.uniform(0, 512, (400, 2))
        self.scores = rng.permutation(400) / 400
        rows = rng.normal(size=(400, 32))
        self.rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.views = {}

    def tell(self, image, homography):
        self.views[image.tobytes()] = homography

    def tell_pair(self, pair, protocol):
        """Window 0 starts at (40, 60) of the world."""
        for step in protocol.passes:
            (image0, image1), h_0to1 = fit_pair(pair, step.fit)
            to_fitted = step.fit.apply(pair.images[0])[1]
            window = np.array([[1, 0, -40], [0, 1, -60], [0, 0, 1.0]])
            self.tell(image0, to_fitted @ window)
            self.tell(image1, h_0to1 @ to_fitted @ window)

    def detectAndCompute(self, image, mask):  # noqa: N802
        points = metrics.warp_points(self.world, self.views[image.tobytes()])
        seen = metrics.inside(points, image.shape)
        keypoints = tuple(
            cv2.KeyPoint(float(x), float(y), 1, -1, float(score))
            for (x, y), score in zip(points[seen], self.scores[seen], strict=True)
        )
        return keypoints, self.rows[seen]


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_perfect_detector_is_perfect_on_a_translation(photograph, name):
    pair, protocol, detector = translated_pair(photograph), PROTOCOLS[name], PerfectDetector()
    detector.tell_pair(pair, protocol)
    (result,) = evaluate_pairs([pair], partial(detect, detector), protocol)
    # The greedy suppression of `paper` picks the same points in both views, but at the borders.
    assert result.repeatability > 0.97 if name == "paper" else result.repeatability == 1
    assert result.localisation_error == pytest.approx(0, abs=0.02)
    # Points outside the shared view are matched too in all protocols but `paper`.
    assert result.match_precision > 0.9 if name != "paper" else result.match_precision == 1
    assert result.matching_score == 1
    assert result.corner_error == pytest.approx(0, abs=1e-2)
    assert result.inliers > 100


def test_repeatability_and_accuracy_of_the_summary(photograph):
    pair, protocol, detector = translated_pair(photograph), PROTOCOLS["plain"], PerfectDetector()
    detector.tell_pair(pair, protocol)
    results = list(evaluate_pairs([pair], partial(detect, detector), protocol))
    summary = summarise(results)
    assert set(summary) == {"all"}
    assert summary["all"]["accuracy_1"].value == 1
    assert summary["all"]["auc_5"].value == pytest.approx(1, abs=1e-2)
    assert math.isnan(summary["all"]["accuracy_1"].low), "one sequence allows no interval"


def test_sift_finds_an_integer_translation(photograph):
    detector = detectors.build_detector("sift", quota=1000)
    (result,) = evaluate_pairs(
        [translated_pair(photograph)], partial(detect, detector), PROTOCOLS["plain"]
    )
    assert result.repeatability > 0.9
    assert result.localisation_error < 0.1
    assert result.corner_error < 0.1


def test_a_detector_that_finds_nothing_scores_nothing(photograph):
    class Blind:
        def detectAndCompute(self, image, mask):  # noqa: N802
            return (), None

    for name in PROTOCOLS:
        (result,) = evaluate_pairs(
            [translated_pair(photograph)], partial(detect, Blind()), PROTOCOLS[name]
        )
        assert result.repeatability == 0
        assert math.isnan(result.localisation_error)
    assert summarise([result])["all"]["repeatability"].value == 0


def test_the_paper_counts_only_the_shared_view(photograph):
    detector = detectors.build_detector("orb", quota=1000)
    pair = translated_pair(photograph)
    step = PROTOCOLS["paper"].passes[1]
    (image0, image1), h_0to1 = fit_pair(pair, step.fit)
    found0, found1 = detect(detector, image0), detect(detector, image1)
    sizes = (image0.shape, image1.shape)
    counted = measure(found0, found1, h_0to1, sizes, step)["keypoints"]
    keep0, keep1 = metrics.shared_view(found0.points, found1.points, h_0to1, *sizes)
    assert counted == (keep0.sum() + keep1.sum()) / 2 < (len(found0) + len(found1)) / 2


def test_matches_of_another_matcher_can_be_measured(photograph):
    detector = detectors.build_detector("sift", quota=1000)
    pair, step = translated_pair(photograph), PROTOCOLS["plain"].passes[0]
    found0, found1 = (detect(detector, image) for image in pair.images)
    sizes = (pair.images[0].shape, pair.images[1].shape)
    distances = metrics.pixel_distances(metrics.warp_points(found0.points, SHIFT), found1.points)
    true = metrics.mutual_matches(distances)
    true = true[distances[true[:, 0], true[:, 1]] < 1]
    measured = measure(found0, found1, SHIFT, sizes, step, matches=true)
    assert measured["match_precision"] == 1
    assert measured["matches"] == measured["inliers"] == len(true)
    assert measured["corner_error"] < 0.1
    assert "nn_map" not in measured


def test_rotation_search_recovers_a_turned_image(photograph):
    image = np.ascontiguousarray(photograph[:300, :400])
    turned = np.ascontiguousarray(np.rot90(image))
    h_0to1 = np.array([[0, 1, 0], [-1, 0, 399], [0, 0, 1.0]])
    pair = ImagePair(
        name="v_turn 1-2",
        sequence="v_turn",
        kind="viewpoint",
        images=(image, turned),
        h_0to1=h_0to1,
        keys=("1", "2"),
    )
    # SIFT without orientation: every keypoint is described as if it were upright.
    sift = cv2.SIFT_create()

    class Upright:
        def detectAndCompute(self, image, mask):  # noqa: N802
            keypoints = [
                cv2.KeyPoint(*k.pt, k.size, 0, k.response, k.octave) for k in sift.detect(image)
            ]
            return sift.compute(image, keypoints)

    find = partial(detect, Upright())
    (plain,) = evaluate_pairs([pair], find, PROTOCOLS["plain"])
    (search,) = evaluate_pairs([pair], find, PROTOCOLS["plain"], rotations=(0, 90, 180, 270))
    assert search.rotation == 270
    assert search.match_precision > 0.9 > 0.3 > plain.match_precision
    assert search.corner_error < 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_points_of_a_turned_image_come_back(rotation):
    image = np.zeros((30, 50), np.uint8)
    image[7, 40] = 255

    def brightest(image):
        y, x = np.unravel_index(image.argmax(), image.shape)
        return Detections(
            points=np.array([[x, y]], np.float64),
            scores=np.ones(1),
            descriptors=np.ones((1, 4), np.float32),
            binary=False,
        )

    assert find_turned(brightest, image, rotation).points.tolist() == [[40, 7]]


@pytest.mark.parametrize(
    ("fit", "size"),
    [
        (Fit(rule="cover", size=(120, 160)), (120, 160)),
        (Fit(rule="cover", size=(480, 640)), (480, 640)),
        (Fit(rule="shorter", side=200), (200, 267)),
        (Fit(rule="longer", side=150, enlarge=False), (112, 150)),
        (Fit(rule="longer", side=900, enlarge=False), (300, 400)),
        (Fit(rule="keep"), (300, 400)),
    ],
)
def test_fitting_moves_content_where_its_matrix_says(fit, size):
    y, x = np.mgrid[:300, :400]
    spot = np.exp(-((x - 170.3) ** 2 + (y - 140.6) ** 2) / (2 * 12**2))
    fitted, matrix = fit.apply((spot * 255).astype(np.uint8))
    assert fitted.shape == size
    weights = np.maximum(fitted.astype(np.float64) - 20, 0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = [(weights * grid).sum() / weights.sum() for grid in (columns, rows)]
    np.testing.assert_allclose(centre, metrics.warp_points([[170.3, 140.6]], matrix)[0], atol=0.05)


def write_sequence(folder, image, suffix, numbers=(1, 2), homography=SHIFT):
    folder.mkdir(parents=True)
    for number in numbers:
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), image)
        if number > 1:
            np.savetxt(folder / f"H_1_{number}", homography)


@pytest.fixture
def hpatches(tmp_path, photograph, coffee):
    """Two good sequences, and one of each fault."""
    root = tmp_path / "hpatches"
    pair = translated_pair(photograph)
    write_sequence(root / "v_shift", pair.images[0], ".png")
    assert cv2.imwrite(str(root / "v_shift" / "2.png"), pair.images[1])
    colour = np.dstack([coffee, coffee // 2, coffee])
    write_sequence(root / "i_same", colour, ".ppm", (1, 2, 4), np.eye(3))
    write_sequence(root / "v_headless", coffee, ".png", (2, 3))
    write_sequence(root / "v_unknown", coffee, ".png", (1, 2, 3))
    (root / "v_unknown" / "H_1_2").unlink()
    (root / "v_unknown" / "H_1_3").write_text("1 0 0 0 1")
    write_sequence(root / "v_flat", coffee, ".png", (1, 2), np.ones((3, 3)))
    (root / "notes.txt").write_text("not a sequence")
    return root


def test_the_reader_takes_what_is_there_and_lists_the_rest(hpatches):
    source = HPatches(root=hpatches)
    pairs = list(source)
    assert [pair.name for pair in pairs] == ["i_same 1-2", "i_same 1-4", "v_shift 1-2"]
    assert [pair.kind for pair in pairs] == ["illumination", "illumination", "viewpoint"]
    assert len(source) == 3
    assert all(image.ndim == 2 for pair in pairs for image in pair.images)
    np.testing.assert_allclose(pairs[-1].h_0to1, SHIFT)
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
    with pytest.raises(ValueError, match=r"cannot read .*2\.png"):
        list(HPatches(root=hpatches, only=("v_shift",)))


@pytest.fixture
def photographs(tmp_path, photograph, coffee):
    root = tmp_path / "photographs"
    (root / "more").mkdir(parents=True)
    assert cv2.imwrite(str(root / "astronaut.png"), photograph)
    assert cv2.imwrite(str(root / "more" / "coffee.jpg"), coffee)
    (root / "readme.txt").write_text("two photographs")
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


def test_the_homography_of_a_warp_is_the_one_of_its_images(photograph):
    still = WarpConfig(size=(120, 160), noise=0, blur=0, contrast=1, brightness=0)
    for number in range(3):
        pair = warp_pair(photograph, "astronaut", number, still)
        assert [image.shape for image in pair.images] == [(120, 160)] * 2
        warped = cv2.warpPerspective(pair.images[0], pair.h_0to1, (160, 120))
        seen = cv2.warpPerspective(np.full((120, 160), 255, np.uint8), pair.h_0to1, (160, 120))
        difference = np.abs(warped.astype(int) - pair.images[1])[seen == 255]
        assert np.median(difference) <= 1


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


def test_harris_has_no_descriptors_and_is_not_matched(photograph):
    detector = detectors.build_detector("harris", quota=100)
    found = detect(detector, photograph)
    assert len(found) > 100
    assert not found.described
    (result,) = evaluate_pairs(
        [translated_pair(photograph)], partial(detect, detector), PROTOCOLS["plain"]
    )
    assert result.repeatability > 0.9
    assert math.isnan(result.corner_error)
    assert math.isnan(summarise([result])["all"]["accuracy_1"].value)


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
    document = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    assert document["protocol"] == "plain"
    assert document["detectors"]["sift"]["viewpoint"]["accuracy_1"]["value"] == 1
    assert document["detectors"]["sift"]["all"]["repeatability"]["low"] is not None
    names = [result["name"] for result in document["results"]["orb"]]
    assert names == ["i_same 1-2", "i_same 1-4", "v_shift 1-2"]
    assert (out / "results.md").read_text() in printed
    assert (out / "pairs.csv").read_text().startswith("protocol,detector,name,")
    for picture in ("bars_all", "bars_viewpoint", "matches_sift_best", "matches_orb_worst"):
        assert cv2.imread(str(out / f"{picture}.png")) is not None


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
    assert main(["--data", str(tmp_path), "--detectors", "sift,sift"]) == 2
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
