from __future__ import annotations

from pathlib import Path

import pytest
from tiny import CONFIG

from cv_superpoint.network.torch_network import SuperPointNet


@pytest.fixture(scope="module")
def net() -> SuperPointNet:
    """A network with random weights."""
    return SuperPointNet(CONFIG).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("weights")
