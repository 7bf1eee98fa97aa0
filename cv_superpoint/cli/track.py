"""``cv-superpoint track``: point tracks over a video or a camera, written as a video."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from cv_superpoint.cli.help import Help
from cv_superpoint.cli.output import DONE, FAILED, PARTLY, Output
from cv_superpoint.opencv.options import DetectorOptions


@dataclass(frozen=True, kw_only=True)
class Track:
    """Follow points through a video and draw their tracks.

    Attributes:
        video: File, or the number of a camera.
        out: Video to write, .avi or .mp4.
        frames: Stop after so many; a camera has no other end but Ctrl-C.
        reach: Largest step from frame to frame, as a share of the frame's width.
        similarity: Least cosine of the descriptors of a point in two frames.
        matcher: Matcher of two frames, as for the command match.
        upright: Frames are turned as the file says; --no-upright takes them as they are stored.
        json: Print one JSON object instead of text.
    """

    HELP: ClassVar[Help] = Help(
        examples=(
            "track film.mp4",
            "track 0 --frames 300 --weights superpoint-lite -o tracks.mp4",
        ),
        results=(
            "tracks.avi: the frames with the last steps of each point, red where it lasts long",
            "printed: frames per second, the share of points followed, the longest track",
        ),
        first=(
            "out",
            "frames",
            "json",
            "max_keypoints",
            "threshold",
            "scales",
            "weights",
            "device",
        ),
    )

    video: Positional[str]
    out: Annotated[Path, arg(aliases=["-o"])] = Path("tracks.avi")
    frames: int | None = None
    reach: float = 0.15
    similarity: float = 0.7
    matcher: str = "mutual"
    upright: bool = True
    json: bool = False
    detector: DetectorOptions = field(default_factory=lambda: DetectorOptions(max_keypoints=300))

    def run(self, output: Output) -> int:
        """Run it; returns the exit code."""
        from cv_superpoint.files.guard import keep_inputs
        from cv_superpoint.matching.matchers import build_matcher
        from cv_superpoint.matching.tracking import Tracker, Video, VideoFile

        keep_inputs([self.video.removeprefix("file://").removeprefix("file:")], [self.out])
        video = Video(self.video, upright=self.upright)
        wanted = video.expected if self.frames is None else self.frames
        detector, matcher = self.detector.create(), build_matcher(self.matcher)
        file = VideoFile(self.out, video.rate if 1 <= video.rate <= 240 else 20.0)
        tracker: Tracker | None = None
        count = points = followed = longest = 0
        seconds = 0.0
        try:
            frames = detector.extractStream(islice(video, self.frames))
            start = time.perf_counter()
            for frame, features in output.progress(frames, wanted or None, "track"):
                if tracker is None:
                    tracker = Tracker(
                        reach=self.reach * frame.shape[1],
                        similarity=self.similarity,
                        matcher=matcher,
                    )
                points += len(tracker.tails)
                followed += tracker.update(features)
                count += 1
                longest = max(longest, int(tracker.ages.max(initial=-1)) + 1)
                file.write(tracker.draw(frame))
                seconds = time.perf_counter() - start
        except KeyboardInterrupt:
            output.warn(f"stopped after {count} frames, which are in {self.out}")
        finally:
            file.close()
        if count == 0:
            output.fail(f"{self.video}: there is no frame in it")
            return FAILED
        share = followed / max(points, 1)
        output.say(f"frames        {count}, {count / seconds:.1f} per second")
        output.say(f"followed      {share:.0%} of the points into the next frame")
        output.say(f"longest track {longest} frames")
        output.say(f"wrote {self.out}")
        output.result(
            {
                "frames": count,
                "expected": video.expected,
                "seconds": seconds,
                "followed": share,
                "longest": longest,
                "out": str(self.out),
            }
        )
        why = "" if count == self.frames else video.why_short(count)
        if why:
            output.warn(
                f"{self.video} ends after {count} of {video.expected} frames: {why}; the tracks so "
                "far are written"
            )
            return PARTLY
        return DONE
