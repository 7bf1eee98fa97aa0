"""What HDF5 files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py


def content(path: Path) -> dict[str, Any]:
    """The values of all datasets, by name."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found
