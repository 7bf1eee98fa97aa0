"""An evaluation as a whole: protocols, detectors and data in, a report out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation import figures, pose, synthetic
from cv_superpoint.evaluation.contenders import MUTUAL, Contender, make_contenders
from cv_superpoint.evaluation.datasets import HPatches, PairSource
from cv_superpoint.evaluation.detectors import split_names
from cv_superpoint.evaluation.differences import difference_table
from cv_superpoint.evaluation.limits import LimitsConfig, limits
from cv_superpoint.evaluation.measure import PairResult, evaluate_pairs
from cv_superpoint.evaluation.predictions import Feature2D
from cv_superpoint.evaluation.protocols import PROTOCOLS, Protocol
from cv_superpoint.evaluation.reliable import VerdictConfig, verdict
from cv_superpoint.evaluation.results import (
    MATCHED_COLUMNS,
    REFINED_COLUMNS,
    Report,
    Summary,
    summarise,
)
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs

logger = logging.getLogger(__name__)

_SYNTHETIC_QUOTA = 1000
_DETECTORS = ("superpoint", "sift", "orb")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure detectors under a named protocol (see docs/evaluation.md).

    Attributes:
        data: paper, auc, plain: a folder in HPatches layout; warp, limits: any folder of
            photographs; verdict: photographs that show different things; pose: the folder that
            the paths of pairs.txt start from; synthetic: not needed.
        protocol: What is measured, and how. Figures of two protocols are not comparable.
        detectors: Names separated by commas: superpoint, sift, orb, akaze, harris, or
            module:factory for any object with detectAndCompute; options in brackets, as in
            "sift(contrastThreshold=0.02)". If left out: superpoint,sift,orb, and for verdict
            "superpoint(maxKeypoints=1000)".
        matchers: Names separated by commas, each measured with every detector that it takes the
            features of: mutual (the protocols' own nearest neighbours), ratio, guided, flann,
            lightglue (learned), a matcher's file, or module:factory. Of verdict, one.
        weights: Weights of superpoint: a bundled name or a file; the package's default if left out.
        out: Folder for results.json, results.md, pairs.csv and pictures.
        cache: Folder that keeps every image's detections for later runs.
        only: Glob patterns of sequences (or photographs) to evaluate, such as v_boat; for
            limits, which of rotation, scale, turned, blur and night; all if left out.
        per_pair: Also print a table of every single pair.
        rotations: Counter-clockwise turns of the second image to try, in degrees; the one with
            the most inliers counts.
        refine: Refine matches from the pixels before the homography is taken; accuracies come
            with the one at half a pixel, and the inliers' distance from the truth.
        align: Let each homography make all of the overlap agree.
        estimator: Estimator of homographies, instead of the protocol's RANSAC: least-squares, as
            match_pair takes, magsac, or dlt, a fit to all matches by their scores. Figures are then
            not the protocol's.
        ransac_threshold: Threshold in pixels; the protocol's own if left out.
        size: Height and width of the pairs of warp; the default is 240 320.
        pairs_per_image: Pairs that warp and verdict make of each photograph.
        images: Drawings of each kind for synthetic.
        photographs: Photographs that limits uses, at most.
        pairs: A folder in HPatches layout for more right pairs (verdict), or the list of pairs in
            SuperGlue's layout (pose; pairs.txt of the folder if left out).
        model: What verdict is about. Right pairs are those whose homography is right.
        unrelated: Pairs of different photographs for verdict.
        seed: Seed of warp, synthetic and verdict.
        resamples: Number of resamples of the bootstrap for the 95 % intervals; 0 leaves them out.
    """

    data: Path | None = None
    protocol: Literal["paper", "auc", "plain", "warp", "pose", "synthetic", "limits", "verdict"] = (
        "paper"
    )
    detectors: tuple[str, ...] = ()
    matchers: tuple[str, ...] = (MUTUAL,)
    weights: str | None = None
    out: Path | None = None
    cache: Path | None = None
    only: tuple[str, ...] = ()
    per_pair: bool = False
    rotations: tuple[Literal[0, 90, 180, 270], ...] = (0,)
    refine: bool = False
    align: bool = False
    estimator: Literal["least-squares", "magsac", "dlt"] | None = None
    ransac_threshold: float | None = None
    size: tuple[int, int] = (240, 320)
    pairs_per_image: int = 2
    images: int = 500
    photographs: int = 64
    pairs: Path | None = None
    model: Literal["homography", "fundamental"] = "homography"
    unrelated: int = 500
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.protocol != "synthetic" and self.data is None:
            raise SuperPointError(
                f"protocol {self.protocol} needs images: name a folder with --data"
            )
        if not self.rotations or len(set(self.rotations)) != len(self.rotations):
            raise SuperPointError(f"rotations must be different angles, got {self.rotations}")
        if self.resamples < 0:
            raise SuperPointError(f"resamples must not be negative, got {self.resamples}")


