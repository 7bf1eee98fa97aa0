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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from pictures import Image, photograph

import cv_superpoint
from cv_superpoint.matching.tracking import Tracker, Video, VideoError, VideoFile


def make_clip(frames: int = 60) -> Iterator[Image]:
    """A camera that swings across a photograph, turning and zooming a little."""
    scene, size = photograph("stereo_motorcycle"), (320, 240)
    for phase in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        centre = 370 + 130 * np.sin(phase), 250 + 50 * np.sin(2 * phase)
        turn = cv2.getRotationMatrix2D(centre, 12 * float(np.sin(phase)), 1 + 0.1 * np.cos(phase))
        turn[:, 2] += np.array(size) / 2 - centre
        yield cv2.warpAffine(scene, turn, size, flags=cv2.INTER_LINEAR).astype(np.uint8)


@dataclass(kw_only=True)
class Counts:
    """What happened over the whole video."""

    frames: int = 0
    points: int = 0
    followed: int = 0
    longest: int = 0
    seconds: float = 0.0


def run(frames: Iterable[Image], args: argparse.Namespace) -> Counts:
    """Track through all frames and write the pictures."""
    detector = cv_superpoint.SuperPointFeature2D.create(args.keypoints, weights=args.weights)
    counts, tracker, file = Counts(), None, VideoFile(args.output, rate=20.0)
    for frame in frames:
        if tracker is None:
            tracker = Tracker(reach=args.reach * frame.shape[1], similarity=args.similarity)
        start = time.perf_counter()
        counts.points += len(tracker.tails)
        counts.followed += tracker.update(detector.extract(frame))
        counts.seconds += time.perf_counter() - start
        counts.frames += 1
        counts.longest = max(counts.longest, int(tracker.ages.max(initial=-1)) + 1)
        picture = tracker.draw(frame)
        file.write(picture)
        if args.show:
            cv2.imshow("tracks (q ends)", picture)
            if cv2.waitKey(1) & 0xFF == ord("q"):
                break
    file.close()
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
    try:
        frames = make_clip() if args.video is None else Video(args.video)
        counts = run(islice(frames, args.frames), args)
    except VideoError as error:
        print(error)
        return 1
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
