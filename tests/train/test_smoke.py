"""The whole chain as a process, on drawings alone: what `make test` shows of training."""

import os
import subprocess
import sys
from pathlib import Path

from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.evaluation.detectors import build_detector
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.weights import save_weights
from train.export import folded_weights

ROOT = Path(__file__).parents[2]


def test_smoke_chain_makes_a_detector_that_beats_harris_on_noise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train", "--recipe", "smoke", "--run-dir", str(tmp_path)]
    # What is compared with Harris below learns in float32 on every machine.
    command += ["--threads", "1", "--magicpoint.loop.precision", "float32"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("superpoint.safetensors", "superpoint.json", "report.html", "evaluation"):
        assert (tmp_path / name).exists(), name
    assert "superpoint" in done.stdout

    weights = tmp_path / "magicpoint.safetensors"
    save_weights(folded_weights(tmp_path / "magicpoint.pt").net, weights, score_threshold=0.005)
    detectors = {
        "magicpoint": SuperPointFeature2D(weights=str(weights), **PINNED),
        "harris": build_detector("harris", quota=1000, weights=None),
    }
    config = EvaluateConfig(protocol="synthetic", images=60, resamples=0)
    report = evaluate(config, detectors)
    noisy = {
        name: summary["noise"]["average_precision"].value
        for name, summary in report.summaries.items()
    }
    assert noisy["magicpoint"] > noisy["harris"]
