"""What COLMAP's library would store wrongly, pass over or fail at without a name."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import made_features

from cv_superpoint import Features
from cv_superpoint.interop import colmap
from cv_superpoint.interop.checks import merge_directions
from cv_superpoint.interop.hloc import StoreError

POINTS = np.random.default_rng(0).uniform(5, 230, (60, 2))
ROWS = np.stack([np.arange(60)] * 2, axis=1)


def images(*names: str) -> dict[str, Features]:
    """Views of one plane, each moved a little, with the keypoints in the same order."""
    return {
        name: made_features(POINTS + 2 * index, (240, 320), seed=index)
        for index, name in enumerate(names)
    }


def stored_matches(path: Path, one: str, other: str) -> Any:
    with pycolmap.Database.open(path) as database:
        ids = [database.read_image_with_name(name).image_id for name in (one, other)]
        return database.read_matches(*ids)


# ---- pairs ----


def test_both_directions_of_a_pair_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    matches = {
        ("a", "b"): np.array([[0, 5], [1, 6], [0, 5]]),
        ("b", "a"): np.array([[6, 1], [9, 2]]),
        ("c", "a"): np.array([[3, 4]]),
    }
    colmap.write_database(path, images("a", "b", "c"), matches)
    assert stored_matches(path, "a", "b").tolist() == [[0, 5], [1, 6], [2, 9]]
    assert stored_matches(path, "b", "a").tolist() == [[5, 0], [6, 1], [9, 2]]
    assert stored_matches(path, "c", "a").tolist() == [[3, 4]]


rows_of = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=12)


@settings(max_examples=50, deadline=None)
@given(rows_of, rows_of)
def test_merging_loses_and_invents_nothing(
    forward: list[tuple[int, int]], backward: list[tuple[int, int]]
) -> None:
    merged = merge_directions({("a", "b"): forward, ("b", "a"): backward}, images("a", "b"))
    assert list(merged) == [("a", "b")]
    expected = dict.fromkeys([*forward, *((one, other) for other, one in backward)])
    assert list(map(tuple, merged["a", "b"].tolist())) == list(expected)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[0, 60]], "match 0 names keypoint 60 of 'b.png', which has 60"),
        ([[1, 1], [-1, 0]], "match 1 names keypoint -1 of 'a.png'"),
        ([[2**40, 0]], "names keypoint 1099511627776 of 'a.png'"),
        ([[0.0, 1.0]], r"must be \(M, 2\) row numbers, got float64 \(1, 2\)"),
        ([[0, 1, 2]], r"got int64 \(1, 3\)"),
        ([3, 4], r"got int64 \(2,\)"),
        ([[True, False]], "got bool"),
    ],
)
def test_rows_that_are_none_name_the_pair(rows: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"^matches of 'a\.png' and 'b\.png'.*{says}"):
        colmap.write_database(
            tmp_path / "x.db", images("a.png", "b.png"), {("a.png", "b.png"): rows}
        )
    assert not list(tmp_path.iterdir())


def test_an_image_is_not_matched_with_itself(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'a' and 'a': an image is not matched with itself"):
        colmap.write_database(tmp_path / "x.db", images("a"), {("a", "a"): ROWS})


def test_no_match_is_a_pair_without_any(tmp_path: Path) -> None:
    for index, none in enumerate(([], np.empty((0, 2)), np.empty((0, 2), np.uint32))):
        path = tmp_path / f"{index}.db"
        colmap.write_database(path, images("a", "b"), {("a", "b"): none})
        assert len(stored_matches(path, "a", "b")) == 0


def test_what_is_there_already_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    colmap.write_database(path, images("a", "b"), {("a", "b"): ROWS})
    for what, clear in (("keypoints of 'a'", "keypoints"), ("descriptors of 'a'", "descriptors")):
        with pytest.raises(StoreError, match=f"already has {what}.*clear_{clear}"):
            colmap.write_database(path, images("a", "b"), {("b", "a"): ROWS})
        with pycolmap.Database.open(path) as database:
            getattr(database, f"clear_{clear}")()
    with pytest.raises(StoreError, match="already has matches of 'b' and 'a'"):
        colmap.write_database(path, images("a", "b"), {("b", "a"): ROWS})


# ---- features and cameras ----


@pytest.mark.parametrize("field", ["keypoints", "descriptors", "scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(field: str, value: float, tmp_path: Path) -> None:
    made = images("good.png", "bad.png")
    rows = getattr(made["bad.png"], field).copy()
    rows[7] = value
    made["bad.png"] = replace(made["bad.png"], **{field: rows})
    with pytest.raises(StoreError, match=rf"'bad\.png': {field} must be finite, row 7 is"):
        colmap.write_database(tmp_path / "x.db", made, {})


def test_features_whose_rows_do_not_belong_together(tmp_path: Path) -> None:
    made = images("a")
    made["a"] = replace(made["a"], descriptors=made["a"].descriptors[:5])
    with pytest.raises(StoreError, match="'a' has 60 keypoints, but 5 rows of descriptors"):
        colmap.write_database(tmp_path / "x.db", made, {})


@pytest.mark.parametrize(
    ("size", "remedy"),
    [((1600, 1200), "at the camera's size"), ((240, 320), "does not turn pictures by their EXIF")],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_camera_of_another_size(
    size: tuple[int, int], remedy: str, known: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    width, height = size
    camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", 300, width, height)
    cameras = {"a.png": camera}
    if known:
        with pycolmap.Database.open(path) as database:
            number = database.write_camera(camera)
            database.write_image(pycolmap.Image(name="a.png", camera_id=number))
        cameras = {}
    says = rf"camera of 'a\.png' is {width} x {height} .* picture of 320 x 240; .*{remedy}"
    with pytest.raises(StoreError, match=says):
        colmap.write_database(path, images("a.png"), {}, cameras=cameras)


# ---- names ----

NAMES = (
    "with space.png",
    "two  spaces/and more.png",
    " leading",
    "trailing ",
    "#comment",
    "tab\tname",
    "line\nbreak",
    "größe.png",
    "2",
    "plain.png",
)


def test_names_of_every_kind_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    pairs = [(NAMES[-1], name) for name in NAMES[:-1]]
    colmap.write_database(path, images(*NAMES), dict.fromkeys(pairs, ROWS))
    pycolmap.set_random_seed(0)
    colmap.verify_database(path, pairs[4:])
    colmap.verify_database(path, dict.fromkeys(pairs[:4]))
    with pycolmap.Database.open(path) as database:
        assert [each.name for each in database.read_all_images()] == list(NAMES)
        for one, other in pairs:
            ids = [database.read_image_with_name(name).image_id for name in (one, other)]
            assert len(database.read_two_view_geometry(*ids).inlier_matches) == 60, other
    assert [each.name for each in tmp_path.iterdir()] == ["database.db"]


@pytest.mark.parametrize("name", ["", "a\0b", "\udce4.png", Path("a.png"), None])
def test_names_that_cannot_be_stored(name: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="name of an image"):
        colmap.write_database(tmp_path / "x.db", {name: made_features(POINTS, (240, 320))}, {})


def test_pairs_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    colmap.write_database(path, images("a", "b", "c"), {("a", "b"): ROWS})
    for pair, says in (
        (("a", "typo"), "has no image 'typo'"),
        (("b", "c"), "has no matches of 'b' and 'c'"),
        (("a", "a"), "has no matches of 'a' and 'a'"),
    ):
        with pytest.raises(StoreError, match=says):
            colmap.verify_database(path, [("a", "b"), pair])


# ---- databases ----


def test_reading_makes_nothing_and_waits_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    actions = (
        lambda: colmap.read_keypoints(path, "a"),
        lambda: colmap.verify_database(path, [("a", "b")]),
    )
    for act in actions:
        with pytest.raises(StoreError, match="there is no database"):
            act()
    assert not list(tmp_path.iterdir())
    colmap.write_database(path, images("a", "b"), {("a", "b"): ROWS})
    busy = sqlite3.connect(path)
    busy.execute("PRAGMA journal_mode = DELETE")
    busy.execute("BEGIN EXCLUSIVE")
    for act in actions:
        with pytest.raises(StoreError, match="database is locked; close the program"):
            act()
    busy.close()
    with pycolmap.Database.open(path) as database:
        database.clear_keypoints()
    with pytest.raises(StoreError, match="has no keypoints of 'a'"):
        colmap.read_keypoints(path, "a")
    path.write_bytes(b"no database" * 1000)
    for act in actions:
        with pytest.raises(StoreError, match="not a database; name another file"):
            act()
    with pytest.raises(StoreError, match="is a folder; name a file"):
        colmap.write_database(tmp_path, images("a"), {})
    with pytest.raises(StoreError, match="folder that is not there"):
        colmap.write_database(tmp_path / "none" / "x.db", images("a"), {})
