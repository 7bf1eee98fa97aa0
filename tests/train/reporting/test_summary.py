import base64
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.tensorboard.writer import SummaryWriter

from cv_superpoint.synthetic.samples import SyntheticConfig
from train.learning.loop import LoopConfig, Trainer
from train.reporting.curves import draw_curve
from train.reporting.summary import PICTURES, read_stage, write_report
from train.stages.magicpoint import MagicPoint, MagicPointConfig

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of 50 steps on tiny drawings: two reports and a validation."""
    folder = tmp_path_factory.mktemp("runs") / "tiny <run>"
    loop = LoopConfig(steps=50, batch_size=1, workers=0)
    config = MagicPointConfig(loop=loop, data=SyntheticConfig(size=(32, 40)), validation_images=4)
    Trainer(MagicPoint(config, 0), loop, folder).fit()
    return folder


def test_report_holds_every_curve_and_picture(run_dir: Path) -> None:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    text = path.read_text(encoding="utf-8")
    stage = read_stage(run_dir / "tensorboard" / "magicpoint")
    assert {"train/loss", "train/learning_rate", "speed/samples_per_second"} <= set(stage.scalars)
    assert "val/ap_clean" in stage.scalars
    assert "detections" in stage.pictures
    assert len(stage.scalars["train/loss"]) == 2
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    titles = [ElementTree.fromstring(chart).findtext(f"{SVG}text") for chart in charts]
    assert titles == sorted(stage.scalars)
    for tag in stage.scalars:
        assert f"<td>{tag}</td>" in text
    embedded = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)\"", text)]
    assert embedded == [
        png for _, pictures in sorted(stage.pictures.items()) for _, png in pictures
    ]
    picture = cv2.imdecode(np.frombuffer(embedded[0], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (2 * 32, 6 * 2 * 40, 3)
    # Self-contained, and the folder's name is text.
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "tiny &lt;run&gt;" in text
    assert not [p for p in run_dir.iterdir() if p.name.startswith(".report")]


def test_evaluation_and_weights_are_part_of_it(run_dir: Path) -> None:
    (run_dir / "evaluation").mkdir(exist_ok=True)
    (run_dir / "evaluation" / "results.md").write_text("| sift | <5 |", encoding="utf-8")
    cv2.imwrite(str(run_dir / "evaluation" / "bars.png"), np.full((8, 8, 3), 77, np.uint8))
    (run_dir / "superpoint.safetensors").write_bytes(b"")
    (run_dir / "superpoint.json").write_text('{"commit": "abc"}', encoding="utf-8")
    text = write_report(run_dir).read_text(encoding="utf-8")
    assert "| sift | &lt;5 |" in text
    assert base64.b64encode((run_dir / "evaluation" / "bars.png").read_bytes()).decode() in text
    assert "{&quot;commit&quot;: &quot;abc&quot;}" in text


def test_long_runs_show_pictures_evenly(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "tensorboard" / "joint"))
    for step in range(40):
        picture = np.full((4, 4, 3), step, np.uint8)
        writer.add_image("labels", picture, step, dataformats="HWC")
    writer.close()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    steps = [int(step) for step in re.findall(r"<figcaption>step (\d+)<", text)]
    assert len(steps) == PICTURES
    assert (steps[0], min(steps)) == (39, 0)


def test_command_and_its_error(run_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train", "summary"]
    done = subprocess.run([*command, str(run_dir)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == run_dir / "report.html"
    empty = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert empty.returncode == 1
    assert "nothing to report" in empty.stderr
    with pytest.raises(ValueError, match="nothing to report"):
        write_report(tmp_path)


def _points(chart: str) -> list[list[tuple[float, float]]]:
    lines = ElementTree.fromstring(chart).findall(f"{SVG}polyline")
    return [
        [tuple(float(v) for v in pair.split(",")) for pair in line.attrib["points"].split()]
        for line in lines
    ]


def test_curve_goes_through_its_points() -> None:
    (line,) = _points(draw_curve("a", [(0, 0.0), (50, 5.0), (100, 10.0)]))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert math.isclose(x1, (x0 + x2) / 2, abs_tol=0.2)
    assert math.isclose(y1, (y0 + y2) / 2, abs_tol=0.2)


def test_curves_of_odd_values() -> None:
    assert "no finite value" in draw_curve("nan", [(0, math.nan)])
    assert len(_points(draw_curve("gap", [(0, 1.0), (1, 2.0), (2, math.inf), (3, 1.0)]))) == 2
    for value in (0.0, 1e-9, -3.5, 1e12):
        ((point,),) = _points(draw_curve("one <&> point", [(7, value)]))
        assert 0 < point[0] < 340
        assert 0 < point[1] < 200
