"""Films on a disk without room: the old one stays, however much of the new one finds room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
import skimage.data
from cv_superpoint.files import WriteError
from cv_superpoint.matching.tracking import VideoError, VideoFile

image = np.ascontiguousarray(skimage.data.astronaut()[100:180, 100:200, ::-1])
path, said = Path(sys.argv[1]), set()


def write():
    film = VideoFile(path, 10.0)
    try:
        for k in range(10):
            film.write(np.roll(image, k, axis=1))
    finally:
        film.close()


write()
whole = path.read_bytes()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (*range(0, len(whole), len(whole) // 20), len(whole) - 9, len(whole) - 1):
    path.write_bytes(b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        write()
    except (VideoError, WriteError) as error:
        said.add(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old", limit
    assert [each.name for each in path.parent.iterdir()] == [path.name]
write()
assert path.read_bytes() == whole
"""


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_an_old_film_stays_where_the_new_one_finds_no_room(tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / f"film{suffix}")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:].decode(errors="replace")
