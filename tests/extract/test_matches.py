"""Matches of a folder: the matcher's, whatever stops the run, as hloc and COLMAP read them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pycolmap
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from pinned import PINNED
from stored import content

from cv_superpoint import LightGlueMatcher
from cv_superpoint.cli import main
from cv_superpoint.errors import SuperPointError
from cv_superpoint.extract import (
    ExtractConfig,
    ExtractError,
    MatchConfig,
    extract_folder,
    match_images,
    matches,
)
from cv_superpoint.extract.pairs import check_pairs, choose_pairs
from cv_superpoint.interop import colmap, hloc
from cv_superpoint.interop.checks import StoreError

LITE = "superpoint-lite"
CONFIG = ExtractConfig(weights=LITE, max_keypoints=200, scales=(1.0,), **PINNED)
NAMES = ("cat.png", "d/1 wide.jpg", "d/2.png", "d/3.png")
VIEWS = tuple(combinations(NAMES[1:], 2))
"""Pairs that show the same."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three views of a photograph, 30 pixels apart, another photograph, and no picture."""
    root = tmp_path_factory.mktemp("images")
    (root / "d").mkdir()
    coffee = skimage.data.coffee()[..., ::-1]
    for index, name in enumerate(NAMES[1:]):
        cv2.imwrite(str(root / name), coffee[20 * index :, 30 * index :][:240, :320])
    cv2.imwrite(str(root / NAMES[0]), skimage.data.chelsea()[:240, :320, ::-1])
    (root / "none.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def features(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "features.h5"
    assert extract_folder(images, path, CONFIG, readers=0).images == len(NAMES)
    return path


@pytest.fixture(scope="module")
def undisturbed(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "matches.h5"
    report = match_images(features, path, CONFIG)
    assert (report.pairs, report.resumed, report.verified) == (6, 0, None)
    assert [each.name for each in path.parent.iterdir()] == ["matches.h5"]
    return path


def assert_same(one: Path, other: Path) -> None:
    first, second = content(one), content(other)
    assert list(first) == list(second)
    for name, value in first.items():
        # float32; pairs that are matched side by side differ by no more than rounding
        np.testing.assert_allclose(value, second[name], atol=1e-5)


def test_the_file_holds_the_matcher_s_matches(features: Path, undisturbed: Path) -> None:
    matcher = LightGlueMatcher.create(LITE)
    for one, other in combinations(NAMES, 2):
        both = [hloc.read_features(features, name) for name in (one, other)]
        rows, scores = matcher(*both)
        stored, values = hloc.read_matches(undisturbed, one, other)
        np.testing.assert_array_equal(stored, rows)
        np.testing.assert_allclose(values, scores, atol=1e-4)
        if (one, other) in VIEWS:
            apart = NAMES.index(other) - NAMES.index(one)
            moved = both[0].keypoints[rows[:, 0]] - both[1].keypoints[rows[:, 1]]
            right = np.abs(moved - (30 * apart, 20 * apart)).max(axis=1) < 2
            assert len(rows) > 20
            assert right.mean() > 0.8
        else:
            assert len(rows) < 10


def test_colmap_reads_and_verifies_them(features: Path, undisturbed: Path, tmp_path: Path) -> None:
    output, database = tmp_path / "matches.h5", tmp_path / "database.db"
    report = match_images(features, output, CONFIG, database=database)
    assert_same(undisturbed, output)
    with pycolmap.Database.open(database) as file:
        ids = {name: file.read_image_with_name(name).image_id for name in NAMES}
        assert file.num_images() == len(NAMES)
        for name in NAMES:
            points = hloc.read_features(features, name).keypoints
            np.testing.assert_allclose(file.read_keypoints(ids[name])[:, :2], points + 0.5)
        for one, other in VIEWS:
            rows = hloc.read_matches(output, one, other)[0]
            np.testing.assert_array_equal(file.read_matches(ids[one], ids[other]), rows)
            geometry = file.read_two_view_geometry(ids[one], ids[other])
            assert len(geometry.inlier_matches) > 0.8 * len(rows)
        assert report.verified == file.num_matched_image_pairs()


def test_what_verification_empties_is_no_other_database(features: Path, tmp_path: Path) -> None:
    """COLMAP removes the few matches of pictures that show nothing in common."""
    output, config = tmp_path / "m.h5", MatchConfig(matcher="guided")
    for _ in range(2):
        match_images(features, output, CONFIG, config, database=tmp_path / "c.db")
    rows = {pair: hloc.read_matches(output, *pair)[0] for pair in combinations(NAMES, 2)}
    few = {pair: each for pair, each in rows.items() if 0 < len(each) < 10}
    assert few
    with pycolmap.Database.open(tmp_path / "c.db") as file:
        ids = {name: file.read_image_with_name(name).image_id for name in NAMES}
        for one, other in few:
            assert len(file.read_matches(ids[one], ids[other])) == 0


def test_a_stopped_run_continues(
    features: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "PART", 2)
    output, database = tmp_path / "matches.h5", tmp_path / "database.db"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        match_images(features, output, CONFIG, tick=stop)
    assert not output.exists()
    assert len(list((tmp_path / "matches.h5.parts").iterdir())) == 2
    report = match_images(features, output, CONFIG)
    assert (report.pairs, report.resumed) == (6, 4)
    assert_same(undisturbed, output)
    # stopped between the database and its geometries
    stored = {name: hloc.read_features(features, name) for name in NAMES}
    rows = {pair: hloc.read_matches(output, *pair)[0] for pair in VIEWS}
    colmap.write_database(database, stored, rows)
    listed = tmp_path / "pairs.txt"
    listed.write_text("".join(f"{one}\t{other}\n" for one, other in VIEWS), encoding="utf-8")
    before = output.stat()
    report = match_images(
        features, output, CONFIG, MatchConfig(pairs=str(listed)), database=database
    )
    assert (report.resumed, report.verified) == (3, 3)
    assert colmap.unverified(database, VIEWS) == []
    assert output.stat() == before  # nothing was left to match


def test_pairs_are_added_and_those_of_changed_pictures_matched_anew(
    images: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "images", tmp_path / "matches.h5"
    shutil.copytree(images, folder)
    extract_folder(folder, tmp_path / "f.h5", CONFIG, readers=0)
    assert match_images(tmp_path / "f.h5", output, CONFIG, MatchConfig(pairs="1")).pairs == 3
    report = match_images(tmp_path / "f.h5", output, CONFIG)
    assert (report.pairs, report.resumed) == (6, 3)
    before = {pair: hloc.read_matches(output, *pair) for pair in combinations(NAMES, 2)}
    cv2.imwrite(str(folder / NAMES[3]), skimage.data.coffee()[60:300, 200:500, ::-1])
    extract_folder(folder, tmp_path / "f.h5", CONFIG, readers=0)
    report = match_images(tmp_path / "f.h5", output, CONFIG)
    assert (report.pairs, report.resumed) == (6, 3)
    for pair, (rows, _) in before.items():
        same = np.array_equal(rows, hloc.read_matches(output, *pair)[0])
        assert same == (NAMES[3] not in pair) or not len(rows)


def test_nearest_neighbours_and_bytes(images: Path, tmp_path: Path) -> None:
    for number, (kind, matcher) in enumerate((("uint8", "lightglue"), ("binary", "mutual"))):
        config = replace(CONFIG, descriptor_format=kind)  # type: ignore[arg-type]
        features, output = tmp_path / f"f{number}.h5", tmp_path / f"m{number}.h5"
        extract_folder(images, features, config, readers=0)
        match_images(features, output, config, MatchConfig(matcher=matcher))
        for pair in VIEWS:
            assert len(hloc.read_matches(output, *pair)[0]) > 20


def test_what_cannot_be_is_refused_with_a_remedy(
    features: Path, undisturbed: Path, unmatched: str, tmp_path: Path
) -> None:
    output = tmp_path / "matches.h5"
    shutil.copy(undisturbed, output)

    def refused(message: str, path: Path = output, config: Any = CONFIG, **options: Any) -> None:
        database = options.pop("database", None)
        with pytest.raises(SuperPointError, match=message):
            match_images(features, path, config, MatchConfig(**options), database=database)

    refused("matcher.name was lightglue, is mutual", matcher="mutual")
    refused("must be files ending in .h5", tmp_path / "matches.txt")
    refused("is the file of the features", features)
    refused("no matcher is called 'nonsense'", matcher="nonsense")
    refused(
        "no matcher is bundled for other weights",
        config=ExtractConfig(weights=unmatched),
    )
    for config in ({"descriptor_format": "binary"}, {"descriptor_dim": 32}):
        refused("needs all 64 numbers", config=replace(CONFIG, **config))
    refused("at least 1 neighbour", pairs="0")
    refused("cannot read the pairs", pairs="nowhere.txt")
    (tmp_path / "list.txt").write_text("cat.png d/4.png\n", encoding="utf-8")
    refused("line 1: 'cat.png d/4.png' is no pair", pairs=str(tmp_path / "list.txt"))
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    refused("does not tell what it was made of", tmp_path / "other.h5")
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(undisturbed.read_bytes()[:2000])
    refused("delete .*damaged.h5 or name another", damaged)
    colmap.write_database(tmp_path / "c.db", {NAMES[0]: hloc.read_features(features, NAMES[1])}, {})
    with pytest.raises(StoreError, match="has other images, keypoints or matches"):
        match_images(features, output, CONFIG, database=tmp_path / "c.db")
    assert_same(undisturbed, output)


names = st.lists(
    st.text("ab /#.", min_size=1, max_size=4).map(lambda text: f"n{text}x"), max_size=7, unique=True
)


@given(names=names, window=st.integers(1, 8))
def test_every_pair_once(names: list[str], window: int) -> None:
    ordered = sorted(names)
    everything = choose_pairs("all", names)
    assert set(everything) == set(combinations(ordered, 2))
    near = choose_pairs(str(window), names)
    assert len(set(near)) == len(near)
    assert set(near) == {
        pair for pair in everything if ordered.index(pair[1]) - ordered.index(pair[0]) <= window
    }


@given(names=names, data=st.data())
def test_a_list_of_pairs(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    everything = list(combinations(sorted(names), 2))
    chosen = data.draw(st.lists(st.sampled_from(everything))) if everything else []
    path = tmp_path_factory.mktemp("list") / "pairs.txt"
    turned = [pair[:: data.draw(st.sampled_from([1, -1]))] for pair in chosen]
    text = "".join(f"{one}\t{other}\n" for one, other in turned)
    path.write_text(f"# two names\n\n{text}", encoding="utf-8")
    assert choose_pairs(str(path), names) == tuple(dict.fromkeys(chosen))
    left = names[:1]
    kept = [pair for pair in dict.fromkeys(chosen) if not set(pair) & set(left)]
    assert choose_pairs(str(path), names[1:], left) == tuple(kept)


def test_a_list_with_spaces_and_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("my cat.png my dog.png\n", encoding="utf-8")
    assert choose_pairs(str(path), ["my dog.png", "my cat.png"]) == (("my cat.png", "my dog.png"),)
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ExtractError, match="there is no pair in this file"):
        check_pairs(str(path))


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One picture has no keypoints; the command runs twice, and with an error before the work."""
    shutil.copytree(images, tmp_path / "images")
    cv2.imwrite(str(tmp_path / "images" / "blank.png"), np.full((90, 120), 128, np.uint8))
    options = [f"--{name}={value}" for name, value in PINNED.items()]
    command = [
        *(sys.executable, "-m", "cv_superpoint", "extract", "images"),
        *("-o", "f.h5", "--weights", LITE, "-k", "200", "--scales", "1", *options),
        *("--matches", "m.h5", "--database", "c.db", "--pairs", "2", "--json"),
    ]
    for resumed in (0, 7):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr  # one is no picture
        told = json.loads(done.stdout)["matches"]
        assert (told["pairs"], told["resumed"]) == (7, resumed)
        assert "feature_matching" not in done.stderr
    assert colmap.unverified(tmp_path / "c.db", VIEWS) == []
    wrong = [*command[:-3], "--pairs", "0"]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "at least 1 neighbour" in done.stderr
    for option in (["--pairs", "3"], ["--database", "c.db"], ["--matcher", "mutual"]):
        assert main(["extract", str(images), "-o", str(tmp_path / "f.h5"), *option]) == 1
        assert "add --matches matches.h5" in capsys.readouterr().err
