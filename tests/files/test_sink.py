"""HDF5 files on a disk without room: an error, and no crash of the process at its end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from cv_superpoint.files.sink import Sink

PROGRAM = """
import resource, sys
import numpy as np
from cv_superpoint import Features
from cv_superpoint.interop import hloc
from cv_superpoint.interop.hloc import StoreError

rows = np.random.default_rng(0).normal(size=(90, 256)).astype(np.float32)
features = Features(keypoints=rows[:, :2], scores=rows[:, 0], descriptors=rows,
                    sizes=rows[:, 0], octaves=np.zeros(90, np.int32), image_size=(20, 30))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    hloc.write_features(sys.argv[1], {f"{k}.png": features for k in range(9)})
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100, 3000, 50_000, 800_000])
def test_no_room_for_features(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "features.h5"
    path.write_text("old", encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: File too large; ")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).random((500, 90))
    sink = Sink(path)
    with h5py.File(sink, "w") as file:
        for k in range(20):
            file[f"group/{k}"] = values + k
            np.testing.assert_array_equal(file[f"group/{k // 2}"], values + k // 2)
    sink.close()
    with h5py.File(path) as file:
        assert len(file["group"]) == 20
        np.testing.assert_array_equal(file["group/19"], values + 19)


def test_a_sink_is_a_file_and_keeps_what_has_no_room(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for refuses in (False, True):
        sink, model = Sink(tmp_path / "a"), io.BytesIO()
        sink.keeps_errors = True
        for _ in range(200):
            place = int(random.integers(300))
            for each in (sink, model):
                each.seek(place)
            if random.integers(2):
                data = random.bytes(int(random.integers(1, 90)))
                assert sink.write(data) == model.write(data)
            else:
                assert sink.read(40) == model.read(40)
            assert sink.tell() == model.tell()
            if refuses and sink.error is None:
                # From now on every write fails.
                reading = os.open(tmp_path / "a", os.O_RDONLY)
                os.dup2(reading, sink._file)
                os.close(reading)
                sink.write(b"")
                sink.seek(model.tell())
        if refuses:
            with pytest.raises(OSError, match="Bad file descriptor"):
                sink.close()
        else:
            sink.close()
            assert (tmp_path / "a").read_bytes() == model.getvalue()
