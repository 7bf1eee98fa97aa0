from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train import checkpoint
from train.data.synthetic import SyntheticConfig
from train.loop import LoopConfig, Trainer
from train.magicpoint import MagicPoint, MagicPointConfig

LOOP = LoopConfig(steps=6, batch_size=2, workers=0, warmup_steps=2, freeze_stem_from=0.6)
CONFIG = MagicPointConfig(loop=LOOP, data=SyntheticConfig(size=(40, 48)), validation_images=2)


class Interrupted(MagicPoint):
    """Stops as Ctrl-C would, during step ``stop``."""

    stop = 100
    calls = 0

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return super().loss(batch)


def train(folder: Path, stop: int = 100) -> dict[str, torch.Tensor]:
    task = Interrupted(CONFIG, seed=0)
    task.stop = stop
    Trainer(task, LOOP, folder).fit()
    state = checkpoint.load(folder / "magicpoint.pt")
    assert state["finished"]
    network: dict[str, torch.Tensor] = state["network"]
    return network


@pytest.mark.parametrize("stop", [2, 5])
def test_resumed_run_gives_the_same_weights(tmp_path: Path, stop: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop)
    assert checkpoint.load(tmp_path / "parts" / "magicpoint.pt")["step"] == stop
    resumed = train(tmp_path / "parts")
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
    with pytest.raises(FloatingPointError, match="step 0 of magicpoint, samples 0 to 1"):
        Trainer(task, LOOP, tmp_path).fit()


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
