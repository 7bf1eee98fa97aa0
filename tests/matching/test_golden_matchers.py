"""The bundled matchers give the matches that were recorded at their release.

After a change of a matcher or of its weights, and only then, record anew:
``PYTHONPATH=tests python tests/matching/test_golden_matchers.py``
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.transform
from pinned import PINNED

from cv_superpoint import LightGlueMatcher, SuperPointFeature2D
from cv_superpoint.matching.lightglue.bundled import available_matchers
from cv_superpoint.matching.lightglue.running import MatcherBackend
from cv_superpoint.weights.store import read_manifest

GOLDEN = Path(__file__).parent / "golden"
ANGLE, ZOOM, MIDDLE = np.deg2rad(25), 0.7, 255.5
LINEAR = ZOOM * np.array([[np.cos(ANGLE), np.sin(ANGLE)], [-np.sin(ANGLE), np.cos(ANGLE)]])
SHIFT = MIDDLE - LINEAR @ (MIDDLE, MIDDLE)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and a turned, smaller and darker view; the same with every OpenCV."""
    photograph = skimage.data.camera()
    back = np.eye(3)
    back[:2, :2] = np.linalg.inv(LINEAR)
    back[:2, 2] = -back[:2, :2] @ SHIFT
    view = skimage.transform.warp(photograph, back, order=1, preserve_range=True)
    return photograph, np.rint(0.6 * view).astype(np.uint8)


def digest(name: str) -> str:
    """SHA-256 of a bundled matcher's file."""
    return str(read_manifest()["matchers"][name]["sha256"])


def found(name: str, backend: MatcherBackend) -> np.ndarray:
    """(M, 5): x, y in both pictures and the score of each match; float32, one thread."""
    # At one level: versions of OpenCV resize differently.
    detector = SuperPointFeature2D.create(400, weights=name, scales=(1.0,), **PINNED)
    first, second = (detector.extract(picture) for picture in pictures())
    matcher = LightGlueMatcher.create(name, backend=backend, threads=1)
    rows, scores = matcher(first, second)
    places = (first.keypoints[rows[:, 0]], second.keypoints[rows[:, 1]], scores[:, None])
    return np.concatenate(places, axis=1).astype(np.float32)


@pytest.mark.parametrize("name", available_matchers())
@pytest.mark.parametrize("backend", ["numpy", "onnxruntime", "openvino", "torch"])
def test_release_matches_what_was_recorded(backend: MatcherBackend, name: str) -> None:
    if backend != "numpy":
        pytest.importorskip(backend)
    now = found(name, backend)
    with np.load(GOLDEN / f"{name}.npz") as file:
        sha256 = str(file["sha256"])
        golden = file["matches"]
    assert sha256 == digest(name), "record the new matcher's results"
    distance = np.abs(golden[:, None, :4] - now[None, :, :4]).max(axis=2)
    nearest = distance.argmin(axis=1)
    same = distance[np.arange(len(golden)), nearest] < 0.05
    # A match whose score lies at the threshold may come or go.
    assert same.mean() >= 0.98
    assert abs(len(now) - len(golden)) <= 0.02 * len(golden)
    assert np.abs(golden[:, 4] - now[nearest, 4])[same].max() < 0.02

    true = golden[:, :2] @ LINEAR.T + SHIFT
    right = np.linalg.norm(true - golden[:, 2:4], axis=1) <= 3
    assert len(golden) >= 90
    assert right.mean() >= 0.8


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in available_matchers():
        np.savez_compressed(
            GOLDEN / f"{each}.npz",
            sha256=digest(each),
            matches=found(each, "numpy"),
        )
