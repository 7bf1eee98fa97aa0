"""The study of fine-tuning: its pictures, what it holds out, and a short run of all of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from made_matchers import LITE

from cv_superpoint.weights import load_weights
from train.runtime.process import CPU_ENVIRONMENT

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("finetune_study")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("camera", "coffee", "chelsea"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), getattr(skimage.data, name)())
    return tmp_path


@pytest.mark.parametrize("domain", ["documents", "stars"])
def test_drawings_are_the_same_in_every_call_and_others_are_held_out(
    study: Any, domain: str
) -> None:
    first, again, other = (
        list(study.make(domain, part, None, 3)) for part in ("train", "train", "held_out")
    )
    np.testing.assert_array_equal(first, again)
    assert all(picture.shape == study.SIZE for picture in first + other)
    assert not any(np.array_equal(one, two) for one in first for two in other)


def test_a_page_is_paper_with_dark_words(study: Any) -> None:
    page = next(study.make("documents", "train", None, 1))
    paper = np.median(page)
    assert paper >= 200
    assert 0.03 < (page < paper - 80).mean() < 0.3


def test_a_star_lies_where_its_light_is(study: Any) -> None:
    sky = next(study.make("stars", "train", None, 1))
    assert np.median(sky) == 20
    count, _, statistics, _ = cv2.connectedComponentsWithStats((sky > 60).astype(np.uint8))
    assert 20 < count < 700
    assert np.median(statistics[1:, cv2.CC_STAT_AREA]) < 30  # points, not patches


@pytest.mark.parametrize("domain", ["retina", "hubble"])
def test_tiles_to_train_on_and_held_out_share_no_pixel(study: Any, domain: str) -> None:
    name = study.TILED[domain]
    grey = cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2GRAY)

    def left_ends(part: str) -> list[int]:
        ends = []
        for tile in study.tiles(name, part):
            difference = cv2.matchTemplate(grey, tile, cv2.TM_SQDIFF)
            y, x = np.unravel_index(difference.argmin(), difference.shape)
            np.testing.assert_array_equal(grey[y:, x:][: tile.shape[0], : tile.shape[1]], tile)
            ends.append(int(x))
        return ends

    train, held_out = left_ends("train"), left_ends("held_out")
    assert max(train) + study.TILE[1] <= min(held_out)
    assert min(len(train), len(held_out)) >= 8


def test_only_pictures_to_train_on_have_the_noise_of_a_shot(study: Any, folder: Path) -> None:
    def roughness(part: str) -> float:
        pictures = study.make("night", part, folder, 3)
        return float(np.mean([cv2.Laplacian(each, cv2.CV_32F).std() for each in pictures]))

    assert roughness("train") > 2 * roughness("held_out")


def test_a_thermal_picture_is_inverted(study: Any, folder: Path) -> None:
    plain = {
        round(float(each.std()), 3): each
        for each in study.photographs(folder, 3, np.random.default_rng(0))
    }
    for photo in plain.values():
        changed = study.thermal(photo)
        assert (
            np.corrcoef(cv2.GaussianBlur(photo, (0, 0), 2).ravel(), changed.ravel())[0, 1] < -0.99
        )


def test_photographs_need_folders(study: Any) -> None:
    with pytest.raises(SystemExit, match="thermal needs --photographs"):
        study.make("thermal", "train", None, 1)


def test_a_run_trains_and_compares_on_the_same_pairs(
    study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["documents", "--run-dir", tmp_path / "run", "--weights", LITE]
    arguments += ["--pictures", 6, "--held-out-pictures", 3, "--threads", 1]
    arguments += ["--adapt.views", 2, "--joint.data.size", 120, 160, "--joint.loop.steps", 5]
    arguments += ["--joint.loop.batch-size", 4, "--joint.loop.precision", "float32"]
    arguments += ["--joint.loop.workers", 0, "--joint.loop.warmup-steps", 1]
    arguments += [
        "--pairs-per-image",
        1,
        "--also",
        "hubble",
        "--joint.validation.pairs",
        1,
        "--joint.loop.average",
        0.8,
    ]
    monkeypatch.setattr(sys, "argv", ["finetune_study.py", *map(str, arguments)])
    for name, value in CPU_ENVIRONMENT.items():  # the command would start itself again with them
        monkeypatch.setenv(name, value)
    assert study.main() == 0
    pictures = [len(list((tmp_path / "run" / part).iterdir())) for part in ("train", "held_out")]
    assert pictures == [6, 3]
    rows = capsys.readouterr().out.splitlines()

    def score(label: str, heading: str) -> float:
        titles, row = (
            [cell.strip() for cell in next(row for row in rows if row.startswith(start)).split("|")]
            for start in (f"|{heading}", f"| {label} ")
        )
        column = next(
            k for k, title in enumerate(titles) if title in ("matching score", "M. score")
        )
        return float(row[column].split()[0])

    before, after = (score(label, "  ") for label in (LITE, "fine-tuned"))
    assert 0 < before < 1
    assert after != before
    difference = score(f"fine-tuned − {LITE}", " paired difference")
    assert difference == pytest.approx(after - before, abs=0.0011)  # of rounded figures
    nets = [
        load_weights(each).net.state_dict()
        for each in (
            LITE,
            tmp_path / "run" / "superpoint.safetensors",
            tmp_path / "run" / "mean.safetensors",
        )
    ]
    for name, mean in nets[2].items():
        torch.testing.assert_close(mean, (nets[0][name] + nets[1][name]) / 2)
    assert any((nets[0][name] != nets[1][name]).any() for name in nets[0])
