"""Modules under their old names, which are kept for one release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import NamedTuple

RENAMED = {
    "cv_superpoint.architecture": "cv_superpoint.network.architecture",
    "cv_superpoint.backends.device_decode": "cv_superpoint.decoding.tensors",
    "cv_superpoint.call_forms": "cv_superpoint.opencv.call_forms",
    "cv_superpoint.checkpoint_files": "cv_superpoint.weights.files",
    "cv_superpoint.checkpoint_layouts": "cv_superpoint.weights.layouts",
    "cv_superpoint.checkpoint_network": "cv_superpoint.weights.tensors",
    "cv_superpoint.completeness": "cv_superpoint.pictures.completeness",
    "cv_superpoint.containers": "cv_superpoint.pictures.containers",
    "cv_superpoint.conversions": "cv_superpoint.pictures.conversions",
    "cv_superpoint.decode": "cv_superpoint.decoding.arrays",
    "cv_superpoint.depth": "cv_superpoint.pictures.depth",
    "cv_superpoint.drawing": "cv_superpoint.matching.drawing",
    "cv_superpoint.evaluation.verdict": "cv_superpoint.evaluation.reliable",
    "cv_superpoint.export.decoding": "cv_superpoint.decoding.graph",
    "cv_superpoint.feature2d": "cv_superpoint.opencv.feature2d",
    "cv_superpoint.features": "cv_superpoint.detector.features",
    "cv_superpoint.guided": "cv_superpoint.matching.guided",
    "cv_superpoint.image": "cv_superpoint.pictures.arrays",
    "cv_superpoint.interop.keypoints": "cv_superpoint.interop.pickling",
    "cv_superpoint.module": "cv_superpoint.detector.module",
    "cv_superpoint.nearest": "cv_superpoint.matching.nearest",
    "cv_superpoint.on_device": "cv_superpoint.detector.on_device",
    "cv_superpoint.options": "cv_superpoint.opencv.options",
    "cv_superpoint.orientation": "cv_superpoint.pictures.orientation",
    "cv_superpoint.parameters": "cv_superpoint.opencv.parameters",
    "cv_superpoint.pickling": "cv_superpoint.opencv.pickling",
    "cv_superpoint.pixels": "cv_superpoint.pictures.pixels",
    "cv_superpoint.reading": "cv_superpoint.pictures.reading",
    "cv_superpoint.storage": "cv_superpoint.opencv.storage",
    "cv_superpoint.streaming": "cv_superpoint.detector.streaming",
    "cv_superpoint.tiles": "cv_superpoint.detector.tiles",
    "cv_superpoint.torch_decode": "cv_superpoint.decoding.tensors",
    "cv_superpoint.tracking": "cv_superpoint.matching.tracking",
    "cv_superpoint.verdict": "cv_superpoint.matching.verdict",
    "cv_superpoint.video_length": "cv_superpoint.pictures.video_length",
}


class Program(NamedTuple):
    """What ``python -m`` ran under an old name.

    Attributes:
        arguments: Arguments of the package's program that do the same.
        options: New name of each option by its old one, where they differ.
    """

    arguments: Sequence[str]
    options: Mapping[str, str] = {}


PROGRAMS = {
    "cv_superpoint.evaluation.verdict": Program(
        ["evaluate", "--protocol", "verdict"],
        {"--detector": "--detectors", "--threshold": "--ransac-threshold"},
    ),
}


class _Loader(importlib.abc.InspectLoader):
    """Puts the new module in the place of the old one, so that each exists once."""

    def __init__(self, finder: _Finder) -> None:
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        new = self._finder.new_name(name)
        assert new is not None
        sys.modules[name] = importlib.import_module(new)
        warnings.warn(f"{name} is {new} now", DeprecationWarning, stacklevel=2)

    def is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._finder.names)

    def get_source(self, fullname: str) -> str | None:
        return None

    def get_code(self, fullname: str) -> CodeType | None:
        program = self._finder.programs.get(fullname)
        if program is None:
            return None
        package = fullname.partition(".")[0]
        now = f"{fullname} is python -m {package} {' '.join(program.arguments)} now"
        return compile(
            "import sys, warnings\n"
            "from cv_superpoint import _renamed\n"
            f"from {package}.__main__ import main\n"
            f"warnings.warn({now!r}, DeprecationWarning)\n"
            f"program = _renamed.Program({list(program.arguments)!r}, {dict(program.options)!r})\n"
            "sys.argv[1:] = _renamed.arguments_of_now(program, sys.argv[1:])\n"
            "raise SystemExit(main())\n",
            f"<{fullname}>",
            "exec",
        )


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, renamed: Mapping[str, str], programs: Mapping[str, Program]) -> None:
        self.renamed, self.programs = renamed, programs
        self.names = {*renamed, *programs}

    def new_name(self, name: str) -> str | None:
        """New name, if a module or a package above it was renamed."""
        if name in self.renamed:
            return self.renamed[name]
        package, _, module = name.rpartition(".")
        return f"{self.renamed[package]}.{module}" if package in self.renamed else None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.programs and self.new_name(fullname) is None:
            return None
        loader = _Loader(self)
        return ModuleSpec(fullname, loader, is_package=loader.is_package(fullname))


def arguments_of_now(program: Program, arguments: Sequence[str]) -> list[str]:
    """New command line for an old one."""
    now = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        now.append(program.options.get(option, option) + equals + value)
    return [*program.arguments, *now]


def install(
    renamed: Mapping[str, str] = RENAMED, programs: Mapping[str, Program] = PROGRAMS
) -> None:
    """Let imports of old names find the new modules.

    Args:
        renamed: New names by old ones.
        programs: Programs by the old name that ``python -m`` ran.
    """
    # First: an old package is the new one, below which the ordinary finder would load twice.
    sys.meta_path.insert(0, _Finder(renamed, programs))
