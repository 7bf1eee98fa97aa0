from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluating import main
from skimage import data

from cv_superpoint.evaluation.limits import FARTHER, LEVELS, Factor, make_pair
from cv_superpoint.geometry import valid_mask

PHOTOGRAPH = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize(
    ("factor", "level"),
    [(name, level) for name in ("rotation", "scale", "turned") for level in LEVELS[name]],
)
def test_homography_maps_one_image_onto_the_other(factor: Factor, level: float) -> None:
    pair = make_pair(PHOTOGRAPH, "astronaut", factor, level)
    size = (240, 320)
    predicted = cv2.warpPerspective(
        pair.images[1], np.linalg.inv(pair.h_0to1), size[::-1], flags=cv2.INTER_LINEAR
    ).astype(float)
    seen = valid_mask(np.linalg.inv(pair.h_0to1), size, size, 2)
    assert seen.mean() > 0.5
    # Both are compared at the coarser resolution, which is all that the farther view shows.
    sigma = {"scale": level, "turned": FARTHER}.get(factor, 1.0)
    first, predicted = (
        cv2.GaussianBlur(image.astype(float), (0, 0), sigma)
        for image in (pair.images[0], predicted)
    )
    difference = np.abs(first - predicted)[seen].mean()
    shifted = np.abs(first - np.roll(predicted, 2, axis=1))[seen].mean()
    assert difference < 4
    assert difference < 0.6 * shifted


@pytest.mark.parametrize("factor", ["blur", "night"])
def test_more_is_worse_and_nothing_moves(factor: Factor) -> None:
    pairs = [make_pair(PHOTOGRAPH, "astronaut", factor, level) for level in LEVELS[factor]]
    again = make_pair(PHOTOGRAPH, "astronaut", factor, LEVELS[factor][-1])
    np.testing.assert_array_equal(again.images[1], pairs[-1].images[1])
    assert all((pair.h_0to1 == np.eye(3)).all() for pair in pairs)
    worse = [cv2.PSNR(*pair.images) for pair in pairs]
    assert sorted(worse, reverse=True) == worse
    assert abs(float(pairs[-1].images[1].mean()) - float(pairs[-1].images[0].mean())) < 12


def test_command_prints_a_row_for_each_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), PHOTOGRAPH)
    protocol = ["--protocol", "limits"]
    arguments = [
        *protocol,
        "--data",
        str(tmp_path),
        "--detectors",
        "sift,orb",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--only", "rotation", "blur"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| sift")]
    assert [len(row) for row in rows] == [9, 6]
    # Unturned it matches itself; SIFT matches at every angle; nothing survives 4 px of blur.
    assert rows[0][1].strip() == "1.00 (1.00)"
    assert float(rows[0][6].split()[0]) > 0.5
    assert float(rows[1][-1].split()[0]) < 0.5
    assert (tmp_path / "out" / "limits.md").read_text(encoding="utf-8") == printed
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert main([*protocol, "--data", str(tmp_path), "--detectors", "orb", "--only", "blur"]) == 3
    assert "| orb" in capsys.readouterr().out
    assert main([*protocol, "--data", str(tmp_path / "nowhere")]) == 1
    assert "is not a folder" in capsys.readouterr().err
