"""Follow points through a video by matching each frame with the one before.

python examples/track.py                   a short clip, made by moving over a photograph
python examples/track.py video.mp4         a video file
python examples/track.py 0 --show          camera 0, in a window; q ends
python examples/track.py 0 --frames 500    camera 0, without a window

Each tail is the way of one point over the last frames: from blue for a new track to red for one
that has lasted. The pictures go to a video file, without a window unless --show is given.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pictures import Image, photograph

import cv_superpoint

Points: TypeAlias = NDArray[np.float32]

TAIL = 12
"""Frames that a tail reaches back."""


def make_clip(frames: int = 60) -> Iterator[Image]:
    """A camera that swings across a photograph, turning and zooming a little."""
    scene, size = photograph("stereo_motorcycle"), (320, 240)
    for phase in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        centre = 370 + 130 * np.sin(phase), 250 + 50 * np.sin(2 * phase)
        turn = cv2.getRotationMatrix2D(centre, 12 * float(np.sin(phase)), 1 + 0.1 * np.cos(phase))
        turn[:, 2] += np.array(size) / 2 - centre
        yield cv2.warpAffine(scene, turn, size, flags=cv2.INTER_LINEAR).astype(np.uint8)


def read_video(source: str) -> Iterator[Image]:
    """The frames of a video file, or of a camera if the source is a number."""
    capture = cv2.VideoCapture(int(source)) if source.isdigit() else cv2.VideoCapture(source)
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield frame.astype(np.uint8, copy=False)
    finally:
        capture.release()


@dataclass(kw_only=True)
class Tracker:
    """Tracks that end in the points of the latest frame, one track for each point.

    Attributes:
        reach: Pixels that a point may move from one frame to the next.
        similarity: Cosine that the descriptors of a point in two frames must have.
    """

    reach: float
    similarity: float
    tails: list[deque[tuple[float, float]]] = field(default_factory=list)
    ages: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _previous: cv_superpoint.Features | None = None

    def update(self, features: cv_superpoint.Features) -> int:
        """Continue the tracks in a new frame; returns the number that went on."""
        tails = [deque([tuple(point)], TAIL) for point in features.keypoints.tolist()]
        ages = np.zeros(len(features), np.int64)
        matches = self._match(features)
        for before, now in matches.tolist():
            tails[now] = self.tails[before]
            tails[now].append(tuple(features.keypoints[now].tolist()))
        ages[matches[:, 1]] = self.ages[matches[:, 0]] + 1
        self.tails, self.ages, self._previous = tails, ages, features
        return len(matches)

    def _match(self, features: cv_superpoint.Features) -> NDArray[np.intp]:
        if self._previous is None:
            return np.empty((0, 2), np.intp)
        before = self._previous
        matches, similarity = cv_superpoint.mutual_nearest(before.descriptors, features.descriptors)
        moved = features.keypoints[matches[:, 1]] - before.keypoints[matches[:, 0]]
        near = np.hypot(moved[:, 0], moved[:, 1]) <= self.reach
        kept: NDArray[np.intp] = matches[near & (similarity >= self.similarity)]
        return kept

    def draw(self, frame: Image) -> Image:
        """The frame with the tails."""
        canvas: Image = frame.copy()
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


@dataclass(kw_only=True)
class Counts:
    """What happened over the whole video."""

    frames: int = 0
    points: int = 0
    followed: int = 0
    longest: int = 0
    seconds: float = 0.0


def open_writer(path: Path, frame: Image) -> cv2.VideoWriter:
    """A video file for frames of this size; Motion JPEG needs no codec installed."""
    size = frame.shape[1], frame.shape[0]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, size)
    if not writer.isOpened():
        raise SystemExit(f"cannot write {path}; its name should end in .avi")
    return writer


def run(frames: Iterable[Image], args: argparse.Namespace) -> Counts:
    """Track through all frames and write the pictures."""
    detector = cv_superpoint.SuperPointFeature2D.create(args.keypoints, weights=args.weights)
    counts, tracker, writer = Counts(), None, None
    for frame in frames:
        if tracker is None or writer is None:
            tracker = Tracker(reach=args.reach * frame.shape[1], similarity=args.similarity)
            writer = open_writer(args.output, frame)
        start = time.perf_counter()
        counts.points += len(tracker.tails)
        counts.followed += tracker.update(detector.extract(frame))
        counts.seconds += time.perf_counter() - start
        counts.frames += 1
        counts.longest = max(counts.longest, int(tracker.ages.max(initial=-1)) + 1)
        picture = tracker.draw(frame)
        writer.write(picture)
        if args.show:
            cv2.imshow("tracks (q ends)", picture)
            if cv2.waitKey(1) & 0xFF == ord("q"):
                break
    if writer is not None:
        writer.release()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Track points through a video.")
    parser.add_argument("video", nargs="?", help="file or camera number; none: a made clip")
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--keypoints", type=int, default=300, help="points in a frame at most")
    parser.add_argument("--reach", type=float, default=0.15, help="largest step / frame width")
    parser.add_argument("--similarity", type=float, default=0.7, help="least cosine of a match")
    parser.add_argument("--show", action="store_true", help="open a window")
    parser.add_argument("--output", type=Path, default=Path("tracks.avi"))
    parser.add_argument("--weights", help="bundled name or file; the default set if left out")
    args = parser.parse_args()
    frames = make_clip() if args.video is None else read_video(args.video)
    counts = run(islice(frames, args.frames), args)
    if counts.frames == 0:
        print(f"no frames in {args.video}")
        return 1
    print(f"frames        {counts.frames}, {counts.frames / counts.seconds:.1f} per second")
    share = counts.followed / max(counts.points, 1)
    print(f"followed      {share:.0%} of the points into the next frame")
    print(f"longest track {counts.longest} frames")
    print(f"wrote {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
