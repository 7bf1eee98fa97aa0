"""Every file is read in one go, and every line of a page fits beside another window."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "cv_superpoint", "docs", "examples", "tests", "train")
MOST_LINES = 400
LONGEST_LINE = 100


def test_no_file_is_too_long() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = [f"{path.relative_to(ROOT)}: {n}" for path, n in lines.items() if n > MOST_LINES]
    assert not long, f"more than {MOST_LINES} lines, to be split by concern: {', '.join(long)}"


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest would take the second for the first."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_line_of_a_page_is_too_long() -> None:
    """Tables have no line breaks, and a URL counts for nothing."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "weights" / "README.md"]
    assert len(pages) > 20
    long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if not line.lstrip().startswith("|")
        and len(re.sub(r"https?://[^\s)]+", "", line)) > LONGEST_LINE
    ]
    assert not long, f"more than {LONGEST_LINE} characters, to be wrapped: {', '.join(long)}"