def evaluate(config: EvaluateConfig, detectors: Mapping[str, Feature2D] | None = None) -> Report:
    """Evaluate detectors.

    Args:
        config: What to do; ``out`` is written, nothing is printed.
        detectors: Detectors by label, instead of those that ``config`` names.

    Raises:
        ValueError: If a detector, the data or an option cannot be used; the message says which.
    """
    if config.protocol in ("limits", "verdict"):
        module = "limits" if config.protocol == "limits" else "reliable"
        raise SuperPointError(
            f"{config.protocol} has tables instead of a report: call "
            f"evaluation.{module}.{config.protocol}"
        )
    protocol = None if config.protocol in ("synthetic", "pose") else _protocol(config)
    quota = protocol.quota if protocol else _SYNTHETIC_QUOTA
    poses = _pose_pairs(config) if config.protocol == "pose" else None
    if config.protocol == "synthetic" and config.matchers != (MUTUAL,):
        raise SuperPointError("protocol synthetic has no matches; leave --matchers out")
    contenders = make_contenders(
        detectors or config.detectors or _DETECTORS,
        config.matchers,
        quota=quota,
        weights=config.weights,
        cache=config.cache,
        described=poses is not None,
    )
    results: dict[str, list[PairResult]] = {}
    if poses is not None:
        report = _evaluate_poses(config, contenders, poses)
    elif protocol is None:
        report = _evaluate_synthetic(config, contenders)
    else:
        source = _source(config, protocol)
        results = _run_pairs(source, contenders, protocol, config)
        if not all(results.values()):
            raise SuperPointError(
                f"{config.data}: none of the images that are asked for can be read"
            )
        bases = {label: each.base for label, each in contenders.items()}
        report = _report(config, protocol, source, results, bases)
    if config.out is not None:
        report.write(config.out)
        figures.write_bars(config.out, report)
        if protocol is not None:
            figures.write_pairs(config.out, source, contenders, results, protocol)
    return report


def _protocol(config: EvaluateConfig) -> Protocol:
    assert config.protocol != "synthetic"
    assert config.protocol != "pose"
    assert config.protocol != "limits"
    assert config.protocol != "verdict"
    protocol = PROTOCOLS[config.protocol]
    columns = protocol.columns
    if config.matchers != (MUTUAL,):
        columns = (columns[0], *MATCHED_COLUMNS, *columns[1:])
    if config.refine or config.align:
        columns = (*columns, *REFINED_COLUMNS)
    protocol = dataclasses.replace(protocol, columns=columns)
    threshold = config.ransac_threshold or protocol.ransac.threshold
    ransac = dataclasses.replace(protocol.ransac, threshold=threshold, estimator=config.estimator)
    return dataclasses.replace(protocol, ransac=ransac)


def _source(config: EvaluateConfig, protocol: Protocol) -> PairSource:
    assert config.data is not None
    if protocol.name != "warp":
        return HPatches(root=config.data, only=config.only, excluded=protocol.excluded)
    warp = WarpConfig(size=config.size, pairs_per_image=config.pairs_per_image, seed=config.seed)
    return WarpedPhotographs(root=config.data, config=warp, only=config.only)


def _run_pairs(
    source: PairSource,
    contenders: Mapping[str, Contender],
    protocol: Protocol,
    config: EvaluateConfig,
) -> dict[str, list[PairResult]]:
    results = {}
    for label, contender in contenders.items():
        started = time.perf_counter()
        results[label] = list(
            evaluate_pairs(
                source,
                contender.find,
                protocol,
                rotations=config.rotations,
                refine=config.refine,
                align=config.align,
                matcher=contender.matcher,
            )
        )
        logger.info(
            "%s: %d pairs in %.1f s", label, len(results[label]), time.perf_counter() - started
        )
    return results


def _report(
    config: EvaluateConfig,
    protocol: Protocol,
    source: PairSource,
    results: Mapping[str, Sequence[PairResult]],
    bases: Mapping[str, str],
) -> Report:
    settings: dict[str, Any] = {
        "passes": [dataclasses.asdict(step) for step in protocol.passes],
        "ransac": dataclasses.asdict(protocol.ransac),
        "rotations": config.rotations,
        "refine": config.refine,
        "align": config.align,
        "only": config.only,
        "matchers": config.matchers,
        "weights": config.weights,
        "opencv": cv2.__version__,
    }
    if isinstance(source, WarpedPhotographs):
        settings["warp"] = dataclasses.asdict(source.config)
    summaries: dict[str, Summary] = {
        label: summarise(found, resamples=config.resamples) for label, found in results.items()
    }
    return Report(
        protocol=protocol.name,
        settings=settings,
        columns=protocol.columns,
        summaries=summaries,
        results={
            label: [dataclasses.asdict(result) for result in found]
            for label, found in results.items()
        },
        skipped=source.skipped,
        left_out=source.left_out if isinstance(source, WarpedPhotographs) else (),
        differences=difference_table(results, bases, protocol.columns, resamples=config.resamples),
    )


