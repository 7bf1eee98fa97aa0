import json
from argparse import Namespace
from pathlib import Path

import cv2
import pytest
import torch
from skimage import data

from cv_superpoint.weights import load_weights
from train.__main__ import parse, run_stage
from train.run import Run
from train.runtime import CPU_ENVIRONMENT, missing_settings


def test_smoke_recipe_trains_weights_that_load(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("astronaut", "camera", "chelsea"):
        cv2.imwrite(str(photographs / f"{name}.png"), getattr(data, name)())
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path / "run"), "--seed", "7"]
    known, config = parse(["--images", str(photographs), *arguments])
    assert (known.stage, config.seed) == ("all", 7)
    run_stage(known, config)
    loaded = load_weights(tmp_path / "run" / "superpoint.safetensors")
    logits, dense = loaded.net(torch.rand(1, 1, 64, 80))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 8, 10))
    description = json.loads((tmp_path / "run" / "superpoint.json").read_text())
    assert description["stages"]["joint"]["finished"]
    assert description["stages"]["magicpoint"]["steps"] == 3
    assert description["stage"] == "refine"
    assert loaded.score_threshold == description["score_threshold"]
    assert description["recipe"]["joint"]["descriptor_weight"] == 0.3


def test_without_photographs_drawings_stand_in(tmp_path: Path) -> None:
    known, config = parse(["adapt", "--recipe", "smoke", "--run-dir", str(tmp_path)])
    run = Run(config, known.run_dir, None)
    assert len(run.photographs()) == 4


def test_settings_are_only_added() -> None:
    assert missing_settings({}) == CPU_ENVIRONMENT
    assert missing_settings({**CPU_ENVIRONMENT, "OMP_WAIT_POLICY": "ACTIVE"}) == {}


def test_shards_do_every_photograph_once(tmp_path: Path) -> None:
    for shard in ("0/2", "1/2"):
        arguments = ["adapt", "--recipe", "smoke", "--run-dir", str(tmp_path), "--shard", shard]
        known, config = parse(arguments)
        if shard == "0/2":
            run_stage(Namespace(**{**vars(known), "stage": "magicpoint"}), config)
        run_stage(known, config)
        labels = list((tmp_path / "labels").rglob("*.npy"))
        # Four drawings, one of them held out.
        assert len(labels) == (2 if shard == "0/2" else 3)


@pytest.mark.parametrize("text", ["2/2", "1", "a/b"])
def test_impossible_shard_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["adapt", "--shard", text])
    assert "must be K/N" in capsys.readouterr().err
