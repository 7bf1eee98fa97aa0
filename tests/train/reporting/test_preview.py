import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cv_superpoint.synthetic.samples import SyntheticConfig, SyntheticSample, draw_sample
from train.__main__ import main
from train.reporting.pictures import (
    coordinate_list,
    points_alone,
    samples_sheet,
    with_points,
)
from train.reporting.preview.dataset import save_dataset
from train.reporting.preview.run import PreviewConfig, preview

DATA = SyntheticConfig(size=(64, 80))


def test_dataset_holds_the_samples_exactly(tmp_path: Path) -> None:
    assert save_dataset(tmp_path, 5, 4, DATA) == 4
    for index in range(4):
        sample = draw_sample(5, index, DATA)
        record = json.loads((tmp_path / f"{index:05d}.json").read_text(encoding="utf-8"))
        image = cv2.imread(str(tmp_path / record["image"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(
            np.array(record["keypoints"]).reshape(-1, 2), sample.keypoints
        )
        assert (record["shape"], record["seed"], record["index"]) == (sample.shape, 5, index)
        assert (record["height"], record["width"]) == (64, 80)


def test_colour_is_stored_as_seen(tmp_path: Path) -> None:
    config = SyntheticConfig(size=(64, 80), colour=True)
    save_dataset(tmp_path, 5, 1, config)
    image = cv2.imread(str(tmp_path / "00000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image[..., ::-1], draw_sample(5, 0, config).image)


def test_saving_goes_on_where_it_stopped(tmp_path: Path) -> None:
    save_dataset(tmp_path, 1, 3, DATA)
    untouched = (tmp_path / "00000.json").stat().st_mtime_ns
    # Killed between image and record: the sample does not count.
    (tmp_path / "00002.json").unlink()
    (tmp_path / "00002.png").write_bytes(b"half")
    assert save_dataset(tmp_path, 1, 5, DATA) == 3
    assert (tmp_path / "00000.json").stat().st_mtime_ns == untouched
    assert cv2.imread(str(tmp_path / "00002.png")) is not None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_dataset_is_not_mixed_in(tmp_path: Path) -> None:
    save_dataset(tmp_path, 1, 1, DATA)
    with pytest.raises(ValueError, match="new folder"):
        save_dataset(tmp_path, 2, 1, DATA)
    with pytest.raises(ValueError, match="new folder"):
        save_dataset(tmp_path, 1, 1, SyntheticConfig(size=(64, 64)))


def test_pictures_show_the_points_where_they_are() -> None:
    points = np.array([[10.0, 20.0], [50.5, 40.25]])
    alone = points_alone((64, 80), points, zoom=4)
    red = (alone == (0, 0, 255)).all(axis=2)
    labels, _, _, centres = cv2.connectedComponentsWithStats(red.astype(np.uint8))
    assert labels == 3
    expected = (points + 0.5) * 4 - 0.5
    np.testing.assert_allclose(centres[1:], expected, atol=0.5)
    circled = with_points(np.zeros((64, 80), np.uint8), points, zoom=4)
    ring = np.argwhere(circled[..., 2] > 128)[:, ::-1]
    assert np.linalg.norm(ring[:, None] - expected, axis=2).min(axis=1).max() < 4


def test_list_counts_what_does_not_fit() -> None:
    points = np.random.default_rng(0).uniform(0, 60, (200, 2))
    sample = SyntheticSample(np.zeros((64, 80), np.uint8), points, "many")
    picture, listed = coordinate_list(sample, "title", 128)
    assert picture.shape[0] == 128
    assert 0 < listed < 200
    few = SyntheticSample(sample.image, points[:5], "few")
    assert coordinate_list(few, "title", 128)[1] == 5
    sheet = samples_sheet([("many", sample), ("few", few)])
    assert sheet.shape == (2 * (128 + 4), 3 * (160 + 4) + picture.shape[1] + 4, 3)


@pytest.mark.parametrize("colour", [False, True])
def test_preview_writes_what_it_says(tmp_path: Path, colour: bool) -> None:
    data = SyntheticConfig(size=(64, 64), colour=colour, shapes=("cube", "house"))
    config = PreviewConfig(run_dir=tmp_path / "run", save=tmp_path / "data", count=3, data=data)
    written = preview(config)
    assert [path.name for path in written] == ["preview.png", "shapes.png", "data"]
    assert all(cv2.imread(str(path)) is not None for path in written[:2])
    assert len(list((tmp_path / "data").glob("*.png"))) == 3


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train", "preview", "--run-dir", str(tmp_path / "run")]
    command += ["--save", str(tmp_path / "data"), "--count", "2", "--rows", "1"]
    command += ["--labels", "corners", "--shapes", "cube", "--photometric.noise", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "wrote 2 samples" in done.stderr
    image = cv2.imread(str(tmp_path / "data" / "00001.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (128, 128)
    settings = json.loads((tmp_path / "data" / "dataset.json").read_text(encoding="utf-8"))[
        "drawing"
    ]
    assert (settings["labels"], settings["photometric"]["noise"]) == ("corners", 3.0)


@pytest.mark.parametrize("option", [["--count", "0"], ["--size", "100", "128"]])
def test_impossible_options_are_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["preview", "--run-dir", str(tmp_path), *option])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert "must be" in "".join(capsys.readouterr())


def test_a_dataset_takes_no_folder_of_numbered_files(tmp_path: Path) -> None:
    (tmp_path / "00000.png").write_bytes(b"a photograph")
    with pytest.raises(ValueError, match=r"00000\.png is no sample of a dataset"):
        save_dataset(tmp_path, 0, 2, SyntheticConfig(size=(64, 64)))
    assert (tmp_path / "00000.png").read_bytes() == b"a photograph"
    assert len(list(tmp_path.iterdir())) == 1