def _evaluate_synthetic(config: EvaluateConfig, contenders: Mapping[str, Contender]) -> Report:
    drawings = synthetic.SyntheticEvaluation(images=config.images, seed=config.seed)
    results = {
        label: synthetic.evaluate_drawings(contender.find, drawings)
        for label, contender in contenders.items()
    }
    return Report(
        protocol="synthetic",
        settings=dataclasses.asdict(drawings)
        | {"nms_radius": synthetic.NMS_RADIUS, "weights": config.weights},
        columns=synthetic.COLUMNS,
        summaries={
            label: synthetic.summarise_drawings(found, resamples=config.resamples)
            for label, found in results.items()
        },
        results={label: [result.record() for result in found] for label, found in results.items()},
    )


def _pose_pairs(config: EvaluateConfig) -> pose.PosePairs:
    assert config.data is not None
    if config.rotations != (0,) or config.only:
        raise SuperPointError("protocol pose takes neither --rotations nor --only")
    return pose.PosePairs(root=config.data, list_of_pairs=config.pairs)


def _evaluate_poses(
    config: EvaluateConfig, contenders: Mapping[str, Contender], source: pose.PosePairs
) -> Report:
    threshold = config.ransac_threshold or pose.THRESHOLD
    results = {
        label: pose.evaluate_poses(
            source,
            contender.find,
            threshold=threshold,
            refine=config.refine,
            matcher=contender.matcher,
        )
        for label, contender in contenders.items()
    }
    if not all(results.values()):
        raise SuperPointError(f"{config.data}: no pair of the list can be read")
    return Report(
        protocol="pose",
        settings={
            "fit": dataclasses.asdict(pose.FIT),
            "quota": pose.QUOTA,
            "ransac": {"threshold": threshold, "confidence": pose.CONFIDENCE},
            "refine": config.refine,
            "matchers": config.matchers,
            "weights": config.weights,
            "opencv": cv2.__version__,
        },
        columns=pose.COLUMNS,
        summaries={
            label: pose.summarise_poses(found, resamples=config.resamples)
            for label, found in results.items()
        },
        results={
            label: [dataclasses.asdict(result) for result in found]
            for label, found in results.items()
        },
        skipped=source.skipped,
        left_out=source.left_out,
        differences=difference_table(
            results,
            {label: contender.base for label, contender in contenders.items()},
            pose.COLUMNS,
            resamples=config.resamples,
        ),
    )


def tables(config: EvaluateConfig) -> tuple[str, bool]:
    """Evaluate, and return what the command prints.

    Returns:
        The text, and whether everything was read.

    Raises:
        ValueError: If :func:`evaluate`, :func:`cv_superpoint.evaluation.limits.limits` or
            :func:`cv_superpoint.evaluation.reliable.verdict` raises it.
    """
    if config.protocol == "limits":
        text, left_out = limits(_limits(config))
        return text, not left_out
    if config.protocol == "verdict":
        text, left_out = verdict(_verdict(config))
        return text, not left_out
    report = evaluate(config)
    parts = [report.to_markdown()]
    if config.per_pair and config.protocol != "synthetic":
        parts.append(report.pairs_markdown())
    return "\n".join(parts), not report.left_out


def _limits(config: EvaluateConfig) -> LimitsConfig:
    assert config.data is not None
    return LimitsConfig(
        data=config.data,
        detectors=config.detectors or _DETECTORS,
        matchers=config.matchers,
        weights=config.weights,
        only=config.only,
        photographs=config.photographs,
        out=config.out,
    )


def _one(matchers: Sequence[str]) -> str:
    names = split_names(matchers, "matchers")
    if len(names) > 1:
        raise SuperPointError(f"verdict is about one matcher, got {', '.join(names)}")
    return names[0]


def _verdict(config: EvaluateConfig) -> VerdictConfig:
    assert config.data is not None
    given = VerdictConfig(
        data=config.data,
        pairs=config.pairs,
        matcher=_one(config.matchers),
        weights=config.weights,
        model=config.model,
        unrelated=config.unrelated,
        pairs_per_image=config.pairs_per_image,
        seed=config.seed,
        out=config.out,
    )
    if config.detectors:
        given = dataclasses.replace(given, detectors=config.detectors)
    if config.ransac_threshold is not None:
        given = dataclasses.replace(given, threshold=config.ransac_threshold)
    return given
