"""The documentation builds without a warning, and loads nothing from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_site_builds_and_needs_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    # The variable quiets an advertisement of the theme.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    assert {"index.html", "api.html", "cookbook.html", "model-card.html"} <= set(pages)
    loads = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"')
    for name, text in pages.items():
        for source, target in loads.findall(text):
            assert not re.match(r"(https?:)?//", source or target), (name, source or target)
    for shown in ("detectAndCompute", "guided_matches", "write_database", "export_onnx"):
        assert shown in pages["api.html"], shown
