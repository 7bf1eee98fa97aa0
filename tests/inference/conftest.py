"""What several tests of inference need."""

from __future__ import annotations

from pathlib import Path

import pytest

from cv_superpoint.backends import cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models, instead of the user's."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"
