"""Modules under their names of before: kept for one release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

_RENAMED = {
    "train.adapt": "train.stages.adapt",
    "train.checkpoint": "train.learning.checkpoint",
    "train.command": "cv_superpoint.cli.command",
    "train.curves": "train.reporting.curves",
    "train.data.augment": "cv_superpoint.synthetic.photometric",
    "train.data.drawing": "cv_superpoint.synthetic.polygons",
    "train.data.shapes": "cv_superpoint.synthetic.shapes",
    "train.detect": "train.learning.detect",
    "train.distributed": "train.runtime.distributed",
    "train.evaluate": "cv_superpoint.evaluation",
    "train.evaluate.subpixel": "train.learning.subpixel",
    "train.geometry": "cv_superpoint",
    "train.geometry.homography": "cv_superpoint.geometry",
    "train.joint": "train.stages.joint",
    "train.keypoints": "train.learning.keypoints",
    "train.labels": "train.data.labels",
    "train.loop": "train.learning.loop",
    "train.losses": "train.learning.losses",
    "train.magicpoint": "train.stages.magicpoint",
    "train.model": "train.learning.model",
    "train.preview": "train.reporting.preview",
    "train.report": "train.reporting.progress",
    "train.summary": "train.reporting.summary",
    "train.validate": "train.learning.validate",
}

_PROGRAMS = {
    "train.evaluate.__main__": ["evaluate"],
    "train.evaluate.limits": ["evaluate", "--protocol", "limits"],
    "train.summary": ["summary"],
}
"""Names that ``python -m`` runs, and the arguments of ``python -m train`` that do the same."""


def _new_name(name: str) -> str | None:
    """The name of now, if a module or a package above it was renamed."""
    if name in _RENAMED:
        return _RENAMED[name]
    package, _, module = name.rpartition(".")
    return f"{_RENAMED[package]}.{module}" if package in _RENAMED else None


class _Loader(importlib.abc.InspectLoader):
    """Puts the module of now in the place of the old one, so that there is one of each."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        new = _new_name(name)
        assert new is not None
        sys.modules[name] = importlib.import_module(new)
        warnings.warn(f"{name} is {new} now", DeprecationWarning, stacklevel=2)

    def is_package(self, fullname: str) -> bool:
        return fullname in ("train.evaluate", "train.geometry", "train.preview")

    def get_source(self, fullname: str) -> str | None:
        return None

    def get_code(self, fullname: str) -> CodeType | None:
        if fullname not in _PROGRAMS:
            return None
        arguments = _PROGRAMS[fullname]
        now = f"{fullname} is python -m train {' '.join(arguments)} now"
        return compile(
            "import sys, warnings\n"
            "from train.__main__ import main\n"
            f"warnings.warn({now!r}, DeprecationWarning)\n"
            f"sys.argv[1:1] = {arguments!r}\n"
            "main()\n",
            f"<{fullname}>",
            "exec",
        )


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PROGRAMS and _new_name(fullname) is None:
            return None
        loader = _Loader()
        return ModuleSpec(fullname, loader, is_package=loader.is_package(fullname))


def install() -> None:
    """Let imports of the old names find the modules of now."""
    # First: an old package is the new one, below which the ordinary finder would load twice.
    sys.meta_path.insert(0, _Finder())
