"""Names that collide in HDF5 or in hloc's layout, and matches that it has no place for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import made_features

from cv_superpoint import Features
from cv_superpoint.interop import hloc

ROWS = np.array([[0, 3], [2, 1]])
SCORES = np.array([0.9, 0.8], np.float32)


def features() -> Features:
    return made_features([[3, 2], [10, 7], [5, 5]], (20, 30))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("a.jpg", "b.jpg", "a.jpg"), "image 'a.jpg' is in the file already; give it once"),
        (("db/a.jpg", "db//a.jpg"), "image 'db//a.jpg' is in the file already"),
        (("a", "a/keypoints"), "image 'a/keypoints' cannot be stored: 'a' has data of this name"),
        (("a/scores", "a"), "image 'a' and 'a/scores' cannot be in one file; rename one of them"),
        ((".",), "image '.' cannot be stored"),
        (("",), "cannot be stored as the name of an image"),
        (("a\0b",), "cannot be stored as the name of an image"),
        (("\udce4.jpg",), "cannot be stored as the name of an image"),
        ((Path("a.jpg"),), "must be a str, got"),
    ],
)
def test_names_that_collide(names: tuple[Any, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(hloc.StoreError) as caught:
        hloc.write_features(tmp_path / "f.h5", [(name, features()) for name in names])
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_name_that_an_open_file_has(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    hloc.write_features(path, {"a": features()})
    with h5py.File(path, "a") as file:
        with pytest.raises(hloc.StoreError, match="image 'a' is in the file already"):
            hloc.put_features(file, "a", features())
        hloc.put_features(file, "b", features())
    assert hloc.image_names(path) == ["a", "b"]


@pytest.mark.parametrize(
    "names", [("a/b", "a"), ("a", "a/b"), ("with space", "#x", "größe", "a/../b")]
)
def test_names_that_do_not_collide(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    hloc.write_features(path, {name: features() for name in names})
    assert hloc.image_names(path) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(
            hloc.read_features(path, name).keypoints, features().keypoints
        )


def test_pairs_that_hloc_gives_one_name(tmp_path: Path) -> None:
    entry = ROWS, SCORES, 3
    with pytest.raises(hloc.StoreError) as caught:
        hloc.write_matches(
            tmp_path / "m.h5", {("db/a.jpg", "q.jpg"): entry, ("db-a.jpg", "q.jpg"): entry}
        )
    for part in ("('db/a.jpg', 'q.jpg')", "('db-a.jpg', 'q.jpg')", "'db-a.jpg/q.jpg'", "rename"):
        assert part in str(caught.value)
    both = {("a", "b"): entry, ("b", "a"): (ROWS[:, ::-1], SCORES, 4)}
    hloc.write_matches(tmp_path / "m.h5", both)  # hloc reads the direction that it asks for
    for pair, expected in ((("a", "b"), ROWS), (("b", "a"), ROWS[::-1, ::-1])):
        np.testing.assert_array_equal(hloc.read_matches(tmp_path / "m.h5", *pair)[0], expected)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (([[0, 1], [3, 2]], [1, 1], 3), "match 1 names keypoint 3 of 'a', which has 3"),
        (([[0, -1]], [1], 3), "names keypoint -1 of 'b'"),
        (([[0, 1], [0, 2]], [1, 1], 3), "name keypoint 0 of the first more than once"),
        (([[0.5, 1]], [1], 3), "row numbers, got float64"),
        (([[0, 1]], [np.nan], 3), "need a finite score each"),
        (([[0, 1]], [1, 1], 3), r"finite score each: 1 rows, scores \(2,\)"),
    ],
)
def test_matches_that_the_layout_cannot_hold(entry: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(hloc.StoreError, match=rf"^matches of 'a' and 'b'.*{says}"):
        hloc.write_matches(tmp_path / "m.h5", {("a", "b"): entry})
    with pytest.raises(hloc.StoreError, match="not matched with itself"):
        hloc.write_matches(tmp_path / "m.h5", {("a", "a"): (ROWS, SCORES, 3)})
    assert not list(tmp_path.iterdir())


def test_features_that_are_not_finite(tmp_path: Path) -> None:
    bad = replace(features(), scores=np.array([0.9, np.nan, 0.1], np.float32))
    with pytest.raises(hloc.StoreError, match=r"'a': scores must be finite, row 1 is \[nan\]"):
        hloc.write_features(tmp_path / "f.h5", {"a": bad})


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text("a./-k é", min_size=1, max_size=6), min_size=1, max_size=4))
def test_any_names_are_all_there_or_refused(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("names") / "f.h5"
    try:
        hloc.write_features(path, [(name, features()) for name in names])
    except hloc.StoreError:
        assert not path.exists()
        return
    for name in names:
        assert len(hloc.read_features(path, name)) == 3
