"""The site builds without a warning, loads nothing from the network, and fits on a phone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
PHONE = {"width": 390, "height": 844}
"""CSS pixels of a common phone."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    # The variable quiets an advertisement of the theme.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def pages_of(site: Path) -> dict[str, str]:
    """Text of each page by its path in the site."""
    found = {
        page.relative_to(site).as_posix(): page.read_text(encoding="utf-8")
        for page in site.rglob("*.html")
    }
    found.pop("404.html")  # its links begin at the root of a server
    return found


def test_every_page_is_there_and_needs_no_network(site: Path) -> None:
    pages = pages_of(site)
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert {path.with_suffix(".html").as_posix() for path in sources} < set(pages)
    assert "model-card.html" in pages
    loads = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"')
    for name, text in pages.items():
        # A list without an empty line before it is part of the paragraph above it.
        assert not re.search(r"<p>(?:(?!</p>)[\s\S])*\n(?:[-*]|1\.) ", text), name
        for source, target in loads.findall(text):
            assert not re.match(r"(https?:)?//", source or target), (name, source or target)
    for shown in ("detectAndCompute", "guided_matches", "write_database", "export_onnx"):
        assert shown in pages["api.html"], shown


def test_every_link_leads_to_a_file_and_a_heading(site: Path) -> None:
    pages = pages_of(site)
    names = {
        name: set(re.findall(r'\s(?:id|name)="([^"]+)"', text)) for name, text in pages.items()
    }
    followed = 0
    for name, text in pages.items():
        links = re.findall(r'<a[^>]*\shref="([^"]*)"', text)
        for link in links + re.findall(r'<img[^>]*\ssrc="([^"]*)"', text):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            path = (site / name).parent / unquote(address.path) if address.path else site / name
            assert path.is_file() or (path / "index.html").is_file(), f"{name} links to {link}"
            target = path.resolve().relative_to(site.resolve()).as_posix()
            if address.fragment and target in names:
                assert unquote(address.fragment) in names[target], f"{name} links to {link}"
            followed += 1
    assert followed > 500


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_on_a_phone(
    site: Path, browser: Any, scheme: str, tmp_path: Path
) -> None:
    """Wide tables and lines of code scroll in boxes of their own."""
    page = browser.new_page(viewport=PHONE, color_scheme=scheme)
    brightness = []
    for name in sorted(pages_of(site)):
        page.goto((site / name).as_uri())
        page.wait_for_function(
            "document.querySelectorAll('table').length === 0"
            " || document.querySelector('.md-typeset__table table')"
        )
        wide = page.evaluate(
            """() => [...document.querySelectorAll('.md-content *')]
                .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                .filter(e => !e.closest('.md-typeset__scrollwrap, pre, .headerlink'))
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert wide == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        page.screenshot(path=tmp_path / f"{name.replace('/', '-')}.png")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness.append(sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3)
    page.close()
    assert max(brightness) < 80 if scheme == "dark" else min(brightness) > 200
