"""The model card, which lies beside the weights, as a page of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

CARD = Path(__file__).parent.parent / "weights" / "README.md"


def on_files(files: Any, config: Any) -> Any:
    """Add the model card."""
    from mkdocs.structure.files import File

    text = CARD.read_text(encoding="utf-8").replace("../docs/", "")
    files.append(File.generated(config, "model-card.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to it, as they are in the checkout, lead to the page; other files stay names."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"{up}../weights/README.md", f"{up}model-card.md")
    return re.sub(rf"(?<!!)\[([^\]]*)\]\({re.escape(up)}\.\./[^)]*\)", r"\1", markdown)
