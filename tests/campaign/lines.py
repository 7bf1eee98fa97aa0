"""Command lines of every kind, in this process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from calls import LITE
from commands import inputs
from damaged import damaged
from kinds import Case, check, kind

from cv_superpoint.cli import main

VALUES = (
    *("0", "1", "-1", "2.5", "nan", "inf", "1e9", "1e-9", "", "x", "None", "True", "480", "640"),
    *(
        "cpu",
        "cuda",
        "auto",
        "torch",
        "ncnn",
        "float32",
        "homography",
        "essential",
        "heads",
        "full",
    ),
    *("a/b", "..", "/", "/dev/null", "~", "*", "ü", "\udce9", "a b", "-", "--", "0x10", "١"),
)
OPTIONS = {
    "detect": ["-o", "-k", "--threshold", "--nms-radius", "--scales", "--upright", "--no-upright"],
    "match": ["-o", "-k", "--model", "--focal", "--rotations", "--threshold", "--pixels"],
    "extract": ["-o", "--longest-side", "--half", "--no-half", "--shard-size", "--readers"],
    "track": ["-o", "--frames", "--reach", "--similarity", "--no-upright"],
    "stitch": ["-o", "--megapixels", "--model", "-k"],
    "export": ["--layout", "--size", "--batch", "-k", "--threshold"],
    "convert": ["--to"],
    "doctor": [],
}
SHARED = [
    "--json",
    "--weights",
    "--device",
    "--backend",
    "--precision",
    "--threads",
    "--help",
    "--x",
]


def _files(case: Case) -> list[str]:
    """Whole and damaged pictures, folders, films, pipes, names of every kind."""
    source = inputs()
    folder = case.folder / "in"
    shutil.copytree(source / "pictures", folder)
    whole = (source / "left.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "hurt.png").write_bytes(damaged(case, whole, 200))
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    (folder / "line\nbreak.png").write_bytes(whole)
    (Path(os.fsencode(folder).decode(errors="surrogateescape")) / "\udce9.png").write_bytes(whole)
    (folder / "link.png").symlink_to("nowhere")
    shutil.copy(source / "film.avi", folder / "film.avi")
    names = [str(each) for each in folder.iterdir()]
    return [*names, str(folder), str(source / "left.png"), str(source / "right.png"), "none.png"]


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@kind
def command_lines(case: Case) -> None:
    """Any words: exit status 0, 1, 2 or 3, no traceback, no input changed, JSON where asked for."""
    files = _files(case)
    before = _digests(case.folder / "in") | _digests(inputs() / "pictures")
    for _ in range(6):
        words = _words(case, files)
        case.notes[:] = [repr(words)]
        case.calls += 1
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status: Any = main(list(words))
        except SystemExit as error:
            status = error.code
        check(status in (0, 1, 2, 3), f"exit status {status!r} of {words}")
        check("Traceback" not in err.getvalue(), f"a traceback of {words}")
        if "--json" in words and status in (0, 1, 3) and out.getvalue().startswith("{"):
            json.loads(out.getvalue())
        now = _digests(case.folder / "in") | _digests(inputs() / "pictures")
        read = _read_by(words)
        changed = [
            name
            for name, digest in before.items()
            if now.get(name) != digest and any(Path(name).is_relative_to(each) for each in read)
        ]
        before |= now
        check(not changed, f"{words} changed {changed}")


def _read_by(words: list[str]) -> list[str]:
    """The files and folders that a command line names, but not as its output."""
    outputs = {place + 1 for place, word in enumerate(words) if word == "-o"}
    outputs |= {len(words) - 1} if words[0] in ("export", "convert") else set()
    return [word for place, word in enumerate(words) if place not in outputs and "/" in word]


def _words(case: Case, files: list[str]) -> list[str]:
    random = case.random
    name = case.choose(list(OPTIONS))
    if name == "doctor" and random.integers(10):
        name = "detect"
    words = [name]
    if random.integers(30) == 0:
        return [case.choose(VALUES), *words]
    places = {"match": 2, "stitch": 2, "export": 0, "convert": 1}.get(name, 1)
    if random.integers(4) == 0:
        places += int(random.integers(-1, 2))
    rest = [case.choose(files) for _ in range(places)]
    if name in ("export", "convert"):
        rest = [case.choose([LITE, *files])] * (name == "convert")
        rest.append(case.choose(["out.onnx", "out.safetensors", "out.pth", "out.bin", *files[:2]]))
    options: list[str] = []
    if name not in ("export", "convert", "doctor"):
        options += ["--weights", LITE, "--threads", "1", "--backend", "ncnn"]
    if name == "export":
        options += ["--size", "64", "80", "--weights", LITE]
    if "-o" in OPTIONS[name]:
        outs = ["out", "out.png", "out.avi", "out.h5", case.choose(files)]
        options += ["-o", case.choose(outs)]
    for _ in range(int(random.integers(0, 3))):
        option = case.choose([*OPTIONS[name], *SHARED])
        options += [option, *([case.choose(VALUES)] * int(random.integers(0, 3)))]
    words += [*rest, *options] if random.integers(3) else [*options, *rest]
    if random.integers(10) == 0:
        random.shuffle(words)
    return [word for word in words if not word.isdecimal() or name != "track"]
