"""What the viewer computes of two pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.errors import SuperPointError
from cv_superpoint.viewer.analysis import COLUMNS, Settings, analyse
from cv_superpoint.viewer.networks import DetectorSettings, LoadedNetwork, load_networks
from cv_superpoint.viewer.pictures import draw_on_screen, second_view, shrink_for_screen, warp_onto

NAMES = ("superpoint", "superpoint-lite", "SIFT", "ORB")


@pytest.fixture(scope="module")
def networks() -> tuple[LoadedNetwork, ...]:
    return load_networks(device="cpu")


def with_options(*, matcher: str = "mutual", refine: bool = False, **detection: Any) -> Settings:
    asked = {"max_keypoints": 300, "threshold": 0.01, **detection}
    return Settings(detection=DetectorSettings(**asked), matcher=matcher, refine=refine)


def row(analysis: Any, name: str) -> dict[str, Any]:
    (found,) = (each for each in analysis.rows if each[0] == name)
    return dict(zip(COLUMNS, found, strict=True))


def test_what_is_shown(networks: Any, coffee: Any) -> None:
    other, truth = second_view(coffee)
    result = analyse(coffee, other, with_options(), networks, truth)
    assert tuple(each[0] for each in result.rows) == NAMES
    for name in NAMES[:2]:
        ours = row(result, name)
        assert float(ours["error, px"]) < 3
        assert 20 < ours["inliers"] <= ours["matches"]
        assert float(ours["ms"]) > 0
    ours = row(result, "superpoint")
    first = int(ours["keypoints"].split(" / ")[0])
    assert ours["matches"] <= first <= 300
    assert row(result, "SIFT")["inliers"] > 20
    assert result.heatmap.shape == coffee.shape
    assert all(picture.shape == (240, 640, 3) for picture in result.matches.values())
    with zipfile.ZipFile(io.BytesIO(result.download)) as archive:
        table = np.loadtxt(archive.open("matches.csv"), delimiter=",", skiprows=1)
        with np.load(io.BytesIO(archive.read("keypoints0.npz"))) as arrays:
            assert len(arrays["keypoints"]) == first
            rows = table[:, 0].astype(int)
            np.testing.assert_allclose(table[:, 2:4], arrays["keypoints"][rows], rtol=1e-5)
    assert table[:, 6].sum() == ours["inliers"]


def test_options_have_an_effect(networks: Any, coffee: Any) -> None:
    small = np.ascontiguousarray(coffee[40:240, 80:320])
    other, truth = second_view(small)
    base = {"threshold": 0.005, "max_keypoints": 100}
    plain = row(analyse(small, other, with_options(**base), networks[:1], truth), "superpoint")
    for changed in (
        {"matcher": "ratio"},
        {"nms_radius": 12},
        {"max_keypoints": 20},
        {"threshold": 0.6},
        {"threshold": None},
        {"subpixel": False},
        {"scales": (1.0, 0.5)},
        {"descriptors": "binary"},
        {"matcher": "guided"},
    ):
        settings = with_options(**{**base, **changed})
        figures = row(analyse(small, other, settings, networks[:1], truth), "superpoint")
        figures["ms"] = plain["ms"]
        assert figures != plain, changed


def test_sets_keep_what_they_recommend(networks: Any) -> None:
    for network in networks:
        own = network.detector(DetectorSettings()).config
        asked = network.detector(DetectorSettings(threshold=0.1, scales=(1.0,))).config
        assert (asked.decoding.score_threshold, asked.scales) == (0.1, (1.0,))
        made = SuperPointFeature2D.create(1000, weights=network.name, device="cpu")
        assert own.decoding.score_threshold == made.getScoreThreshold()
        assert own.scales == tuple(made.getScales())


def test_the_chosen_set_comes_first() -> None:
    names = [each.name for each in load_networks("superpoint-lite", device="cpu")]
    assert names == ["superpoint-lite", "superpoint"]


@pytest.mark.parametrize("descriptors", ["uint8", "binary"])
def test_compact_descriptors_of_both_sets(networks: Any, coffee: Any, descriptors: Any) -> None:
    other, truth = second_view(coffee)
    settings = with_options(descriptors=descriptors)
    result = analyse(coffee, other, settings, networks, truth)
    assert all(row(result, name)["inliers"] > 20 for name in NAMES[:2])
    with (
        zipfile.ZipFile(io.BytesIO(result.download)) as archive,
        np.load(io.BytesIO(archive.read("keypoints0.npz"))) as arrays,
    ):
        assert arrays["descriptors"].dtype == np.uint8
        assert arrays["descriptors"].shape[1] == {"uint8": 256, "binary": 32}[descriptors]


def test_options_that_do_not_go_together_are_said(networks: Any, coffee: Any) -> None:
    settings = with_options(descriptors="binary", matcher="flann")
    with pytest.raises(SuperPointError, match="does not take binary descriptors; use"):
        analyse(coffee, coffee, settings, networks)


def test_a_learned_matcher_belongs_to_its_weights(coffee: Any, unmatched: str) -> None:
    networks = load_networks(unmatched, device="cpu")
    names = [each.name for each in networks]
    file = Path(unmatched).name
    assert set(names) == {file, "superpoint", "superpoint-lite"}
    other, truth = second_view(coffee)
    plain = analyse(coffee, other, with_options(), networks, truth)
    learned = analyse(coffee, other, with_options(matcher="lightglue"), networks, truth)
    # A set without one is matched by nearest neighbours, and its row says so.
    assert [each[0] for each in learned.rows] == [
        f"{file}, mutual" if name == file else name for name in (*names, "SIFT", "ORB")
    ]
    for name in ("superpoint", "superpoint-lite"):
        assert row(learned, name)["matches"] != row(plain, name)["matches"]
        assert row(learned, name)["inliers"] > 20
    without = row(learned, f"{file}, mutual")
    assert without["matches"] == row(plain, file)["matches"]


def test_refined_beside_plain(networks: Any, coffee: Any) -> None:
    other, truth = second_view(coffee)
    result = analyse(coffee, other, with_options(refine=True), networks, truth)
    names = [each[0] for each in result.rows]
    assert names == [f"{name}{more}" for name in NAMES for more in ("", ", refined")]
    for name in NAMES[:3]:
        plain, exact = row(result, name), row(result, f"{name}, refined")
        assert float(exact["error, px"]) < min(0.3, float(plain["error, px"]))
        assert exact["matches"] == plain["matches"]
    assert tuple(result.matches) == NAMES


def test_flat_pictures_are_no_error(networks: Any) -> None:
    flat = np.full((64, 80, 3), 127, np.uint8)
    result = analyse(flat, flat, with_options(threshold=0.5), networks)
    assert [each[3] for each in result.rows] == [0, 0, 0, 0]
    assert result.overlay.shape == result.warped.shape == flat.shape


def test_pictures_for_the_screen(coffee: Any) -> None:
    assert shrink_for_screen(np.zeros((100, 3200, 3), np.uint8)).shape == (50, 1600, 3)
    other, truth = second_view(coffee)
    # Where picture 0 reaches, it is as picture 1 but for the change of light.
    bright = np.clip(0.8 * warp_onto(coffee, other, truth) + 10, 0, 255)[60:-60, 80:-80]
    assert np.abs(bright - other[60:-60, 80:-80]).mean() < 2
    large = cv2.resize(coffee, None, fx=5, fy=5)
    ends = np.array([[100, 700]], np.float32), np.array([[1500, 700]], np.float32)
    drawn = draw_on_screen(large, large, *ends, np.ones(1, np.bool_))
    assert drawn.shape == (600, 1600, 3)
    blue, green, red = drawn[350, 100:1500].astype(int).T
    assert np.mean((green > blue + 60) & (green > red + 60)) > 0.9  # the line, whole
