"""What the package exports, and what importing it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import cv2
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


def test_one_tree_of_errors() -> None:
    modules = ["cv_superpoint", "train"]
    found = []
    for package in modules:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ImportError:  # of a package that is not installed
                    continue
    errors = [cv_superpoint.SuperPointError]
    while errors:
        one = errors.pop()
        found.append(one.__name__)
        errors.extend(one.__subclasses__())
    assert issubclass(cv_superpoint.SuperPointError, ValueError)
    assert issubclass(cv_superpoint.WeightsError, cv_superpoint.FeatureError)
    assert issubclass(cv_superpoint.FeatureError, cv2.error)
    text = cv_superpoint.SuperPointError.__doc__ or ""
    assert sorted(name for name in found if name not in text) == []


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "caffe"},
        {"device": "cuda:99"},
        {"device": "abacus"},
        {"precision": "int3"},
        {"backend": "torch", "precision": "float16", "device": "cpu"},
        {"weights": "nothing"},
        {"threads": 0},
        {"tileSize": 65},
    ],
    ids=str,
)
def test_what_create_refuses_is_an_error_of_cv2_and_a_value_error(options: dict) -> None:
    with pytest.raises(cv_superpoint.FeatureError) as refused:
        cv_superpoint.SuperPointFeature2D.create(**options)
    assert isinstance(refused.value, (cv2.error, ValueError))
    assert refused.value.code == -5
    assert str(refused.value) == refused.value.err
