"""Two distributions of OpenCV over each other are named at import, and half of one as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cv_superpoint import opencv_check
from cv_superpoint.opencv_check import distributions


def put(folder: Path, *names: str, installer: str = "pip") -> None:
    for name in names:
        metadata = folder / f"{name}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "INSTALLER").write_text(f"{installer}\n")


def imported(*folders: Path) -> subprocess.CompletedProcess[str]:
    """The package imported with folders first on the path."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", "import cv_superpoint; print('imported')"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_environment_has_one() -> None:
    assert distributions() == []


def test_two_in_one_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "opencv_python-4.10.0.84", "opencv_contrib_python_headless-4.11.0.86")
    (tmp_path / "cv2").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert distributions() == [
        "opencv-contrib-python-headless 4.11.0.86",
        "opencv-python 4.10.0.84",
    ]
    with pytest.warns(RuntimeWarning, match="installed over each other; keep one: pip uninstall"):
        opencv_check.check_opencv()


def test_the_import_warns(tmp_path: Path) -> None:
    put(tmp_path, "opencv_python_headless-5.0.0.93")
    done = imported(tmp_path)
    assert done.stdout == "imported\n"
    assert "RuntimeWarning: opencv-python" in done.stderr
    assert "and opencv-python-headless 5.0.0.93 are installed over each other" in done.stderr


@pytest.mark.parametrize("kind", ["hidden", "conda", "another package"])
def test_what_does_no_harm(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "hidden":
        put(tmp_path, "opencv_python_headless-4.10.0.84")
        (tmp_path / "cv2").mkdir()
        path = [*sys.path, str(tmp_path)]
    elif kind == "conda":
        put(tmp_path, "opencv_python-4.10.0", "opencv_python_headless-4.10.0", installer="conda")
        path = [str(tmp_path), *sys.path]
    else:
        put(tmp_path, "opencv_stubs-1.0", "opencv_python_inference_engine-1.0")
        path = [str(tmp_path), *sys.path]
    monkeypatch.setattr(sys, "path", path)
    assert distributions() == []


def test_what_is_left_after_one_was_removed(tmp_path: Path) -> None:
    (tmp_path / "cv2").mkdir()  # Python takes it for a package without content
    (tmp_path / "cv2" / "__init__.py").write_text("")
    done = imported(tmp_path)
    assert done.returncode == 1
    assert "ImportError: OpenCV is there in part only; keep one: pip uninstall" in done.stderr
    (tmp_path / "cv2" / "__init__.py").write_text("raise AttributeError('no gapi_wip')")
    done = imported(tmp_path)
    assert "ImportError: OpenCV cannot be imported (no gapi_wip); keep one" in done.stderr


def test_a_server_without_a_display_is_led_to_the_headless_one(tmp_path: Path) -> None:
    (tmp_path / "cv2").mkdir()
    missing = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2" / "__init__.py").write_text(f"raise ImportError({missing!r})")
    done = imported(tmp_path)
    assert done.returncode == 1
    assert f"ImportError: OpenCV cannot be imported ({missing})" in done.stderr
    assert done.stderr.endswith("then pip install opencv-python-headless\n")


def test_the_check_opens_no_file_but_who_installed_opencv(tmp_path: Path) -> None:
    """It is in the way of every import: one look at each folder, and no metadata parsed."""
    put(tmp_path, "opencv_python-5.0.0.93", *(f"package{index}-1.0" for index in range(50)))
    script = """
import sys
seen = {"open": [], "os.listdir": []}
def hook(event, arguments):
    if event in seen:
        seen[event].append(str(arguments[0]))
from cv_superpoint.opencv_check import distributions
sys.path.insert(0, sys.argv[1])
sys.addaudithook(hook)
distributions()
assert len(seen["os.listdir"]) <= len(set(sys.path)), seen
print(*seen["open"], sep="\\n")
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    opened = [Path(line) for line in done.stdout.splitlines()]
    assert tmp_path / "opencv_python-5.0.0.93.dist-info" / "INSTALLER" in opened
    assert all(path.name == "INSTALLER" and "opencv" in path.parent.name for path in opened)
