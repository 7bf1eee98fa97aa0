"""Matchers are timed on what they find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_matchers import nearest_file

from benchmarks.__main__ import main
from benchmarks.matching import NEAREST, contenders, features_of
from cv_superpoint.matching.lightglue.files import load_matcher


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_file(tmp_path_factory.mktemp("matcher") / "m.safetensors")


def test_every_contender_matches(learned: Path) -> None:
    pair = features_of("superpoint-lite", 200, 1)
    for name, match in contenders(load_matcher(learned), 1).items():
        found = match(pair)
        rows = found[0] if isinstance(found[0], np.ndarray) else found
        assert 20 < len(rows) <= 200, name


def test_the_table_has_every_count(learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--counts", "20", "50", "--rounds", "1", "--threads", "1"]
    assert main(["matching", "--matcher", str(learned), *options]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0]] == ["keypoints of each image", "20", "50"]
    table = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows[2:]}
    assert NEAREST in table
    assert "LightGlueMatcher, openvino" in table
    assert main(["matching", "--matcher", str(learned), "--counts", "900000"]) == 1
    assert "has only" in capsys.readouterr().err
