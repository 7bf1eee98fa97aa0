from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluating import main
from skimage import data

from cv_superpoint.evaluation.reliable import Count, VerdictConfig, draw_pairs, stronger
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.evaluation.warps import WarpConfig

VERDICT = ["--protocol", "verdict", "--data"]


def cells(printed: str) -> dict[str, list[str]]:
    lines = (line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| "))
    rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_pairs_are_different_and_drawn_by_the_seed() -> None:
    pairs = draw_pairs(64, 500, 0)
    assert len(set(pairs)) == 500
    assert all(one < other for one, other in pairs)
    assert pairs == draw_pairs(64, 500, 0) != draw_pairs(64, 500, 1)
    assert draw_pairs(3, 500, 0) == [(0, 1), (0, 2), (1, 2)]
    with pytest.raises(ValueError, match="two photographs or more, got 1"):
        draw_pairs(1, 5, 0)


def test_the_interval_is_the_exact_one() -> None:
    # Clopper and Pearson: 1 - (0.025)^(1 / n) bounds the share of none of n.
    row = Count(name="x", pairs=400, judged=300, errors=0).cells()
    assert row == ["x", "400", "300", "0", "0.000", f"0.000–{1 - 0.025 ** (1 / 300):.3f}"]
    assert Count(name="x", pairs=4, judged=0, errors=0).cells()[-2:] == ["–", "–"]


def test_the_stronger_warp_is_stronger() -> None:
    plain = WarpConfig(seed=3, pairs_per_image=4)
    strong = stronger(plain)
    assert (strong.seed, strong.pairs_per_image, strong.size) == (3, 4, plain.size)
    for name in ("rotation", "scale", "translation", "perspective"):
        assert getattr(strong, name) > getattr(plain, name)


def test_the_command_counts_both_kinds_of_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, sequence = tmp_path / "photographs", tmp_path / "pairs" / "v_one"
    photographs.mkdir()
    sequence.mkdir(parents=True)
    for name, image in (
        ("astronaut", data.astronaut()),
        ("cat", data.chelsea()),
        ("coffee", data.coffee()),
    ):
        cv2.imwrite(str(photographs / f"{name}.png"), image[::2, ::2])
    image = data.camera()[::2, ::2]
    shift = np.array([[1, 0, -9], [0, 1, 4], [0, 0, 1.0]])
    cv2.imwrite(str(sequence / "1.png"), image)
    cv2.imwrite(str(sequence / "2.png"), cv2.warpPerspective(image, shift, image.shape[::-1]))
    np.savetxt(sequence / "H_1_2", shift)
    arguments = [*VERDICT, str(photographs), "--pairs", str(sequence.parent)]
    arguments += ["--detectors", "superpoint(maxKeypoints=300)"]
    out = tmp_path / "out"
    assert main([*arguments, "--pairs-per-image", "1", "--out", str(out)]) == 0
    rows = cells(capsys.readouterr().out)
    assert rows["unrelated, whole"][:3] == rows["unrelated, in windows"][:3] == ["3", "3", "0"]
    assert rows["right, warp"][0] == rows["right, strong warp"][0] == "3"
    assert rows["right, real pairs"][:3] == ["1", "1", "0"]
    assert int(rows["right, all"][0]) == 7
    assert cells((out / "verdict.md").read_text()) == rows
    (photographs / "broken.png").write_bytes(b"no picture")
    options = ["--unrelated", "1", "--pairs-per-image", "1", "--ransac-threshold", "2"]
    assert main([*VERDICT, str(photographs), *options, "--out", str(out)]) == 3
    assert "unrelated, whole" in cells(capsys.readouterr().out)
    # What is left out goes by the protocol's own defaults.
    settings = (out / "verdict.md").read_text().splitlines()
    assert "threshold 2.0" in settings
    assert "detectors ('superpoint(maxKeypoints=1000)',)" in settings


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), data.camera()[:64, :64])
    for arguments, says in (
        ([*VERDICT, str(tmp_path / "none")], "is not a folder"),
        ([*VERDICT, str(tmp_path)], "two photographs or more, got 1"),
        ([*VERDICT, str(tmp_path), "--detectors", "orb"], "orb has no extract(); take superpoint"),
        ([*VERDICT, str(tmp_path), "--detectors", "sift,orb"], "about one detector, got sift, orb"),
        ([*VERDICT, str(tmp_path), "--unrelated", "0"], "unrelated must be at least 1, got 0"),
    ):
        assert main(arguments) == 1
        assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match="unrelated must be at least 1, got 0"):
        VerdictConfig(data=tmp_path, unrelated=0)
    config = EvaluateConfig(protocol="verdict", data=tmp_path)
    with pytest.raises(ValueError, match=r"call evaluation\.reliable\.verdict"):
        evaluate(config)
