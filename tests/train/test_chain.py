import json
from argparse import Namespace
from pathlib import Path

import cv2
import pytest
import torch
from skimage import data

from cv_superpoint.weights import load_weights
from train.__main__ import parse, run_stage
from train.export import current_commit, folded_weights
from train.learning import checkpoint
from train.run import Run
from train.runtime.process import CPU_ENVIRONMENT, missing_settings

FEW = ["--magicpoint.loop.steps", "3", "--magicpoint.loop.workers", "0"]
FEW += ["--magicpoint.validation-images", "4"]


def test_smoke_recipe_trains_weights_that_load(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("astronaut", "camera", "chelsea"):
        cv2.imwrite(str(photographs / f"{name}.png"), getattr(data, name)())
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path / "run"), "--seed", "7", *FEW]
    known, config = parse(["--images", str(photographs), *arguments])
    assert (known.stage, config.seed) == ("all", 7)
    run_stage(known, config)
    loaded = load_weights(tmp_path / "run" / "superpoint.safetensors")
    assert loaded.ranges is not None
    logits, dense = loaded.net(torch.rand(1, 1, 64, 80))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 8, 10))
    description = json.loads((tmp_path / "run" / "superpoint.json").read_text(encoding="utf-8"))
    assert description["stages"]["joint"]["finished"]
    assert description["stages"]["magicpoint"]["steps"] == 3
    assert description["stage"] == "refine"
    assert loaded.score_threshold == description["score_threshold"]
    assert description["recipe"]["joint"]["descriptor_weight"] == 0.3
    results = json.loads(
        (tmp_path / "run" / "evaluation" / "results.json").read_text(encoding="utf-8")
    )
    assert set(results["detectors"]) == {"superpoint", "sift", "orb"}
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(stage in report for stage in ("magicpoint", "joint", "refine"))


def test_rounds_label_with_the_newest_detector(tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path), "--rounds", "2", *FEW]
    known, config = parse(arguments)
    run = Run(config, known.run_dir, None)
    run.magicpoint()
    for round_ in (1, 2):
        run.adapt(round_)
        run.joint(round_)
    assert len(list((tmp_path / "labels").iterdir())) == 2
    first, second = (checkpoint.load(tmp_path / f"{name}.pt") for name in ("joint", "joint2"))
    assert (first["seed"], second["seed"]) == (0, 1)
    assert run.last_stage() == tmp_path / "joint2.pt"


def test_fine_tuning_starts_from_weights(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), data.camera()[::2, ::2])
    cv2.imwrite(str(tmp_path / "b.png"), data.coins())
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path / "run"), "--images", str(tmp_path)]
    arguments += ["--start", "superpoint", "--joint.loop.steps", "1"]
    arguments += ["--joint.loop.precision", "float32"]
    known, config = parse(arguments)
    run = Run(config, known.run_dir, known.images, known.start)
    run.adapt()
    run.joint()
    assert not (tmp_path / "run" / "magicpoint.pt").exists()
    state = checkpoint.load(tmp_path / "run" / "joint.pt")
    with torch.inference_mode():
        image = torch.from_numpy(data.coins()[:128, :160].copy())[None, None]
        tuned = folded_weights(tmp_path / "run" / "joint.pt").net(image / 255)[0]
        before = load_weights("superpoint").net(image / 255)[0]
    assert state["step"] == 1
    # One step from where it started: nearly the same detector, not a new one.
    assert torch.corrcoef(torch.stack([tuned.flatten(), before.flatten()]))[0, 1] > 0.95


def test_training_goes_on_without_normalisation(tmp_path: Path) -> None:
    """One step at a rate of 0 exports the weights that it started from (float32)."""
    cv2.imwrite(str(tmp_path / "a.png"), data.camera()[::2, ::2])
    cv2.imwrite(str(tmp_path / "b.png"), data.coins())
    arguments = ["--recipe", "smoke", "--run-dir", str(tmp_path / "run"), "--images", str(tmp_path)]
    arguments += ["--start", "superpoint", "--joint.norm", "none", "--joint.loop.steps", "1"]
    arguments += ["--joint.loop.learning-rate", "0", "--joint.loop.precision", "float32"]
    known, config = parse(arguments)
    run = Run(config, known.run_dir, known.images, known.start)
    run.adapt()
    run.joint()
    learned = folded_weights(tmp_path / "run" / "joint.pt").net.state_dict()
    for name, tensor in load_weights("superpoint").net.state_dict().items():
        torch.testing.assert_close(learned[name], tensor, rtol=1e-6, atol=1e-7)


def trained_on_photographs(tmp_path: Path, *options: str) -> Run:
    """A run of two steps on two photographs, a third is held out, with its weights exported."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("astronaut", "camera", "chelsea"):
        cv2.imwrite(str(photographs / f"{name}.png"), getattr(data, name)()[::2, ::2])
    arguments = [*options, "--run-dir", str(tmp_path / "run"), "--images", str(photographs)]
    arguments += ["--held-out", "1", "--adapt.views", "2", "--joint.data.size", "64", "80"]
    arguments += ["--joint.loop.steps", "2", "--joint.loop.batch-size", "2"]
    arguments += ["--joint.loop.workers", "0", "--joint.validation.pairs", "1"]
    known, config = parse(arguments)
    run = Run(config, known.run_dir, known.images, known.start)
    run.adapt()
    run.joint()
    run.export()
    return run


def test_a_teacher_labels_for_a_network_that_starts_from_nothing(tmp_path: Path) -> None:
    run = trained_on_photographs(tmp_path, "--recipe", "lite")
    assert not (run.run_dir / "magicpoint.pt").exists()
    loaded = load_weights(run.run_dir / "superpoint.safetensors")
    assert loaded.config == run.config.network
    logits, dense = loaded.net(torch.rand(1, 1, 64, 80))
    assert logits.isfinite().all()
    assert dense.shape == (1, 64, 8, 10)


def test_weights_recommend_the_levels_of_those_that_they_go_on_from(tmp_path: Path) -> None:
    run = trained_on_photographs(tmp_path, "--recipe", "finetune", "--start", "superpoint-lite")
    loaded = load_weights(run.run_dir / "superpoint.safetensors")
    assert loaded.scales == load_weights("superpoint-lite").scales == (1.0, 0.5)


def test_weights_can_be_exported_where_there_is_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert current_commit() == "unknown"


def test_time_is_shared_among_the_stages() -> None:
    _, config = parse(["--minutes", "60"])
    stages = [config.magicpoint.loop.minutes, config.adapt.minutes, config.joint.loop.minutes]
    assert stages[0] + config.rounds * sum(stages[1:]) == pytest.approx(60)
    assert config.joint.loop.steps == 0
    _, config = parse(["joint", "--recipe", "smoke", "--minutes", "5"])
    assert (config.joint.loop.minutes, config.joint.loop.steps) == (5, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["joint", "--rounds", "2", "--round", "3"], "--round must be between 1 and --rounds 2"),
        (["--adapt.images.colour"], "both be in colour or both grey"),
    ],
)
def test_contradictions_are_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    said = capsys.readouterr().err.replace("│", " ") + str(caught.value)
    assert message in " ".join(said.split())


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
        arguments += FEW
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
