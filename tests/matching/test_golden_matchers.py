"""The bundled matchers find what was recorded at their release.

After a change of a matcher or of its weights, and only then, record anew:
``PYTHONPATH=tests python tests/matching/test_golden_matchers.py``
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from pinned import FLOAT32

from cv_superpoint import LightGlueMatcher, SuperPointFeature2D
from cv_superpoint.matching.lightglue.bundled import available_matchers
from cv_superpoint.weights import load_weights
from cv_superpoint.weights.store import read_manifest

GOLDEN = Path(__file__).parent / "golden"
BACKENDS = ("numpy", "onnxruntime", "openvino")
SURE = 0.3
"""Score from which on a recorded match has to be found again."""


def views() -> list[np.ndarray]:
    """Two views of a photograph, turned and of different sizes."""
    first = skimage.data.camera()[:400]
    turn = cv2.getRotationMatrix2D((250, 200), 25, 0.8)
    return [first, cv2.warpAffine(first, turn, (480, 360))]


def matched(name: str, backend: str) -> np.ndarray:
    """(M, 5) x0, y0, x1, y1, score."""
    # float32, two threads
    detector = SuperPointFeature2D.create(300, weights=name, threads=2, **FLOAT32)
    features = [detector.extract(view) for view in views()]
    rows, scores = LightGlueMatcher.create(name, backend=backend)(*features)
    points = [each.keypoints[rows[:, side]] for side, each in enumerate(features)]
    return np.column_stack([*points, scores]).astype(np.float32)


def digests(name: str) -> str:
    return f"{read_manifest()['matchers'][name]['sha256']} {load_weights(name).sha256}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", available_matchers())
def test_release_matches_what_was_recorded(name: str, backend: str) -> None:
    with np.load(GOLDEN / f"{name}.npz") as file:
        assert str(file["digests"]) == digests(name), "record the new matcher's results"
        golden = file["matches"]
    found = matched(name, backend)
    assert abs(len(found) - len(golden)) <= 0.03 * len(golden)
    golden = golden[golden[:, 4] > SURE]
    assert len(golden) >= 50
    distance = np.linalg.norm(golden[:, None, :4] - found[:, :4], axis=2)
    nearest = distance.argmin(axis=1)
    same = distance[np.arange(len(golden)), nearest] < 0.05
    assert same.mean() >= 0.97
    assert np.abs(golden[:, 4] - found[nearest, 4])[same].max() < 0.05


def record() -> None:
    """Write what the bundled matchers find, computed by numpy."""
    GOLDEN.mkdir(exist_ok=True)
    for name in available_matchers():
        np.savez_compressed(
            GOLDEN / f"{name}.npz", digests=np.array(digests(name)), matches=matched(name, "numpy")
        )


if __name__ == "__main__":
    sys.exit(record())
