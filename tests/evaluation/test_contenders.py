"""Matchers side by side on the same keypoints, under every protocol, and the fit to all matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from evaluating import main
from hypothesis import given, settings
from hypothesis import strategies as st
from made_matchers import LITE, bundled_folder, nearest_file

from cv_superpoint import Features, SuperPointFeature2D
from cv_superpoint.evaluation.contenders import matched, to_features
from cv_superpoint.evaluation.differences import difference_table
from cv_superpoint.evaluation.measure import PairResult, find_turned
from cv_superpoint.evaluation.predictions import detect
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.geometry import warp_points
from cv_superpoint.matching.estimators import weighted_dlt
from cv_superpoint.matching.nearest import mutual_nearest
from cv_superpoint.weights import store

DETECTOR = "superpoint(weights='superpoint-lite',precision='float32',threads=1,maxKeypoints=300)"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("coffee", "chelsea", "rocket"):
        cv2.imwrite(str(folder / f"{name}.png"), getattr(skimage.data, name)()[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(nearest_file(tmp_path_factory.mktemp("matcher") / "m.safetensors"))


@settings(max_examples=20)
@given(seed=st.integers(0, 9999), count=st.integers(4, 60))
def test_exact_matches_give_the_homography_and_weights_leave_wrong_ones_out(
    seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    corners = np.array([[0, 0], [640, 0], [640, 480], [0, 480]], np.float32)
    moved = corners + rng.uniform(-80, 80, (4, 2)).astype(np.float32)
    truth = cv2.getPerspectiveTransform(corners, moved)
    points0 = np.concatenate([corners, rng.uniform(0, (640, 480), (count, 2))])
    points1 = warp_points(truth, points0)
    fitted = weighted_dlt(points0, points1)
    assert fitted is not None
    np.testing.assert_allclose(warp_points(fitted, corners), moved, atol=1e-3)
    points1[-1] += 300
    spoilt = weighted_dlt(points0, points1)
    assert spoilt is not None
    assert np.abs(warp_points(spoilt, corners) - moved).max() > 1
    scores = np.ones(len(points0))
    scores[-1] = 0
    weighted = weighted_dlt(points0, points1, scores)
    assert weighted is not None
    np.testing.assert_allclose(warp_points(weighted, corners), moved, atol=1e-3)


def test_too_few_matches_have_no_fit() -> None:
    assert weighted_dlt(np.zeros((3, 2)), np.zeros((3, 2))) is None
    assert weighted_dlt(np.zeros((0, 2)), np.zeros((0, 2))) is None


def test_a_matcher_gets_what_the_detector_saw(photograph: np.ndarray) -> None:
    """A matcher gets the turned image's positions and size; results are in the image as it was."""
    detector = SuperPointFeature2D.create(
        100, weights=LITE, device="cpu", precision="float32", threads=1
    )
    image = np.ascontiguousarray(photograph[:300, :400])
    seen: list[Features] = []

    def remembers(features0: Features, features1: Features) -> Any:
        seen.extend((features0, features1))
        return mutual_nearest(features0.descriptors, features1.descriptors)

    turned = find_turned(lambda one: detect(detector, one), image, 90)
    plain = detect(detector, image)
    rows, _ = matched(remembers, plain, turned)
    assert [each.image_size for each in seen] == [(300, 400), (400, 300)]
    upright = detector.extract(np.rot90(image))
    np.testing.assert_allclose(seen[1].keypoints, upright.keypoints, atol=1e-4)
    assert seen[0].weights == seen[1].weights == upright.weights != ""
    moved = plain.points[rows[:, 0]] - turned.points[rows[:, 1]]
    assert np.median(np.abs(moved)) < 1
    few = turned.strongest(7)
    np.testing.assert_array_equal(few.seen, turned.seen[:7])
    # Of detectors with descriptors of any length.
    sift = to_features(detect(cv2.SIFT.create(50), image))
    np.testing.assert_allclose(np.linalg.norm(sift.descriptors, axis=1), 1, atol=1e-5)
    assert to_features(detect(cv2.ORB.create(50), image)).descriptor_kind == "binary"


