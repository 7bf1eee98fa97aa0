"""Relative poses: the list of pairs, the angles, and rendered scenes whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from evaluating import main

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation import pose
from cv_superpoint.evaluation.run import EvaluateConfig, evaluate
from cv_superpoint.evaluation.scenes import SceneConfig, pair_line, render_scenes, write_scenes
from cv_superpoint.evaluation.warps import WarpConfig
from cv_superpoint.matching.epipolar import epipolar_distances

CLEAN = WarpConfig(noise=0, blur=0, contrast=1, brightness=0)
SMALL = SceneConfig(size=(240, 320), photometry=CLEAN, seed=4)


def textures() -> list[np.ndarray]:
    names = ("astronaut", "coffee", "chelsea", "rocket")
    return [cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2GRAY) for name in names]


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    return list(render_scenes(textures(), 3, SMALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenes: list[Any]) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    write_scenes(path, scenes)
    return path


def seen_in_both(scene: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points of picture 0 and where the depth says that they are in picture 1, if seen there."""
    rows, columns = np.mgrid[10:230:7, 10:310:7].reshape(2, -1)
    points = np.stack([columns, rows], axis=1).astype(np.float64)
    rays = np.c_[points, np.ones(len(points))] @ np.linalg.inv(scene.intrinsics).T
    places = rays * scene.views[0].depth[rows, columns, None]
    moved = places @ scene.t_0to1[:3, :3].T + scene.t_0to1[:3, 3]
    there = moved @ scene.intrinsics.T
    there = there[:, :2] / there[:, 2:]
    inside = ((there > 5) & (there < (314, 234))).all(axis=1)
    x, y = np.rint(there[inside]).astype(int).T
    seen = np.abs(scene.views[1].depth[y, x] / moved[inside, 2] - 1) < 0.02
    return points[inside][seen], there[inside][seen]


def test_pictures_show_what_their_depth_says(scenes: list[Any]) -> None:
    for scene in scenes:
        points0, points1 = seen_in_both(scene)
        assert len(points0) > 300
        grey = [
            cv2.remap(view.image, *np.float32(points).T[..., None], cv2.INTER_LINEAR).ravel()
            for view, points in zip(scene.views, (points0, points1), strict=True)
        ]
        assert np.corrcoef(*grey)[0, 1] > 0.9
        truth = pose.to_fundamental(pose.essential_of(scene.t_0to1), (scene.intrinsics,) * 2)
        assert epipolar_distances(truth, points0, points1).max() < 1e-6
        # No homography explains it.
        homography, _ = cv2.findHomography(points0, points1, cv2.RANSAC, 2.0)
        missed = cv2.perspectiveTransform(points0[None], homography)[0] - points1
        assert (np.linalg.norm(missed, axis=1) > 2).mean() > 0.1


def test_exact_points_give_the_pose(scenes: list[Any]) -> None:
    for scene in scenes:
        points = seen_in_both(scene)
        intrinsics = (scene.intrinsics, scene.intrinsics)
        essential, agree = pose.find_essential(*points, intrinsics, 1.0)
        assert essential is not None
        assert agree.mean() > 0.95
        found = pose.to_pose(essential, *points, intrinsics)
        assert found is not None
        errors = pose.pose_errors(found, scene.t_0to1)
        assert errors["pose_error"] == max(errors["rotation_error"], errors["translation_error"])
        assert errors["pose_error"] < 0.5


def test_angles_by_hand() -> None:
    truth = np.eye(4)
    truth[:3, 3] = (2, 0, 0)
    turn = cv2.Rodrigues(np.array([0, np.deg2rad(7), 0]))[0]
    across = np.array([np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30)), 0])
    errors = pose.pose_errors(pose.Pose(turn, -across), truth)
    assert errors["rotation_error"] == pytest.approx(7)
    assert errors["translation_error"] == pytest.approx(30)
    assert errors["pose_error"] == pytest.approx(30)


def test_lines_are_read_as_they_are_written() -> None:
    intrinsics = [np.diag([500.0, 510, 1]), np.diag([600.0, 610, 1])]
    t_0to1 = np.eye(4)
    t_0to1[:3, 3] = (0.1, -0.2, 1 / 3)
    line = pair_line(["a/0.png", "b.jpg"], intrinsics, t_0to1)
    pair = pose.read_line(line.replace(" 0 0 ", " 1 3 ", 1))
    assert isinstance(pair, pose.PosePair)
    assert (pair.paths, pair.turns) == (("a/0.png", "b.jpg"), (1, 3))
    np.testing.assert_array_equal(pair.intrinsics, intrinsics)
    np.testing.assert_array_equal(pair.t_0to1, t_0to1)
    words = line.split()
    for changed, says in (
        (words[:-1], "37 words"),
        ([*words[:-1], "x"], "is not numbers"),
        ([*words[:4], *["0"] * 9, *words[13:]], "cannot be inverted"),
        ([*words[:22], *["0"] * 16], "no rotation"),
        ([*words[:5], "nan", *words[6:]], "cannot be inverted"),
    ):
        assert says in str(pose.read_line(" ".join(changed)))


