"""hloc's files, read back by the rules of hloc's own reader through h5py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cv_superpoint import Features, MatchResult
from cv_superpoint.interop import hloc


def hloc_names(path: Path) -> set[str]:
    """Every dataset's parent group is an image or a pair."""
    names = set()

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.add(item.parent.name.strip("/"))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return names


def hloc_matches(path: Path, name0: str, name1: str) -> tuple[Any, Any]:
    """The group of the pair in either order; -1 is unmatched."""
    groups = [
        "/".join(name.replace("/", "-") for name in names)
        for names in ((name0, name1), (name1, name0))
    ]
    with h5py.File(path, "r") as file:
        reverse = groups[0] not in file
        group = file[groups[int(reverse)]]
        matches, scores = group["matches0"][()], group["matching_scores0"][()]
    index = np.where(matches != -1)[0]
    pairs = np.stack([index, matches[index]], -1)
    return (pairs[:, ::-1] if reverse else pairs), scores[index]


def test_features_are_where_hloc_looks(pair: MatchResult, empty: Features, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    hloc.write_features(path, {"db/left.jpg": pair.features0, "flat.jpg": empty})
    assert hloc_names(path) == {"db/left.jpg", "flat.jpg"}
    with h5py.File(path, "r") as file:
        group = file["db/left.jpg"]
        assert group["keypoints"].dtype == np.float32
        np.testing.assert_array_equal(group["keypoints"][()], pair.features0.keypoints)
        np.testing.assert_array_equal(group["descriptors"][()], pair.features0.descriptors.T)
        np.testing.assert_array_equal(group["scores"][()], pair.features0.scores)
        assert tuple(group["image_size"][()]) == (741, 500)  # (width, height)
        assert file["flat.jpg/descriptors"].shape == (256, 0)
    assert hloc.image_names(path) == ["db/left.jpg", "flat.jpg"]
    back = hloc.read_features(path, "db/left.jpg")
    np.testing.assert_array_equal(back.descriptors, pair.features0.descriptors)
    np.testing.assert_array_equal(back.keypoints, pair.features0.keypoints)
    assert back.image_size == (500, 741)
    assert len(hloc.read_features(path, "flat.jpg")) == 0


def test_half_descriptors_keep_their_neighbours(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "half.h5"
    hloc.write_features(path, [("a", pair.features0)], descriptor_dtype=np.float16)
    back = hloc.read_features(path, "a")
    np.testing.assert_allclose(back.descriptors, pair.features0.descriptors, atol=1e-3)
    np.testing.assert_array_equal(back.keypoints, pair.features0.keypoints)


def test_matches_are_what_hloc_reads(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "matches.h5"
    rows = pair.matches[pair.inliers]
    scores = pair.similarity[pair.inliers]
    count = len(pair.features0)
    hloc.write_matches(path, {("db/left.jpg", "q/right.jpg"): (rows, scores, count)})
    with h5py.File(path, "r") as file:
        assert list(file) == ["db-left.jpg"]
        assert file["db-left.jpg/q-right.jpg/matches0"].dtype == np.int16
        assert file["db-left.jpg/q-right.jpg/matches0"].shape == (count,)
    for names, expected in (
        (("db/left.jpg", "q/right.jpg"), rows),
        (("q/right.jpg", "db/left.jpg"), rows[:, ::-1]),
    ):
        theirs, their_scores = hloc_matches(path, *names)
        np.testing.assert_array_equal(theirs, expected)
        np.testing.assert_array_equal(their_scores, scores)
        ours, our_scores = hloc.read_matches(path, *names)
        np.testing.assert_array_equal(ours, expected)
        np.testing.assert_array_equal(our_scores, scores)


def test_many_keypoints_do_not_overflow(tmp_path: Path) -> None:
    rows = np.array([[0, 40_000], [1, 3]])
    path = tmp_path / "m.h5"
    hloc.write_matches(path, {("a", "b"): (rows, np.ones(2), 5)})
    np.testing.assert_array_equal(hloc_matches(path, "a", "b")[0], rows)


def test_a_failed_write_leaves_what_was_there(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    hloc.write_features(path, {"a": pair.features0})
    before = path.read_bytes()

    def broken() -> Any:
        yield "b", pair.features0
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        hloc.write_features(path, broken())
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["features.h5"]


def test_files_that_cannot_be_read(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    hloc.write_features(path, {"a": pair.features0})
    with pytest.raises(hloc.StoreError, match="has no image 'b'; it has 'a'"):
        hloc.read_features(path, "b")
    with pytest.raises(hloc.StoreError, match="no matches of 'a' and 'b'"):
        hloc.read_matches(path, "a", "b")
    with pytest.raises(hloc.StoreError, match="there is no file"):
        hloc.read_features(tmp_path / "none.h5", "a")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(hloc.StoreError, match="cut short"):
        hloc.read_features(path, "a")
    path.write_bytes(b"no such thing" * 100)
    with pytest.raises(hloc.StoreError, match=r"no HDF5 file"):
        hloc.read_features(path, "a")
    with pytest.raises(hloc.StoreError, match=r"there is no folder .*none"):
        hloc.write_features(tmp_path / "none" / "x.h5", {"a": pair.features0})


def test_a_locked_file(pair: MatchResult, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    hloc.write_features(path, {"a": pair.features0})
    script = f"from cv_superpoint.interop import hloc; hloc.read_features({str(path)!r}, 'a')"
    with h5py.File(path, "r+"):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "StoreError" in done.stderr
    assert "is locked: another program writes it" in done.stderr.splitlines()[-1]
