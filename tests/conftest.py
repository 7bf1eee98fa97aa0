"""Real photographs and real detectors, made once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from cv_superpoint import SuperPointFeature2D


def pytest_report_header() -> str:
    return f"OpenCV {cv2.__version__}"


@pytest.fixture(scope="session")
def bgr() -> np.ndarray:
    """A colour photograph, 240 x 320 of skimage's astronaut, BGR."""
    image = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    return np.ascontiguousarray(image[20:260, 90:410])


@pytest.fixture(scope="session")
def grey(bgr: np.ndarray) -> np.ndarray:
    """The same in grey."""
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)


@pytest.fixture(scope="session")
def detector() -> SuperPointFeature2D:
    """The bundled weights with every default; tests that set parameters make their own."""
    return SuperPointFeature2D.create(device="cpu")