def test_the_protocol_measures_and_refines(folder: Path, tmp_path: Path) -> None:
    plain, refined = (
        evaluate(
            EvaluateConfig(
                data=folder, protocol="pose", refine=refine, resamples=0, out=tmp_path / str(refine)
            ),
            {"sift": cv2.SIFT.create()},
        ).summaries["sift"]["all"]
        for refine in (False, True)
    )
    assert plain["pose_auc_20"].value > 0.5
    assert refined["inlier_error"].value < plain["inlier_error"].value
    assert refined["pose_auc_20"].value > plain["pose_auc_20"].value - 0.05
    assert "AUC@5°" in (tmp_path / "True" / "results.md").read_text(encoding="utf-8")


def test_poses_of_several_matchers_are_compared(folder: Path) -> None:
    config = EvaluateConfig(data=folder, protocol="pose", matchers=("mutual,ratio",), resamples=0)
    report = evaluate(config, {"sift": cv2.SIFT.create()})
    plain, tested = (report.summaries[label]["all"] for label in ("sift", "sift + ratio"))
    assert tested["matches"].value < plain["matches"].value
    assert tested["match_precision"].value > plain["match_precision"].value
    assert "sift + ratio − sift" in report.to_markdown()


def test_a_turned_picture_is_found_upright(scenes: list[Any], tmp_path: Path) -> None:
    """Stored lying on its side; the list says so, and intrinsics are of what is stored."""
    scene = scenes[0]
    write_scenes(tmp_path, [scene])
    config = EvaluateConfig(data=tmp_path, protocol="pose", resamples=0)
    (upright,) = evaluate(config, {"sift": cv2.SIFT.create()}).results["sift"]
    path = tmp_path / "scene0000/1.png"
    assert cv2.imwrite(str(path), np.rot90(scene.views[1].image, -1))
    height = scene.views[1].image.shape[0]
    # Pixel (x, y) is stored at (height - 1 - y, x), as of a camera turned about its axis.
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    k = scene.intrinsics
    stored = np.array([[k[1, 1], 0, height - 1 - k[1, 2]], [0, k[0, 0], k[0, 2]], [0, 0, 1]])
    t_0to1 = scene.t_0to1.copy()
    t_0to1[:3] = turn @ t_0to1[:3]
    line = pair_line(["scene0000/0.png", "scene0000/1.png"], (k, stored), t_0to1)
    (tmp_path / "pairs.txt").write_text(line.replace(" 0 0 ", " 0 1 ", 1))
    (result,) = evaluate(config, {"sift": cv2.SIFT.create()}).results["sift"]
    assert result["matches"] == upright["matches"] > 50
    assert result["match_precision"] == pytest.approx(upright["match_precision"], abs=0.01)
    assert result["pose_error"] < 10


def test_what_is_wrong_is_told(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SuperPointError, match="SuperGlue's layout"):
        pose.PosePairs(root=tmp_path)
    (tmp_path / "pairs.txt").write_text("a b c\n\n")
    with pytest.raises(SuperPointError, match=r"no pair in .*line 1: has 3 words"):
        pose.PosePairs(root=tmp_path)
    lines = (folder / "pairs.txt").read_text().splitlines()
    missing = lines[0].replace("scene0000/1.png", "missing.png")
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([missing, "# comment", lines[1]]))
    arguments = ["--data", str(folder), "--protocol", "pose", "--pairs", str(listed)]
    assert main([*arguments, "--detectors", "orb", "--resamples", "0"]) == 3
    out = capfd.readouterr().out
    assert "missing.png" in out
    assert "line 2: has 2 words" in out
    assert main([*arguments, "--detectors", "orb,harris"]) == 1
    assert "harris has no descriptors, which this protocol needs" in capfd.readouterr().err
    assert main([*arguments, "--rotations", "0", "90"]) == 1
    with pytest.raises(SuperPointError, match="a photograph or more"):
        next(render_scenes([], 1))
