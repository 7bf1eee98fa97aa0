"""bfloat16 where the CPU multiplies in it: how close, and that nothing else is lost by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends.openvino import has_bfloat16

PHOTOGRAPH = skimage.data.camera()[:240, 100:420].copy()
BFLOAT16 = {"device": "cpu", "backend": "openvino", "precision": "bfloat16"}
pytestmark = pytest.mark.skipif(not has_bfloat16(), reason="needs a CPU with AMX or AVX512-BF16")


@pytest.fixture(scope="module")
def rough() -> SuperPointFeature2D:
    return SuperPointFeature2D.create(200, threads=1, **BFLOAT16)


def test_keypoints_are_nearly_those_of_float32(rough: SuperPointFeature2D) -> None:
    assert "bfloat16" in rough.info()
    exact = SuperPointFeature2D.create(200, **PINNED).extract(PHOTOGRAPH)
    found = rough.extract(PHOTOGRAPH)
    distance = np.linalg.norm(exact.keypoints[:, None] - found.keypoints, axis=2)
    nearest = distance.argmin(axis=1)
    same = distance.min(axis=1) < 0.5
    assert same.mean() > 0.95
    cosine = (exact.descriptors * found.descriptors[nearest]).sum(axis=1)[same]
    assert np.median(cosine) > 0.999
    assert not np.array_equal(exact.scores, found.scores)  # it is another precision, after all


def test_what_is_promised_in_float32_holds(rough: SuperPointFeature2D) -> None:
    images = [PHOTOGRAPH, PHOTOGRAPH[:120, :160], PHOTOGRAPH[40:, 30:]]
    fields = ("keypoints", "scores", "descriptors")

    def assert_same(one: Any, other: Any) -> None:
        for field in fields:
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))

    alone = [rough.extract(image) for image in images]
    for one, other in zip(alone, rough.extractBatch(images), strict=True):
        assert_same(one, other)
    few = SuperPointFeature2D.create(20, threads=1, **BFLOAT16)
    assert_same(few.extract(PHOTOGRAPH), alone[0][:20])
    np.testing.assert_allclose(np.linalg.norm(alone[0].descriptors, axis=1), 1, atol=1e-5)
    described = rough.compute(PHOTOGRAPH, alone[0].to_keypoints())[1]
    np.testing.assert_allclose(described, alone[0].descriptors, atol=1e-5)
