"""The notebook runs as it stands, in a kernel of its own, and was committed with its pictures.

``jupyter execute --inplace examples/quickstart.ipynb`` renders it again.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"
LARGEST = 700_000
"""Bytes of the file, pictures included."""
SHORT = (
    "--adapt.images.shorter-side 96 --adapt.images.longest-side 128 --adapt.views 4 "
    "--joint.data.size 64 80 --joint.loop.batch-size 2 --joint.loop.workers 0 "
    "--joint.validation.pairs 1 --joint.validation.points 50"
)
"""Training on small pictures, for seconds instead of minutes."""


def outputs(notebook: Any) -> list[tuple[str, Any]]:
    """Kind and content of all that the cells show."""
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                shown.append((output.name, output.text))
            else:
                shown += [(kind, data) for kind, data in output.data.items()]
    return shown


def pictures(notebook: Any) -> list[Any]:
    data = [base64.b64decode(each) for kind, each in outputs(notebook) if kind == "image/jpeg"]
    return [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR) for each in data]


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_committed_notebook_shows_its_results(committed: Any) -> None:
    nbformat.validate(committed)
    assert NOTEBOOK.stat().st_size < LARGEST
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells[1:])
    shown = pictures(committed)
    assert len(shown) == 6
    assert all(picture.std() > 20 for picture in shown)
    kinds = {kind for kind, _ in outputs(committed)}
    assert kinds == {"stdout", "image/jpeg", "text/plain", "text/markdown"}


def test_the_notebook_runs(committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTART_MINUTES", "0.05")
    monkeypatch.setenv("QUICKSTART_OPTIONS", SHORT)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.from_dict(committed)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises the first error of a cell
    said = "".join(text for kind, text in outputs(notebook) if kind == "stdout")
    assert "reliable: True" in said
    assert "coffee and a cat     reliable: False" in said
    assert "wrote run/superpoint.safetensors" in said
    assert len(pictures(notebook)) == 6
    (folder,) = tmp_path.glob("quickstart-*")
    assert (folder / "run" / "report.html").exists()
