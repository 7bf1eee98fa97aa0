"""What is compared: detectors, each with every matcher, on the same keypoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cv_superpoint.detector.features import Features
from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.detectors import build_detector, split_names
from cv_superpoint.evaluation.predictions import (
    Detections,
    Feature2D,
    Finder,
    PredictionCache,
    check_described,
    describes,
    detect,
    weights_of,
)
from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher
from cv_superpoint.matching.matchers import (
    LearnedMatcher,
    Matcher,
    build_matcher,
    check_matches,
)
from cv_superpoint.matching.nearest import Pairs
from cv_superpoint.weights import WeightsError

logger = logging.getLogger(__name__)

MUTUAL = "mutual"
"""The matcher of the protocols themselves."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A detector with a matcher.

    Attributes:
        find: The detector.
        matcher: None for mutual nearest neighbours of descriptors of any kind.
        base: Label of the first one of the same detector, which this one is compared with.
    """

    find: Finder
    matcher: Matcher | None = None
    base: str = ""


def make_contenders(
    detectors: Sequence[str] | Mapping[str, Feature2D],
    matchers: Sequence[str],
    *,
    quota: int,
    weights: str | None = None,
    cache: Path | None = None,
    described: bool = False,
) -> dict[str, Contender]:
    """Every detector with every matcher that takes its features, by label.

    Args:
        detectors: Names separated by commas, or objects by label.
        matchers: Names separated by commas, as :func:`build_matcher` takes them.
        quota: Keypoints that the protocol keeps at most.
        weights: Weights of superpoint.
        cache: Folder that keeps detections.
        described: Whether every detector must have descriptors.

    Raises:
        SuperPointError: If a name is not known, a matcher takes the features of no detector, or a
            detector lacks the descriptors that it must have.
    """
    if not isinstance(detectors, Mapping):
        # All before the first is run: a misspelt name should not cost an hour.
        detectors = {
            name: build_detector(name, quota=quota, weights=weights)
            for name in split_names(detectors)
        }
    if described:
        for label, detector in detectors.items():
            check_described(label, detector, weights)
    built = {
        name: None if name == MUTUAL else build_matcher(name)
        for name in split_names(matchers, "matchers")
    }
    found: dict[str, Contender] = {}
    for label, detector in detectors.items():
        find: Finder = partial(detect, detector)
        if cache is not None:
            find = PredictionCache(folder=cache, detector=detector, name=label, quota=quota)
        base = ""
        for name, matcher in built.items():
            why = _why_not(matcher, detector)
            if why:
                logger.warning("%s is not measured with %s: %s", label, name, why)
                continue
            both = label if name == MUTUAL else f"{label} + {name}"
            found[both] = Contender(find=find, matcher=matcher, base=base)
            base = base or both
    used = {id(each.matcher) for each in found.values()}
    idle = [name for name, matcher in built.items() if id(matcher) not in used]
    if idle:
        raise SuperPointError(f"{', '.join(idle)}: takes the features of none of the detectors")
    return found


def _why_not(matcher: Matcher | None, detector: Feature2D) -> str:
    """Why a matcher does not take a detector's features; empty where it does."""
    if matcher is not None and not describes(detector):
        return "it has no descriptors"
    if not isinstance(matcher, (LearnedMatcher, LightGlueMatcher)):
        return ""
    weights = weights_of(detector)
    if not weights:
        return "it is for features of superpoint"
    if isinstance(matcher, LearnedMatcher):
        try:
            matcher.load(weights)
        except WeightsError as error:
            return str(error)
        return ""
    fitted = matcher.loaded.fitted_to
    return "" if fitted in ("", weights) else f"it is for features of {matcher.loaded.weights}"


def to_features(found: Detections) -> Features:
    """Detections as matchers take them, at the positions in the image that was looked at.

    Descriptors of other detectors that are numbers become rows of unit length.
    """
    rows, points = found.descriptors, found.points if found.seen is None else found.seen
    if not found.binary and rows.dtype != np.uint8:
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        rows = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return Features(
        keypoints=points.astype(np.float32),
        scores=found.scores.astype(np.float32),
        descriptors=rows,
        sizes=np.ones(len(points), np.float32),
        octaves=np.zeros(len(points), np.int32),
        image_size=found.size,
        descriptor_kind="binary"
        if found.binary
        else "uint8"
        if rows.dtype == np.uint8
        else "float32",
        weights=found.weights,
    )


def matched(matcher: Matcher, found0: Detections, found1: Detections) -> Pairs:
    """(M, 2) rows of both and (M,) scores."""
    both = to_features(found0), to_features(found1)
    return check_matches(matcher(*both), *both)
