"""What the package exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import cv_superpoint


def run(script: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_every_exported_name_is_there() -> None:
    for name in cv_superpoint.__all__:
        assert getattr(cv_superpoint, name) is not None
    assert len(set(cv_superpoint.__all__)) == len(cv_superpoint.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cv_superpoint.Nothing  # noqa: B018


def test_version() -> None:
    assert version("cv-superpoint") == cv_superpoint.__version__


def test_importing_does_not_import_torch() -> None:
    loaded = run("import sys, cv_superpoint; print('torch' in sys.modules)")
    assert loaded.strip() == "False"


def test_creating_does_not_touch_global_state() -> None:
    script = """
import random, numpy, torch, cv_superpoint
state = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
cv_superpoint.SuperPointFeature2D.create(device="cpu").detectAndCompute(
    numpy.zeros((40, 40), numpy.uint8), None)
after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
print(state == after, torch.is_grad_enabled())
"""
    assert run(script).split() == ["True", "True"]
