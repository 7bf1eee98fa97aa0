"""The whole pipeline is timed on what it finds."""

import pytest

from benchmarks.__main__ import main
from benchmarks.pipeline import PARTS, SIFT, Pipeline, contenders


def test_the_table_has_every_contender(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pipeline", "--weights", "superpoint-lite", "--formats", "float32", "binary"]
    arguments += ["--photographs", "1", "--size", "120", "160", "--rounds", "1", "--threads", "1"]
    assert main([*arguments, "--threshold", "0.05", "--precision", "float32", "--processor"]) == 0
    text = capsys.readouterr().out
    assert "medians of processor time, in ms" in text
    for name in (SIFT, "cv2.ORB", "superpoint-lite, float32", "superpoint-lite, binary"):
        assert f"| {name} |" in text


def test_parts_add_up_and_the_matches_are_right() -> None:
    from benchmarks.measure import photographs

    [image] = photographs(None, (120, 160), 1)
    options = {"threads": 1, "device": "cpu", "precision": "float32", "scoreThreshold": 0.05}
    made = contenders(("superpoint-lite",), ("binary",), count=100, options=options)
    for name, make in made.items():
        pipeline = Pipeline(make())
        pipeline((image, image), timed=False)
        assert not pipeline.counts
        pipeline((image, image))
        found = pipeline.summary()
        assert found["whole"] == pytest.approx(sum(found[part] for part in PARTS))
        assert found["call"] == pytest.approx(found["detect"] / 2)
        assert found["matches"] > 0.9 * found["keypoints"] > 10, name
        assert found["inliers"] > 0.9 * found["matches"]
