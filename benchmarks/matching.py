"""What matching two images takes, by their number of keypoints."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import publish
from benchmarks.measure import in_turn, machine, photographs
from cv_superpoint import Features, LightGlueMatcher, SuperPointFeature2D
from cv_superpoint.backends.choosing import is_installed
from cv_superpoint.evaluation.warps import WarpConfig, warp_pair
from cv_superpoint.matching.lightglue.bundled import find_matcher
from cv_superpoint.matching.lightglue.files import LoadedMatcher
from cv_superpoint.matching.lightglue.running import BACKENDS
from cv_superpoint.matching.matchers import Matcher, NearestNeighbours

THRESHOLD = 1e-4
"""Low enough for thousands of keypoints."""
SIZE = (960, 1280)
NEAREST = "mutual nearest neighbours"
Pair = tuple[Features, Features]


def features_of(weights: str, count: int, threads: int) -> Pair:
    """Features of a photograph and of a warped view of it, at most so many of each.

    Raises:
        ValueError: If there are fewer.
    """
    detector = SuperPointFeature2D.create(
        count, THRESHOLD, nmsRadius=2, weights=weights, device="cpu", threads=threads
    )
    [photograph] = photographs(None, SIZE, 1)
    images = warp_pair(photograph, "matching", 0, WarpConfig(size=SIZE)).images
    first, second = (detector.extract(np.asarray(image, np.uint8)) for image in images)
    found = min(len(first), len(second))
    if found < count:
        raise ValueError(f"the photograph has only {found} keypoints; ask for fewer than {count}")
    return first, second


def contenders(loaded: LoadedMatcher, threads: int) -> dict[str, Callable[[Pair], Any]]:
    """Every backend that is installed, OpenCV 5's own, and nearest neighbours."""
    found: dict[str, Callable[[Pair], Any]] = {}
    for backend in BACKENDS[1:]:
        if backend == "numpy" or is_installed(backend):
            matcher = LightGlueMatcher(loaded, loaded.threshold, backend, threads)
            found[f"LightGlueMatcher, {backend}"] = _on_pairs(matcher)
    if hasattr(cv2, "LightGlueMatcher"):
        found["cv2.LightGlueMatcher"] = _opencvs(loaded)
    found[NEAREST] = _on_pairs(NearestNeighbours())
    brute = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
    found["cv2.BFMatcher, cross-check"] = lambda pair: brute.match(
        pair[0].descriptors, pair[1].descriptors
    )
    return found


def _on_pairs(matcher: Matcher) -> Callable[[Pair], Any]:
    return lambda pair: matcher(*pair)


def _opencvs(loaded: LoadedMatcher) -> Callable[[Pair], Any]:
    """The exported file in OpenCV 5."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matcher.onnx"
        path.write_bytes(LightGlueMatcher(loaded, loaded.threshold, "numpy").export_onnx())
        matcher: Any = cv2.LightGlueMatcher.create(str(path))

    def match(pair: Pair) -> Any:
        sizes = [each.image_size[::-1] for each in pair]
        matcher.setPairInfo(pair[0].keypoints, pair[1].keypoints, *sizes)
        return matcher.match(pair[0].descriptors, pair[1].descriptors)

    return match


def matching_markdown(result: Mapping[str, Any]) -> str:
    """The table of one run."""
    counts = result["counts"]
    times = result["milliseconds"]
    rows = [
        [name, *(f"{times[str(count)][name]['median']:.1f}" for count in counts)]
        for name in times[str(counts[0])]
    ]
    sizes = ", ".join(f"{key} {value}" for key, value in result["network"].items())
    text = (
        f"Matcher of {result['weights']} ({sizes}), float32; medians of {result['rounds']} rounds, "
        f"in ms. {publish.facts(result['machine'])}."
    )
    header = ["keypoints of each image", *map(str, counts)]
    return f"{text}\n\n{publish.table(header, rows)}"


def matching(
    *,
    matcher: str | None = None,
    counts: tuple[int, ...] = (256, 512, 1024, 2048),
    threads: int = 2,
    rounds: int = 15,
    page: bool = False,
) -> None:
    """Time the learned matcher in every backend beside nearest neighbours, in turn.

    Args:
        matcher: A set of weights that has one, or a file; by default the default set's.
        counts: Keypoints of each image.
        threads: Threads of every contender.
        rounds: Over all contenders, for each count.
        page: Put the table into docs/results/performance.md.
    """
    cv2.setNumThreads(threads)
    if is_installed("torch"):
        import torch

        torch.set_num_threads(threads)
    loaded = find_matcher(matcher)
    first, second = features_of(loaded.weights, max(counts), threads)
    calls = contenders(loaded, threads)
    milliseconds: dict[str, dict[str, Any]] = {}
    for count in counts:
        timings = in_turn(calls, [(first[:count], second[:count])], rounds)
        milliseconds[str(count)] = {
            name: {
                key: value if key == "calls" else 1e3 * value for key, value in asdict(one).items()
            }
            for name, one in timings.items()
        }
    result = {
        "machine": machine("cpu", threads),
        "weights": loaded.weights,
        "network": asdict(loaded.config),
        "counts": list(counts),
        "rounds": rounds,
        "milliseconds": milliseconds,
    }
    text = matching_markdown(result)
    print(text)
    if page:
        publish.write_json(publish.FIGURES / "matching.json", result)
        publish.replace_block(publish.PERFORMANCE, "matching", text)
