"""What a program pays for two images: keypoints of both, matches, a homography."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import publish
from benchmarks.measure import machine
from benchmarks.measure import photographs as photographs_of
from cv_superpoint import SuperPointFeature2D
from cv_superpoint.evaluation.warps import WarpConfig, warp_pair

PARTS = ("detect", "match", "homography")
SIFT, ORB = "cv2.SIFT", "cv2.ORB"
FORMATS = ("float32", "uint8", "binary")

Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Pipeline:
    """``detectAndCompute`` of two images, ``cv2.BFMatcher`` with cross-check, ``findHomography``.

    Args:
        detector: Object with the methods of ``cv2.Feature2D``.
        clock: Clock of the seconds.

    Attributes:
        seconds: Seconds of each part of each timed call.
        counts: Keypoints of the two images, matches and inliers of each timed call.
    """

    def __init__(self, detector: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self.detector = detector
        self.clock = clock
        self.matcher = cv2.BFMatcher(detector.defaultNorm(), crossCheck=True)
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        self.counts: list[tuple[float, int, int]] = []

    def __call__(self, images: Images, *, timed: bool = True) -> None:
        """Run it once."""
        start = self.clock()
        (points0, rows0), (points1, rows1) = (
            self.detector.detectAndCompute(image, None) for image in images
        )
        detected = self.clock()
        matches = self.matcher.match(rows0, rows1)
        matched = self.clock()
        first = cv2.KeyPoint.convert(points0, [match.queryIdx for match in matches])
        second = cv2.KeyPoint.convert(points1, [match.trainIdx for match in matches])
        inliers = cv2.findHomography(np.asarray(first), np.asarray(second), cv2.RANSAC, 3.0)[1]
        end = self.clock()
        if not timed:
            return
        for part, took in zip(
            PARTS, (detected - start, matched - detected, end - matched), strict=True
        ):
            self.seconds[part].append(took)
        agree = 0 if inliers is None else int(inliers.sum())
        self.counts.append(((len(points0) + len(points1)) / 2, len(matches), agree))

    def summary(self) -> dict[str, float]:
        """Medians: milliseconds of a call, of each part and of all, and counts."""
        wholes = [sum(parts) for parts in zip(*self.seconds.values(), strict=True)]
        found = {part: 1e3 * statistics.median(self.seconds[part]) for part in PARTS}
        names = "keypoints", "matches", "inliers"
        counts = dict(
            zip(names, map(statistics.median, zip(*self.counts, strict=True)), strict=True)
        )
        return {
            "call": found["detect"] / 2,
            **found,
            "whole": 1e3 * statistics.median(wholes),
            **counts,
        }


def contenders(
    weights: tuple[str, ...], formats: tuple[str, ...], *, count: int, options: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """What makes each detector, by name."""
    made: dict[str, Callable[[], Any]] = {
        SIFT: lambda: cv2.SIFT.create(nfeatures=count),
        ORB: lambda: cv2.ORB.create(nfeatures=count),
    }
    for name in weights:
        for kind in formats:
            given = {**options, "weights": name, "descriptorFormat": kind}
            made[f"{name}, {kind}"] = partial(SuperPointFeature2D.create, count, **given)
    return made


def measure_pipeline(
    pairs: list[Images],
    detectors: dict[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Every pipeline on every pair, one after the other, ``rounds`` times, after one warm-up."""
    pipelines = {name: Pipeline(make(), clock) for name, make in detectors.items()}
    for index in range(rounds + 1):
        for images in pairs:
            for each in pipelines.values():
                each(images, timed=index > 0)
    return {name: each.summary() for name, each in pipelines.items()}


def pipeline_markdown(result: dict[str, Any]) -> str:
    """The table of one run."""
    found = result["pipelines"]
    sift, orb = found[SIFT], found[ORB]
    rows = [
        [
            name,
            f"{one['call']:.1f}",
            f"{one['match']:.1f}",
            f"{one['homography']:.1f}",
            f"{one['whole']:.1f}",
            f"{one['call'] / sift['call']:.2f}",
            f"{one['whole'] / sift['whole']:.2f}",
            f"{one['whole'] / orb['whole']:.2f}",
            f"{one['keypoints']:.0f}",
            f"{one['matches']:.0f}",
            f"{one['inliers']:.0f}",
        ]
        for name, one in sorted(found.items(), key=lambda item: item[1]["whole"])
    ]
    height, width = result["size"]
    text = (
        f"Two images of {height} x {width}, at most {result['keypoints']} keypoints, "
        f"{result['pairs']} pairs, {result['rounds']} rounds; medians of "
        f"{'processor time' if result['processor'] else 'time'}, in ms. "
        f"{publish.facts(result['machine'])}."
    )
    header = ["", "a call", "match", "homography", "whole", "call / SIFT's", "whole / SIFT's"]
    header += ["whole / ORB's", "keypoints", "matches", "inliers"]
    return f"{text}\n\n{publish.table(header, rows)}"


def pipeline(
    *,
    images: Path | None = None,
    photographs: int = 3,
    weights: tuple[str, ...] = ("superpoint", "superpoint-lite"),
    formats: tuple[str, ...] = FORMATS,
    scales: tuple[float, ...] | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    backend: str = "auto",
    precision: str = "auto",
    size: tuple[int, int] = (480, 640),
    keypoints: int = 1024,
    threads: int = 2,
    rounds: int = 9,
    processor: bool = False,
    page: bool = False,
) -> None:
    """Time two images from pixels to a homography: ours, SIFT and ORB, in turn.

    Args:
        images: Folder of photographs, each of which is warped; skimage's without one.
        photographs: How many of them.
        weights: Bundled names or files.
        formats: Formats of the descriptors: float32, uint8, binary.
        scales: Levels of the pyramid; by default what the weights recommend, as for the threshold.
        threshold: Score threshold; 0.0002 fills the quota.
        device: "cpu" or a CUDA device.
        backend: Backend of this package's detector.
        precision: Precision of this package's detector.
        size: Height and width of the images.
        keypoints: Largest number of keypoints, for each contender.
        threads: Threads of every contender, on the CPU.
        rounds: Over all pairs and contenders.
        processor: Processor time of all threads instead of the clock's, for a busy machine; with
            one thread it is about what the clock would show.
        page: Put the table into docs/results/performance.md.
    """
    cv2.setNumThreads(threads)
    warps = WarpConfig(size=size)
    pairs: list[Images] = []
    for index, photograph in enumerate(photographs_of(images, size, photographs)):
        first, second = warp_pair(photograph, "pipeline", index, warps).images
        pairs.append((np.asarray(first, np.uint8), np.asarray(second, np.uint8)))
    options = {
        "scoreThreshold": threshold,
        "scales": scales,
        "device": device,
        "backend": backend,
        "precision": precision,
        "threads": threads,
    }
    made = contenders(weights, formats, count=keypoints, options=options)
    result = {
        "machine": machine(device, threads),
        "size": list(size),
        "keypoints": keypoints,
        "pairs": len(pairs),
        "rounds": rounds,
        "processor": processor,
        "pipelines": measure_pipeline(
            pairs, made, rounds=rounds, clock=time.process_time if processor else time.perf_counter
        ),
    }
    text = pipeline_markdown(result)
    print(text)
    if page:
        publish.write_json(publish.FIGURES / "pipeline.json", result)
        publish.replace_block(publish.PERFORMANCE, "pipeline", text)
