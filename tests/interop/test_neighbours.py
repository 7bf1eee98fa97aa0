"""OpenSfM's files, pickling, and vismatch's calling form."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_features
from pinned import PINNED

from cv_superpoint import FeatureError, MatchResult, SuperPointFeature2D
from cv_superpoint.interop import opensfm
from cv_superpoint.interop.vismatch import PairMatcher

# ---- OpenSfM ----


def test_opensfm_reads_its_file(pair: MatchResult, stereo: Any, tmp_path: Path) -> None:
    path = tmp_path / "left.png.features.npz"
    opensfm.write_features(path, pair.features0, stereo[0])
    with np.load(path) as file:
        assert int(file["OPENSFM_FEATURES_VERSION"]) == 1
        points, colours = file["points"], file["colors"].astype(float)
        np.testing.assert_array_equal(file["descriptors"], pair.features0.descriptors)
    # Back to pixels by OpenSfM's formula.
    x, y = points[:, 0] * 741 - 0.5 + 741 / 2, points[:, 1] * 741 - 0.5 + 500 / 2
    np.testing.assert_allclose(np.c_[x, y], pair.features0.keypoints, atol=1e-3)
    np.testing.assert_allclose(points[:, 2] * 741, pair.features0.sizes, rtol=1e-5)
    rows = np.rint(pair.features0.keypoints).astype(int)
    np.testing.assert_array_equal(colours, stereo[0][rows[:, 1], rows[:, 0]][:, ::-1])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("channels", [None, 1, 4])
def test_opensfm_colours_of_any_image(channels: int | None, tmp_path: Path) -> None:
    features = made_features([[3, 2], [0, 0]], (10, 20))
    shape = (10, 20) if channels is None else (10, 20, channels)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    opensfm.write_features(tmp_path / "a.npz", features, image)
    with np.load(tmp_path / "a.npz") as file:
        pixel = image[2, 3]
        expected = [pixel.item()] * 3 if channels in (None, 1) else pixel[2::-1].tolist()
        assert file["colors"][0].tolist() == expected


def test_opensfm_refuses(pair: MatchResult, stereo: Any, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="size that the features were made of"):
        opensfm.write_features(tmp_path / "a.npz", pair.features0, stereo[0][:100])
    with pytest.raises(FeatureError, match=r"ends in \.npz"):
        opensfm.write_features(tmp_path / "a.h5", pair.features0, stereo[0])


# ---- pickling ----


def test_pickling_is_a_choice_and_readers_need_nothing(tmp_path: Path) -> None:
    script = f"""
import copy, pickle, cv2
point, match = cv2.KeyPoint(1.5, 2.25, 8, -1, 0.75, 3, 7), cv2.DMatch(1, 2, 3, 0.5)
try:
    pickle.dumps(point)
except TypeError:
    print("not before")
from cv_superpoint.interop.pickling import enable_pickling
enable_pickling()
print(copy.deepcopy([point])[0].pt)
pickle.dump(((point,), [match]), open({str(tmp_path / "points")!r}, "wb"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["not before", "(1.5, 2.25)"], done.stderr
    # This process did not enable it.
    (point,), (match,) = pickle.loads((tmp_path / "points").read_bytes())
    fields = (*point.pt, point.size, point.angle, point.response, point.octave, point.class_id)
    assert fields == (1.5, 2.25, 8, -1, 0.75, 3, 7)
    assert (match.queryIdx, match.trainIdx, match.imgIdx, match.distance) == (1, 2, 3, 0.5)
    with pytest.raises(TypeError):
        copy.copy(point)


# ---- vismatch ----


def test_two_tensors_in_matched_points_out(stereo: Any) -> None:
    left = stereo[0][:240, :320]
    tensors = [
        torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1) / 255
        for image in (left, left[16:, 24:])
    ]
    matcher = PairMatcher(SuperPointFeature2D.create(200, **PINNED))
    answer = matcher(*tensors)
    assert answer["num_inliers"] == len(answer["inlier_kpts0"]) > 50
    np.testing.assert_allclose(answer["H"] / answer["H"][2, 2] @ [100, 100, 1], [76, 84, 1], atol=1)
    assert answer["matched_kpts0"].shape == answer["matched_kpts1"].shape
    assert len(answer["matched_confidences"]) == len(answer["matched_kpts0"])
    for index in "01":
        assert len(answer[f"all_desc{index}"]) == len(answer[f"all_kpts{index}"]) > 50
    # The same as with the image itself: colours are not swapped.
    features = matcher.detector.extract(left)
    np.testing.assert_array_equal(features.keypoints, answer["all_kpts0"])


def test_vismatch_refuses_other_forms() -> None:
    matcher = PairMatcher(SuperPointFeature2D.create(10, **PINNED))
    for wrong in (torch.zeros(1, 3, 8, 8), torch.zeros(8, 8, 3), torch.zeros(3, 8, 8).byte()):
        with pytest.raises(FeatureError, match=r"\(3, H, W\) float RGB"):
            matcher(wrong, torch.zeros(3, 8, 8))
