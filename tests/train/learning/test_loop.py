import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cv_superpoint.synthetic.samples import SyntheticConfig
from train.learning import checkpoint
from train.learning.loop import LoopConfig, Trainer
from train.runtime.process import multiplies_bfloat16, wants_bfloat16
from train.stages.magicpoint import MagicPoint, MagicPointConfig

LOOP = LoopConfig(
    steps=6, batch_size=2, workers=0, warmup_steps=2, freeze_stem_from=0.6, precision="float32"
)
CONFIG = MagicPointConfig(loop=LOOP, data=SyntheticConfig(size=(40, 48)), validation_images=2)


class Interrupted(MagicPoint):
    """Gets a Ctrl-C in the middle of step ``stop``, which is then the last."""

    stop = 100
    calls = 0

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.calls == self.stop:
            signal.raise_signal(signal.SIGINT)
        self.calls += 1
        return super().loss(batch)


def train(
    folder: Path, precision: str, *, steps: int = 6, stop: int = 100
) -> dict[str, torch.Tensor]:
    task = Interrupted(CONFIG, seed=0)
    task.stop = stop
    Trainer(task, replace(LOOP, precision=precision, steps=steps), folder).fit()
    state = checkpoint.load(folder / "magicpoint.pt")
    assert state["finished"]
    return {f"{part} {k}": v for part in ("network", "averaged") for k, v in state[part].items()}


@pytest.mark.parametrize(("precision", "stop"), [("float32", 1), ("float32", 4), ("bfloat16", 4)])
def test_resumed_run_gives_the_same_weights(tmp_path: Path, precision: str, stop: int) -> None:
    whole = train(tmp_path / "whole", precision)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", precision, stop=stop)
    # The step that was running is finished and counted.
    assert checkpoint.load(tmp_path / "parts" / "magicpoint.pt")["step"] == stop + 1
    resumed = train(tmp_path / "parts", precision)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_frozen_stem_keeps_its_weights_and_its_function() -> None:
    task = MagicPoint(CONFIG, seed=0)
    network = task.network.eval()
    image = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network.encode(image)
        network.freeze_stem()
        after = network.encode(image)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert not network.net.encoder[0].conv.weight.requires_grad


def test_non_finite_loss_stops_with_the_samples(tmp_path: Path) -> None:
    task = MagicPoint(CONFIG, seed=0)
    with torch.no_grad():
        task.network.net.detector_output.conv.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0 of magicpoint: samples 0 to 1 of seed 0"):
        Trainer(task, LOOP, tmp_path).fit()
    # What was saved does the same again, without the data.
    state = checkpoint.load(tmp_path / "magicpoint-step0-rank0.pt")
    again = MagicPoint(CONFIG, seed=0)
    again.network.load_state_dict(state["network"])
    assert torch.isnan(again.loss(state["batch"])[0])
    assert not (tmp_path / "magicpoint.pt").exists()


def test_failed_write_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save_atomically({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        checkpoint.save_atomically({"step": lambda: None}, path)
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = replace(LOOP, steps=100, warmup_steps=10, flat=0.2, learning_rate=1.0)
    assert config.rate_at(0, 0.0) == pytest.approx(0.1)
    assert config.rate_at(20, 0.2) == 1.0
    assert config.rate_at(60, 0.6) == pytest.approx(0.5)
    assert config.rate_at(100, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_length_must_be_given_once() -> None:
    with pytest.raises(ValueError, match="minutes or in steps"):
        LoopConfig(minutes=1, steps=5)


def test_full_disk_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OSError, match="has 1 MB free, checkpoints need"):
        Trainer(MagicPoint(CONFIG, seed=0), LOOP, tmp_path).fit()


def test_folder_that_cannot_be_written_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError, match="choose another --run-dir"):
        checkpoint.check_folder(tmp_path / "file" / "run", 1)


def test_disk_that_fills_up_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(MagicPoint(CONFIG, seed=0), LOOP, tmp_path)
    trainer.save()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    trainer.step = 3
    trainer.try_to_save()
    assert "the last good checkpoint is kept" in caplog.text
    assert checkpoint.load(trainer.path)["step"] == 0
    with pytest.raises(OSError, match="No space left"):
        trainer.save()
    assert [p.name for p in tmp_path.glob("*.pt")] == ["magicpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "magicpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"magicpoint\.pt is no checkpoint"):
        Trainer(MagicPoint(CONFIG, seed=0), LOOP, tmp_path).fit()


def test_average_of_the_weights_follows_them(tmp_path: Path) -> None:
    loop = replace(LOOP, average=0.5)
    trainer = Trainer(MagicPoint(CONFIG, seed=0), loop, tmp_path)
    bias = trainer.task.network.net.detector_output.conv.bias
    start = bias.detach().clone()
    trainer.step = 100
    with torch.no_grad():
        bias += 1
    trainer.average()
    averaged = trainer.averaged.net.detector_output.conv.bias
    torch.testing.assert_close(averaged, start + 0.5)
    trainer.average()
    torch.testing.assert_close(averaged, start + 0.75)


@pytest.mark.parametrize(
    ("capabilities", "limit", "expected"),
    [
        ({"avx2": True, "avx512_vnni": True}, "", False),
        ({"avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False}, "", False),
        ({"avx512_bf16": True}, "", True),
        ({"avx512_bf16": True, "amx_bf16": True}, "", True),
        ({"avx512_bf16": True, "amx_bf16": True}, "AVX512_CORE_BF16", True),
        ({"avx512_bf16": True, "amx_bf16": True}, "AVX512_CORE_VNNI", False),
        ({"neon": True, "architecture": "aarch64"}, "", False),
        ({}, "", False),
    ],
)
def test_smaller_precision_is_for_cpus_that_have_it(
    capabilities: dict[str, object], limit: str, expected: bool
) -> None:
    assert multiplies_bfloat16(capabilities, {"ONEDNN_MAX_CPU_ISA": limit}) == expected


def test_auto_trains_in_what_this_cpu_has(tmp_path: Path) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert wants_bfloat16("bfloat16", device)
    assert not wants_bfloat16("float32", device)
    taken = "bfloat16" if wants_bfloat16("auto", device) else "float32"
    one, other, auto = (
        train(tmp_path / name, name, steps=2)["network net.detector_output.conv.bias"]
        for name in ("float32", "bfloat16", "auto")
    )
    assert not torch.equal(one, other)
    assert torch.equal(auto, one if taken == "float32" else other)


def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path) -> None:
    weights = train(tmp_path, "bfloat16")
    assert all(v.dtype != torch.bfloat16 for v in weights.values())
