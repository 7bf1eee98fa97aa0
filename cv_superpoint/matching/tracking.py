"""Point tracks through a video: each frame is matched with the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import SuperPointError
from cv_superpoint.files.entries import A_PIPE, look
from cv_superpoint.files.names import is_text
from cv_superpoint.files.writing import make_folder, replacing
from cv_superpoint.matching.matchers import Matcher, NearestNeighbours, check_matches
from cv_superpoint.matching.nearest import cosines
from cv_superpoint.pictures.arrays import ByteArray
from cv_superpoint.pictures.video_length import length_of

TAIL = 12
"""Frames that a tail reaches back."""


class VideoError(SuperPointError):
    """A video cannot be read or written; the message names the remedy."""


@dataclass(kw_only=True)
class Tracker:
    """Tracks that end in the points of the latest frame, one track for each point.

    Attributes:
        reach: Pixels that a point may move from one frame to the next.
        similarity: Cosine that the descriptors of a point in two frames must have.
        matcher: Matcher of two frames.
        tails: The last positions of each track, oldest first.
        ages: (N,) frames that each track has lasted beyond its first.
    """

    reach: float
    similarity: float = 0.7
    matcher: Matcher = field(default_factory=NearestNeighbours)
    tails: list[deque[tuple[float, float]]] = field(default_factory=list)
    ages: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _previous: Features | None = None

    def update(self, features: Features) -> int:
        """Continue the tracks in a new frame; returns the number that went on."""
        tails = [deque([(x, y)], TAIL) for x, y in features.keypoints.tolist()]
        ages = np.zeros(len(features), np.int64)
        matches = self._match(features)
        for before, now in matches.tolist():
            point = tails[now][0]
            tails[now] = self.tails[before]
            tails[now].append(point)
        ages[matches[:, 1]] = self.ages[matches[:, 0]] + 1
        self.tails, self.ages, self._previous = tails, ages, features
        return len(matches)

    def _match(self, features: Features) -> NDArray[np.intp]:
        if self._previous is None:
            return np.empty((0, 2), np.intp)
        before = self._previous
        matches, similarity = check_matches(self.matcher(before, features), before, features)
        if not isinstance(self.matcher, NearestNeighbours):
            similarity = cosines(before, features, matches)
        moved = features.keypoints[matches[:, 1]] - before.keypoints[matches[:, 0]]
        near = np.hypot(moved[:, 0], moved[:, 1]) <= self.reach
        kept: NDArray[np.intp] = matches[near & (similarity >= self.similarity)]
        return kept

    def draw(self, frame: ByteArray) -> ByteArray:
        """The BGR frame with the tails: from blue for a new track to red for one that lasted."""
        canvas: ByteArray = frame.copy()
        if len(self.tails) == 0:
            return canvas
        strengths = np.minimum(self.ages * 255 // (2 * TAIL), 255).astype(np.uint8)
        colours = cv2.applyColorMap(strengths[:, None], cv2.COLORMAP_JET)[:, 0].tolist()
        for index in np.argsort(self.ages).tolist():  # the longest-lived on top
            way = np.rint(np.array(self.tails[index])).astype(np.int32)
            if len(way) > 1:
                cv2.polylines(canvas, [way], False, colours[index], 1, cv2.LINE_AA)
            cv2.circle(canvas, way[-1].tolist(), 2, colours[index], -1, cv2.LINE_AA)
        return canvas


class Video:
    """The BGR frames of a video file, or of a camera if the source is a number.

    Args:
        source: Name of a file, address of a stream, or number of a camera.
        upright: Turn frames as the file says, as players do; otherwise they are as stored.

    Attributes:
        expected: Number of frames that the file states, without those that an edit list leaves out;
            a guess where its format states none, 0 for a camera.
        rate: Frames per second that it states; 0 where unknown.

    Raises:
        VideoError: If it cannot be opened.
    """

    def __init__(self, source: str, *, upright: bool = True) -> None:
        _check_name(source)
        address = urlsplit(source)
        is_camera, is_address = source.isdigit(), bool(address.scheme and address.netloc)
        if look(source) == A_PIPE:
            raise VideoError(f"{source}: a pipe; save what comes from it as a file")
        self._capture = cv2.VideoCapture(int(source)) if is_camera else cv2.VideoCapture(source)
        if not self._capture.isOpened():
            if is_camera:
                why = "there is no such camera, or another program uses it"
            elif is_address:
                source = f"{address.scheme}://{address.hostname}"  # without a password
                why = (
                    f"does not answer, or not with a video; see that a player shows it by {source}"
                )
            elif not Path(source).exists():
                why = "there is no such file"
            else:
                why = "not a video that this OpenCV can read; convert it with ffmpeg"
            raise VideoError(f"{source}: {why}")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, float(upright))
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        stored = 0 if is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._length = length_of(Path(source), stored)
        self.expected = stored if self._length.frames is None else self._length.frames

    def why_short(self, count: int) -> str:
        """Why a file ends after so many frames; empty where that is the stated end."""
        if count >= self.expected - self._length.slack:
            return ""
        if self._length.ends_early:
            return "the file is cut short"
        return "" if self._length.frames is None else "the others are damaged"

    def __iter__(self) -> Iterator[ByteArray]:
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                yield frame.astype(np.uint8, copy=False)
        finally:
            self._capture.release()


class VideoFile:
    """A video written frame by frame: Motion JPEG for .avi, MPEG-4 for .mp4; neither needs a codec.

    The file appears, or takes the place of an older one, when it is closed.

    Args:
        path: Target, ending in ``.avi`` or ``.mp4``.
        rate: Frames per second.

    Raises:
        VideoError: If it cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        _check_name(path)
        codes = {".avi": "MJPG", ".mp4": "mp4v"}
        if path.suffix.lower() not in codes:
            raise VideoError(f"{path}: the name of a video ends in .avi or .mp4")
        self._path, self._rate = path, rate
        self._code = cv2.VideoWriter.fourcc(*codes[path.suffix.lower()])
        self._writer: cv2.VideoWriter | None = None
        self._frames = 0
        self._replacing = ExitStack()

    def write(self, frame: ByteArray) -> None:
        """Append a frame; all have the size of the first."""
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            make_folder(self._path.parent)
            self._part = self._replacing.enter_context(
                replacing(self._path, self._path.suffix, large=True)
            )
            self._writer = cv2.VideoWriter(str(self._part), self._code, self._rate, size)
            if not self._writer.isOpened():
                with self._replacing:
                    raise VideoError(f"{self._path}: cannot be written; may you write there?")
        self._writer.write(frame)
        self._frames += 1

    def close(self) -> None:
        """Finish the file; without a frame there is none."""
        if self._writer is None or not self._writer.isOpened():
            return
        with self._replacing:
            self._writer.release()
            # The writer says nothing of a disk that fills up.
            written = cv2.VideoCapture(str(self._part))
            count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
            written.release()
            # It counts frames in a header that may be there although the frames are not.
            if count < self._frames or length_of(self._part, count).ends_early:
                raise VideoError(
                    f"{self._path}: not all of {self._frames} frames could be written; make room "
                    "on the disk"
                )


def _check_name(name: str | Path) -> None:
    if not is_text(name):
        raise VideoError(f"{name}: OpenCV takes names of videos in UTF-8 only; rename it")
