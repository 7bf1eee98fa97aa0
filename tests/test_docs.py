"""Every Python block of the README and the docs runs, page by page in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cv_superpoint

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "weights" / "README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code_of(page: Path) -> str:
    """The page's Python, each line where it stands in the page, for readable tracebacks."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        for offset, line in enumerate(block.group(1).splitlines()):
            lines[start + offset] = line
    return "\n".join(lines)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if code_of(page).strip()],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_code_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), str(page), "exec"), {"__name__": "docs"})


def test_links_lead_somewhere() -> None:
    """Links lead to files that are there, and to headings that they have."""
    link = re.compile(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)")
    count = 0
    for page in LINKING:
        for target, anchor in link.findall(page.read_text(encoding="utf-8")):
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"
                count += 1
    assert count > 50


def test_every_public_name_is_on_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page, re.M)}
    assert set(cv_superpoint.__all__) - named == {"__version__"}


def test_every_file_names_one_version() -> None:
    version = cv_superpoint.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d{2}-\d{2})$", changes, re.M)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert released[0][0] == version
    assert f"version: {version}" in citation
    assert f"date-released: {released[0][1]}" in citation


def anchors(page: Path) -> set[str]:
    """The headings' names in addresses, as both GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_tour_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+(?:\.py|\.json|/))`", text)
    assert len(named) > 40
    for name in named:
        assert any((ROOT / room / name).exists() for room in ("", "cv_superpoint")), name
    # Every room is in the picture.
    picture = text.split("```")[1]
    for package in ("cv_superpoint", "train"):
        for room in (ROOT / package).iterdir():
            if (room / "__init__.py").exists():
                assert re.search(rf"\b{room.name}\b", picture), room.name
