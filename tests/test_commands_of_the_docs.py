"""Every command line of the pages is one that its program takes: nothing runs, options are read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from cv_superpoint.cli import PROGRAM
from train.__main__ import PROGRAM as TRAINING
from train.__main__ import STAGES, parse

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "weights/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHELL = re.compile(r"^ *```(?:bash|console)?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
STARTS = {"cv-superpoint": PROGRAM, "python -m cv_superpoint": PROGRAM, "python -m train": TRAINING}


def lines_of(page: Path) -> Iterator[str]:
    """Lines of the shell, with the variables that their block sets, without comments."""
    for block in SHELL.findall(page.read_text(encoding="utf-8")):
        variables: dict[str, str] = {}
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if setting := re.match(r" *([A-Z]+)=(.*)", line):
                variables[setting[1]] = " ".join(shlex.split(setting[2], comments=True))
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            yield line.strip().removeprefix("$ ").removesuffix("&")


def is_taken(line: str) -> bool | None:
    """Whether the program takes the options of a line; None if it is another program's."""
    start = next((each for each in STARTS if line.startswith(f"{each} ")), None)
    # The training log gives some variables in its text.
    if start is None or re.search(r"\$[A-Z]", line):
        return None
    words = shlex.split(line.removeprefix(start), comments=True)
    try:
        if start == "python -m train" and (words[0].startswith("-") or words[0] in STAGES):
            parse(words if words[0] in STAGES else ["all", *words])
        else:
            STARTS[start].choose(words)
    except SystemExit:
        return False
    return True


def test_every_command_line_is_taken() -> None:
    taken = {(page.name, line): is_taken(line) for page in PAGES for line in lines_of(page)}
    assert [each for each, answer in taken.items() if answer is False] == []
    assert sum(answer is True for answer in taken.values()) > 90


def test_a_wrong_option_is_not_taken() -> None:
    assert is_taken("cv-superpoint match a.jpg b.jpg --refine  # places the matches") is True
    assert is_taken("cv-superpoint match a.jpg b.jpg --refined") is False
    assert is_taken("python -m train joint --joint.loop.stepps 3") is False
    assert is_taken("trtexec --onnx=superpoint.onnx") is None
