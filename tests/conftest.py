"""Real photographs and real detectors, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pytest
import skimage.data
import torch
from pinned import PINNED

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import cache
from cv_superpoint.weights import load_weights, save_weights

# A busy machine takes as long as it takes, and a checkout may be read-only.
hypothesis.settings.register_profile(
    "any machine",
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")


def pytest_report_header() -> str:
    return f"OpenCV {cv2.__version__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: one process trains while the other does the rest."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread in this process at the start of each test, whatever the one before it set.

    Other tests run beside it, and results do not depend on the number of cores.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="session", autouse=True)
def compiled_networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of this run for compiled networks, for its subprocesses too.

    The user's own may hold older ones, and there may be no home folder to have it in.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.ENVIRONMENT, str(tmp_path_factory.mktemp("compiled")))
        yield


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
def unmatched(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights that no bundled matcher was trained for: the lite set, changed."""
    lite = load_weights("superpoint-lite")
    net = lite.net
    with torch.no_grad():
        next(net.parameters()).mul_(1.0001)
    path = tmp_path_factory.mktemp("unmatched") / "unmatched.safetensors"
    save_weights(net, path, score_threshold=lite.score_threshold, score_radius=lite.score_radius)
    return str(path)


@pytest.fixture(scope="session")
def detector() -> SuperPointFeature2D:
    """The bundled weights in float32 on the CPU; tests that set parameters make their own."""
    return SuperPointFeature2D.create(**PINNED)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models, instead of the user's."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, closed after the tests of a file: Playwright's loop is in the way of others."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
