"""HDF5 files and databases with damaged bytes: one StoreError, whatever their libraries say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import made_features

from cv_superpoint.interop import colmap, hloc
from cv_superpoint.interop.hloc import StoreError

FEATURES = {
    name: made_features([[3, 2], [10, 7], [5, 5]], (20, 30), seed=seed)
    for seed, name in enumerate(("a.png", "b.png"))
}


def damage(whole: bytes, random: np.random.Generator, reach: int) -> bytes:
    """Cut off, or with three bytes changed among the first."""
    changed = bytearray(whole)
    if random.integers(4) == 0:
        return bytes(changed[: random.integers(len(whole))])
    for place in random.integers(min(reach, len(whole)), size=3):
        changed[place] = random.integers(256)
    return bytes(changed)


def test_damaged_features_and_matches_are_one_error(tmp_path: Path) -> None:
    path, matched = tmp_path / "features.h5", tmp_path / "matches.h5"
    hloc.write_features(path, FEATURES)
    hloc.write_matches(matched, {("a.png", "b.png"): (np.array([[0, 1]]), np.ones(1), 3)})
    reads: list[tuple[Path, Callable[[], Any]]] = [
        (path, lambda: hloc.image_names(path)),
        (path, lambda: hloc.read_features(path, "b.png")),
        (matched, lambda: hloc.read_matches(matched, "a.png", "b.png")),
    ]
    random, refused = np.random.default_rng(0), 0
    for target, read in reads:
        whole = target.read_bytes()
        for _ in range(100):
            target.write_bytes(damage(whole, random, 3000))
            try:
                read()
            except StoreError:
                refused += 1
        target.write_bytes(whole)
        read()
    assert refused > 100


@pytest.mark.parametrize("page", [0, 1, 2, 3])
def test_a_damaged_database_is_refused(tmp_path: Path, page: int) -> None:
    """pycolmap ends the whole process over some of it."""
    path = tmp_path / "database.db"
    colmap.write_database(path, FEATURES, {("a.png", "b.png"): np.array([[0, 1]])})
    whole = path.read_bytes()
    assert len(whole) > 8 * 4096
    damaged = whole[: page * 4096] + b"\xff" * 4096 + whole[page * 4096 + 4096 :]
    path.write_bytes(damaged)
    for write in (
        lambda: colmap.write_database(path, {"c.png": FEATURES["a.png"]}, {}),
        lambda: colmap.read_keypoints(path, "a.png"),
        lambda: colmap.verify_database(path, [("a.png", "b.png")]),
    ):
        with pytest.raises(StoreError, match=r"damaged|malformed|not a database"):
            write()
    assert path.read_bytes() == damaged


def test_a_damaged_schema_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    colmap.write_database(path, FEATURES, {})
    whole = path.read_bytes()
    assert b"CREATE TABLE images" in whole
    path.write_bytes(whole.replace(b"CREATE TABLE images", b"CREA\xaaE TABL\xaa imag\xaas"))
    with pytest.raises(StoreError, match="cannot open the database"):
        colmap.read_keypoints(path, "a.png")


def test_any_damage_to_a_database_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    colmap.write_database(path, FEATURES, {})
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(30):
        path.write_bytes(damage(whole, random, len(whole)))
        with suppress(StoreError):
            colmap.read_keypoints(path, "a.png")
