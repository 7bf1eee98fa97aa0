"""Matchers of OpenCV, of the package and of users behind one protocol."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from made_matchers import LITE, bundled_folder, nearest_file
from pinned import PINNED

from cv_superpoint import (
    FeatureError,
    Features,
    SuperPointError,
    SuperPointFeature2D,
    WeightsError,
    match_features,
    match_pair,
    mutual_nearest,
)
from cv_superpoint.cli import main
from cv_superpoint.matching.matchers import (
    MATCHERS,
    Guided,
    NearestNeighbours,
    OpenCVMatcher,
    build_matcher,
)
from cv_superpoint.matching.tracking import Tracker
from cv_superpoint.weights import store

PHOTOGRAPH = np.ascontiguousarray(skimage.data.coffee()[60:300, 150:470, ::-1])
OTHER = cv2.warpAffine(PHOTOGRAPH, cv2.getRotationMatrix2D((160, 120), 12, 0.9), (320, 240))


@pytest.fixture(scope="module")
def both() -> list[Features]:
    detector = SuperPointFeature2D.create(300, **PINNED)
    return [detector.extract(image) for image in (PHOTOGRAPH, OTHER)]


def pairs_of(found: Any) -> set[tuple[int, int]]:
    return set(map(tuple, found[0].tolist()))


def test_opencvs_matchers_find_mutual_neighbours(both: list[Features]) -> None:
    expected = pairs_of(mutual_nearest(both[0].descriptors, both[1].descriptors))
    for crossed in (False, True):
        found = OpenCVMatcher(cv2.BFMatcher(cv2.NORM_L2, crossCheck=crossed))(*both)
        assert pairs_of(found) == expected
        assert found[1].dtype == np.float32
    flann = pairs_of(OpenCVMatcher(cv2.FlannBasedMatcher())(*both))
    assert len(flann & expected) > 0.7 * len(expected)
    tested = pairs_of(OpenCVMatcher(cv2.BFMatcher(cv2.NORM_L2), max_ratio=0.9)(*both))
    assert tested == pairs_of(NearestNeighbours(max_ratio=0.9)(*both))
    assert len(tested) < len(expected)


def test_scores_are_higher_of_surer_matches(both: list[Features]) -> None:
    result = match_features(*both)
    for matcher in (NearestNeighbours(), OpenCVMatcher(cv2.BFMatcher(cv2.NORM_L2)), Guided()):
        found = match_features(*both, matcher=matcher)
        assert found.scores[found.inliers].mean() > found.scores[~found.inliers].mean()
        rows = set(map(tuple, result.matches.tolist()))
        common = [i for i, row in enumerate(found.matches.tolist()) if tuple(row) in rows]
        assert len(common) > 0.8 * len(found)
        # Cosines whatever the matcher scores by.
        assert np.all(np.abs(found.similarity) <= 1 + 1e-5)


def test_guided_finds_more(both: list[Features]) -> None:
    assert (
        match_features(*both, matcher=Guided()).inliers.sum() > match_features(*both).inliers.sum()
    )
    none = both[0][:0]
    for name in MATCHERS:
        rows, scores = build_matcher(name)(none, both[1])
        assert rows.shape == (0, 2)
        assert scores.shape == (0,)


def test_a_pair_takes_any_matcher(both: list[Features]) -> None:
    def first_ten(features0: Features, features1: Features) -> Any:
        rows, scores = NearestNeighbours()(features0, features1)
        return rows[:10], scores[:10]

    detector = SuperPointFeature2D.create(300, **PINNED)
    assert len(match_pair(PHOTOGRAPH, OTHER, detector, matcher=first_ten)) == 10
    for wrong, says in (
        (np.zeros((3, 3), int), r"\(M, 2\) rows"),
        (np.zeros((3, 2)), "float64"),
        (np.full((3, 2), 10_000), "not there"),
        (np.full((3, 2), -1), "not there"),
    ):
        with pytest.raises(FeatureError, match=says):
            match_features(*both, matcher=lambda *_, rows=wrong: (rows, np.zeros(3)))
    with pytest.raises(FeatureError, match="a score for each match"):
        match_features(*both, matcher=lambda *_: (np.zeros((3, 2), int), np.zeros(2)))
    with pytest.raises(FeatureError, match="OpenCVMatcher"):
        match_features(*both, matcher=cv2.BFMatcher())  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match="tests of nearest neighbours"):
        match_features(*both, matcher=Guided(), max_ratio=0.9)
    with pytest.raises(FeatureError, match="max_ratio"):
        OpenCVMatcher(cv2.BFMatcher(), max_ratio=2)


def test_a_matcher_sees_positions_in_the_turned_picture() -> None:
    seen: list[Features] = []

    def remembers(features0: Features, features1: Features) -> Any:
        seen.append(features1)
        return NearestNeighbours()(features0, features1)

    detector = SuperPointFeature2D.create(200, **PINNED)
    sideways = np.ascontiguousarray(np.rot90(OTHER, -1))
    result = match_pair(PHOTOGRAPH, sideways, detector, rotations=(90,), matcher=remembers)
    upright = detector.extract(np.rot90(sideways))
    assert seen[0].image_size == OTHER.shape[:2]
    np.testing.assert_array_equal(seen[0].keypoints, upright.keypoints)
    assert result.features1.image_size == sideways.shape[:2]
    assert result.reliable


def test_the_learned_matcher_is_that_of_the_weights_in_use(
    both: list[Features], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundled_folder(tmp_path)
    monkeypatch.setattr(store, "weights_folder", lambda: folder)
    detector = SuperPointFeature2D.create(300, weights=LITE, **PINNED)
    result = match_pair(PHOTOGRAPH, OTHER, detector, matcher=build_matcher("lightglue"))
    nearest = match_pair(PHOTOGRAPH, OTHER, detector)
    assert result.reliable
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    common = pairs_of((result.matches,)) & pairs_of((nearest.matches,))
    assert len(common) > 0.8 * len(result) > 0.5 * len(nearest)
    assert result.inliers.sum() > 0.8 * nearest.inliers.sum()
    named = match_features(
        result.features0,
        result.features1,
        matcher=build_matcher(str(tmp_path / "matcher.safetensors")),
    )
    np.testing.assert_array_equal(named.matches, result.matches)
    learned = build_matcher("lightglue")
    with pytest.raises(WeightsError, match="no matcher is bundled for superpoint; with one: supe"):
        learned(*both)
    unknown = [replace(each, weights="") for each in both]
    with pytest.raises(FeatureError, match="do not say which weights"):
        learned(*unknown)
    with pytest.raises(FeatureError, match="for the features of superpoint-lite, image 1 has"):
        learned(result.features0, both[1])


def test_matchers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_matchers.py").write_text(
        "from cv_superpoint.matching.matchers import NearestNeighbours\n"
        "def strict():\n    return NearestNeighbours(max_ratio=0.5)\n"
        "number = int\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(build_matcher("my_matchers:strict"), NearestNeighbours)
    for name, says in (
        ("nearest", "use mutual, ratio"),
        ("missing.safetensors", "no such weights file"),
        ("my_matchers:missing", "cannot make"),
        ("no_such_module:x", "cannot make"),
        ("my_matchers:number", "cannot be called"),
    ):
        with pytest.raises(SuperPointError, match=says):
            build_matcher(name)
    sys.modules.pop("my_matchers", None)


def test_the_command_takes_matchers_and_estimators(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, image in (("a.png", PHOTOGRAPH), ("b.png", OTHER)):
        paths.append(str(tmp_path / name))
        cv2.imwrite(paths[-1], image)
    counts = {}
    for name in ("mutual", "ratio", "guided"):
        out = tmp_path / name
        assert main(["match", *paths, "-o", str(out), "--matcher", name]) == 0
        counts[name] = len((out / "matches.csv").read_text().splitlines())
    assert counts["ratio"] < counts["mutual"] < 2 * counts["guided"]
    assert main(["match", *paths, "-o", str(tmp_path / "r"), "--estimator", "ransac"]) == 0
    learned = str(nearest_file(tmp_path / "m.safetensors"))
    lite = ["--weights", LITE, "--matcher", learned]
    assert main(["match", *paths, "-o", str(tmp_path / "l"), *lite]) == 0
    assert len((tmp_path / "l" / "matches.csv").read_text().splitlines()) > 50
    capfd.readouterr()
    assert main(["match", *paths, "-o", str(tmp_path / "x"), "--matcher", "nearest"]) == 1
    assert "no matcher is called" in capfd.readouterr().err
    assert main(["match", *paths, "-o", str(tmp_path / "x"), "--matcher", learned]) == 1
    assert "is for the 64 numbers of superpoint-lite" in capfd.readouterr().err
    assert main(["stitch", *paths, "-o", str(tmp_path / "p.png"), "--matcher", "nearest"]) == 1
    assert "no matcher is called" in capfd.readouterr().err


def test_tracks_take_a_matcher() -> None:
    def strongest(features0: Features, features1: Features) -> Any:
        rows, scores = NearestNeighbours()(features0, features1)
        return rows[:20], -scores[:20]  # scores that are no cosines

    detector = SuperPointFeature2D.create(200, **PINNED)
    frames = [np.ascontiguousarray(PHOTOGRAPH[:200, x : x + 250]) for x in (0, 3, 6)]
    for matcher, fewest, most in ((NearestNeighbours(), 30, 200), (strongest, 10, 20)):
        tracker = Tracker(reach=40, matcher=matcher)
        followed = [tracker.update(detector.extract(frame)) for frame in frames]
        assert followed[0] == 0
        assert fewest <= followed[1] <= most
        assert (tracker.ages == 2).sum() > fewest / 2