def test_matchers_are_compared_on_the_same_keypoints(
    photographs: Path, learned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluateConfig(
        data=photographs,
        protocol="warp",
        detectors=(f"{DETECTOR},sift",),
        matchers=(f"mutual,ratio,{learned}",),
        cache=tmp_path / "cache",
        out=tmp_path / "out",
        resamples=100,
    )
    report = evaluate(config)
    labels = [DETECTOR, f"{DETECTOR} + ratio", f"{DETECTOR} + {learned}", "sift", "sift + ratio"]
    assert list(report.summaries) == labels
    values = {label: summary["all"] for label, summary in report.summaries.items()}
    assert len({values[label]["keypoints"].value for label in labels[:3]}) == 1
    for label in labels[:3]:
        found = values[label]
        assert found["correct"].value == pytest.approx(
            np.mean([one["correct"] for one in report.results[label]])
        )
        assert 0 < found["correct"].value < found["matches"].value
    assert values[labels[1]]["matches"].value < values[labels[0]]["matches"].value
    # It is made to match about the nearest neighbours.
    precision = [values[label]["match_precision"].value for label in labels[:3:2]]
    assert precision[1] == pytest.approx(precision[0], abs=0.05)
    text = report.to_markdown()
    assert f"{DETECTOR} + ratio − {DETECTOR}" in text
    assert "sift + ratio − sift" in text
    assert len(list((tmp_path / "out").glob("matches_*_worst.png"))) == 5
    command = ["--data", str(photographs), "--protocol", "warp", "--pairs-per-image", "1"]
    assert main([*command, "--detectors", "sift", "--matchers", learned]) == 1
    assert "takes the features of none of the detectors" in capsys.readouterr().err
    assert main([*command, "--detectors", "sift", "--matchers", "mutual,mutual"]) == 1
    assert "matchers must be named once each" in capsys.readouterr().err
    assert main([*command, "--detectors", "sift", "--matchers", "nearest"]) == 1
    assert "no matcher is called 'nearest'" in capsys.readouterr().err


def test_the_learned_matcher_is_left_out_where_weights_have_none(
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = bundled_folder(tmp_path)
    monkeypatch.setattr(store, "weights_folder", lambda: folder)
    others = "superpoint(precision='float32',threads=1,maxKeypoints=100),sift"
    config = EvaluateConfig(
        data=photographs,
        protocol="warp",
        detectors=(f"{DETECTOR},{others}",),
        matchers=("mutual,lightglue",),
        only=("coffee*",),
        estimator="dlt",
        resamples=0,
    )
    labels = list(evaluate(config).summaries)
    assert labels == [DETECTOR, f"{DETECTOR} + lightglue", *others.rsplit(",", 1)]
    assert "no matcher is bundled for superpoint; with one: superpoint-lite" in caplog.text
    assert "sift is not measured with lightglue" in caplog.text


def test_every_protocol_takes_a_matcher(
    photographs: Path, learned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--detectors", DETECTOR, "--matchers", f"mutual,{learned}"]
    label = f"{DETECTOR} + {learned}"
    sequence = tmp_path / "pairs" / "v_one"
    sequence.mkdir(parents=True)
    image = skimage.data.camera()[::2, ::2]
    shift = np.array([[1, 0, -9], [0, 1, 4], [0, 0, 1.0]])
    cv2.imwrite(str(sequence / "1.png"), image)
    cv2.imwrite(str(sequence / "2.png"), cv2.warpPerspective(image, shift, image.shape[::-1]))
    np.savetxt(sequence / "H_1_2", shift)
    for protocol in ("paper", "auc", "plain"):
        options = ["--data", str(sequence.parent), "--protocol", protocol, "--rotations", "0", "90"]
        assert main([*options, *both]) == 0
        assert f"{label} − {DETECTOR}" in capsys.readouterr().out
    limited = ["--protocol", "limits", "--photographs", "1", "--only", "turned"]
    assert main([*limited, "--data", str(photographs), *both]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith(f"| {label}")]
    assert len(rows) == 1
    assert "(1.00)" in rows[0].split("|")[2]
    judged = ["--protocol", "verdict", "--pairs-per-image", "1", "--data", str(photographs)]
    assert main([*judged, "--detectors", DETECTOR, "--matchers", learned]) == 0
    assert "| unrelated, whole      | 3     | 3      | 0 " in capsys.readouterr().out
    assert main([*judged, *both]) == 1
    assert "verdict is about one matcher" in capsys.readouterr().err
    assert main(["--protocol", "synthetic", "--images", "1", *both]) == 1
    assert "leave --matchers out" in capsys.readouterr().err


def test_differences_are_of_pairs() -> None:
    def results(errors: list[float], precision: list[float]) -> list[PairResult]:
        return [
            PairResult(name=str(k), sequence=str(k), kind="warp", corner_error=e, match_precision=p)
            for k, (e, p) in enumerate(zip(errors, precision, strict=True))
        ]

    found = {
        "a": results([0.5, 4.0, np.inf], [0.5, 0.5, np.nan]),
        "b": results([0.5, 2.0, 2.5], [0.7, 0.9, 0.8]),
    }
    columns = ("keypoints", "match_precision", "accuracy_3", "auc_5")
    text = difference_table(found, {"a": "", "b": "a"}, columns)
    (row,) = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| b")]
    assert row[0].strip() == "b − a"
    assert row[1].split()[0] == "+0.300"  # over the two pairs that both have
    assert row[2].split()[0] == "+0.667"
    assert "+2 -0" in row[2]
    assert row[3].split()[0] == f"{(0 + 2 / 5 + 1 / 2) / 3:+.3f}"
    assert difference_table(found, {"a": "", "b": ""}, columns) == ""
