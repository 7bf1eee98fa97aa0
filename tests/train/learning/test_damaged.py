"""Checkpoints, records and labels with damaged bytes: named, or made anew; no code in them runs."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train.learning import checkpoint
from train.stages.adapt import read_label


def damaged(whole: bytes, count: int, reach: int) -> list[bytes]:
    """Cut off, or with three bytes changed among the first."""
    random, found = np.random.default_rng(0), []
    for _ in range(count):
        changed = bytearray(whole)
        if random.integers(4) == 0:
            changed = changed[: random.integers(len(whole))]
        else:
            for place in random.integers(min(reach, len(whole)), size=3):
                changed[place] = random.integers(256)
        found.append(bytes(changed))
    return found


def test_a_damaged_checkpoint_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "joint.pt"
    checkpoint.save_atomically({"step": 1, "network": {"a": torch.arange(50.0)}}, path)
    refused = 0
    for data in damaged(path.read_bytes(), 300, 10**6):
        path.write_bytes(data)
        try:
            checkpoint.load(path)
        except ValueError as error:
            refused += "is no checkpoint, or a damaged one (" in str(error)
    assert refused > 100
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="it holds a list"):
        checkpoint.load(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.pt")


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def test_damaged_labels_do_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "label.npy"
    labels = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    path.write_bytes(saved(labels))
    np.testing.assert_array_equal(read_label(path), labels)
    for data in damaged(saved(labels), 300, 128):
        path.write_bytes(data)
        found = read_label(path)
        assert found is None or (found.ndim, found.shape[1:], found.dtype) == (2, (3,), np.float32)
    wrong = [labels[:, :2], labels[0], labels.astype(np.float64), labels * np.nan]
    for array in (*wrong, np.array([{}, None], object)):
        path.write_bytes(saved(array))
        with caplog.at_level(logging.WARNING):
            assert read_label(path) is None
        assert "adapt makes it anew" in caplog.text
