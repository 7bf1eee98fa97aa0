"""Lower precisions are computed, compared and judged as docs/results/precision.md says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from pinned import FLOAT32

from benchmarks import publish
from benchmarks.measure import photographs
from benchmarks.precision import backends, precision
from benchmarks.trial_backends import AlternatingBackend, RoundedBackend
from cv_superpoint.backends import Backend, choose, make_backend, processor
from cv_superpoint.backends.processor import CPU_BFLOAT16
from cv_superpoint.backends.torch import TorchBackend
from cv_superpoint.evaluation import paired
from cv_superpoint.evaluation.paired import (
    FEWEST_PAIRS,
    MARGINS,
    RATES,
    Comparison,
    agreement,
    compare,
    comparison_table,
    finder,
    pooled,
)
from cv_superpoint.evaluation.predictions import Detections
from cv_superpoint.evaluation.protocols import PROTOCOLS
from cv_superpoint.evaluation.statistics import Estimate
from cv_superpoint.evaluation.warps import WarpConfig, WarpedPhotographs
from cv_superpoint.weights import available_weights, load_weights

PAIRS = WarpedPhotographs(
    root=Path(skimage.data.__file__).parent,
    config=WarpConfig(size=(120, 160), pairs_per_image=1, seed=7),
    only=("astronaut.png", "camera.png", "coffee.png"),
)
NATIVE = pytest.mark.skipif(
    CPU_BFLOAT16 not in processor.instructions(), reason=f"needs a CPU with {CPU_BFLOAT16}"
)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """(1, 64, 80, 1) of a photograph."""
    return photographs(None, (64, 80), 1)[0][None, ..., None]


def test_agreement_counts_what_stayed_where_it_was() -> None:
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid(np.arange(8) * 10.0, np.arange(6) * 10.0), -1).reshape(-1, 2)
    rows = rng.normal(size=(48, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def found(kept: np.ndarray, shift: float, order: np.ndarray) -> Detections:
        return Detections(
            points=points[kept][order] + [shift, 0],
            scores=np.ones(len(order)),
            descriptors=rows[kept][order],
            binary=False,
        )

    everything, order = np.arange(48), rng.permutation(48)
    reference = found(everything, 0, np.arange(48))
    near = agreement(reference, found(everything, 0.7, order))
    assert (near.share(0.5), near.share(1.0)) == (0, 1)
    assert near.cosines == pytest.approx(1)
    half = found(np.arange(0, 48, 2), 0, np.arange(24))
    assert agreement(reference, half).share(0.5) == agreement(half, reference).share(0.5) == 0.5
    empty = found(np.arange(0), 0, np.arange(0))
    assert agreement(reference, empty).share(1) == agreement(empty, reference).share(1) == 0
    assert agreement(empty, empty).share(1) == 1
    # Of 48 + 48 keypoints 48 are in both: images count by their keypoints.
    assert pooled([agreement(reference, reference), agreement(reference, empty)]).share(1) == 0.5


def comparison(**low: float) -> Comparison:
    ends = {**dict.fromkeys(MARGINS, 0.0), **low}
    return Comparison(
        backend="",
        pairs=512,
        values=dict.fromkeys(MARGINS, 0.5),
        differences={key: Estimate(0.0, end, 0.0, 512) for key, end in ends.items()},
        shared={0.5: 1.0, 1.0: 1.0},
    )


def test_a_loss_beyond_the_margin_must_be_ruled_out_for_every_measure() -> None:
    assert comparison().keeps is True
    for key, margin in MARGINS.items():
        assert margin == (0.01 if key in RATES else 0.03)
        assert comparison(**{key: -margin + 1e-6}).keeps is True
        assert comparison(**{key: -margin - 1e-6}).keeps is False
        assert comparison(**{key: math.nan}).keeps is False
    assert replace(comparison(), pairs=499).keeps is False
    text = comparison_table({"float32": comparison(), "a": comparison(repeatability=-0.02)})
    assert cells(text.splitlines()[-1]) == ["keeps the accuracy", "", "not shown"]


def cells(line: str) -> list[str]:
    """Cells of a table's row."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def run_units(backend: Backend, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, h, w, 65) and unit descriptors (B, h, w, D) in one order of memory."""
    logits, dense = backend.run(images)
    rows = np.stack([np.ascontiguousarray(maps).reshape(*maps.shape[:2], -1) for maps in dense])
    return np.stack(logits), rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_rounding_reproduces_the_arithmetic_of_16_bits(name: str, image: np.ndarray) -> None:
    """torch's own network in 16 bits: the difference is a fraction of that from float32.

    Of the logits; torch rounds its descriptors once more, after the normalisation.
    """
    weights = load_weights()
    rounded, _ = run_units(RoundedBackend(weights, name), image)
    exact, _ = run_units(TorchBackend(weights, threads=1, **FLOAT32), image)
    net = weights.net.requires_grad_(False)
    net.encoder[0].conv.weight.mul_(1 / 255)  # pixels come as they are
    kind = getattr(torch, name)
    with torch.inference_mode():
        logits, _ = net.to(kind)(torch.from_numpy(image).permute(0, 3, 1, 2).to(kind))
    expected = logits.permute(0, 2, 3, 1).float().numpy()
    assert np.abs(rounded - expected).mean() < 0.5 * np.abs(exact - expected).mean()


@NATIVE
def test_rounding_reproduces_what_openvino_computes_here(image: np.ndarray) -> None:
    weights = load_weights()
    candidates = backends(weights, "cpu")
    assert "openvino" in candidates["bfloat16"].info()
    native = run_units(candidates["bfloat16"], image)
    exact = run_units(candidates["float32"], image)
    rounded = run_units(RoundedBackend(weights, "bfloat16"), image)
    for mine, theirs, reference in zip(rounded, native, exact, strict=True):
        assert np.abs(mine - theirs).mean() < 0.5 * np.abs(reference - theirs).mean()
    # What the measures are made of differs less than either does from float32.
    both = {"float32": candidates["bfloat16"], "rounded": RoundedBackend(weights, "bfloat16")}
    found = compare(PAIRS, PROTOCOLS["warp"], weights, both)["rounded"]
    assert found.shared[0.5] > 0.99
    assert found.low_cosine > 0.9999


@pytest.mark.parametrize("photograph", ["camera", "coins"])
@pytest.mark.parametrize("name", available_weights())
@pytest.mark.parametrize("how", ["rounded", pytest.param("openvino", marks=NATIVE)])
def test_bfloat16_finds_the_keypoints_of_float32(how: str, name: str, photograph: str) -> None:
    """All of them, those just above the threshold too; by the CPU's bfloat16 or by rounding."""
    weights = load_weights(name)
    exact = choose(backend="ncnn", **FLOAT32)
    lower = choose(backend="openvino", device="cpu", precision="bfloat16")
    found = [
        finder(backend, weights, [])(getattr(skimage.data, photograph)())
        for backend in (
            make_backend(weights, exact, threads=1),
            RoundedBackend(weights, "bfloat16")
            if how == "rounded"
            else make_backend(weights, lower, threads=1),
        )
    ]
    agreeing = agreement(*found)
    assert agreeing.count > 80
    assert agreeing.share(0.5) >= 0.96
    assert agreeing.share(1.0) >= 0.96
    if weights.config.descriptor_dim:
        assert agreeing.cosines[agreeing.distances <= 1].min() > 0.99


def test_a_precision_is_compared_pair_by_pair_and_a_bad_one_is_seen() -> None:
    weights = load_weights()
    reference = make_backend(weights, choose(backend="ncnn", **FLOAT32), threads=1)
    crude = RoundedBackend(weights, "bfloat16")
    crude._kind = torch.float8_e5m2  # two bits behind the point
    found = compare(
        PAIRS, PROTOCOLS["warp"], weights, {"float32": reference, "same": reference, "crude": crude}
    )
    same, other = found["same"], found["crude"]
    assert same.pairs == 3
    assert same.values == found["float32"].values
    assert all((one.low, one.high) == (0, 0) for one in same.differences.values())
    assert same.shared == {0.5: 1.0, 1.0: 1.0}
    assert same.low_cosine == pytest.approx(1)
    assert other.shared[0.5] < 0.95
    assert other.low_cosine < 0.99
    assert other.differences["matching_score"].low < -MARGINS["matching_score"]


def test_homographies_count_in_several_orders_of_their_matches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = load_weights("superpoint-lite")
    exact = make_backend(weights, choose(backend="ncnn", **FLOAT32), threads=1)
    several = compare(PAIRS, PROTOCOLS["warp"], weights, {"float32": exact})["float32"].values
    monkeypatch.setattr(paired, "ORDERS", 1)
    single = compare(PAIRS, PROTOCOLS["warp"], weights, {"float32": exact})["float32"].values
    for key in RATES:
        assert several[key] == single[key]
    # One order says yes or no of a pair. Of ten, some homographies are right and some are not.
    answers, tenths = single["e <= 1 px"] * len(PAIRS), several["e <= 1 px"] * len(PAIRS) * 10
    assert answers == pytest.approx(round(answers))
    assert tenths == pytest.approx(round(tenths))
    assert round(tenths) % 10 != 0


def test_features_of_two_precisions_meet() -> None:
    weights = load_weights("superpoint-lite")
    exact = make_backend(weights, choose(backend="ncnn", **FLOAT32), threads=1)
    crude = RoundedBackend(weights, "bfloat16")
    crude._kind = torch.float8_e5m2
    candidates = {"float32": exact, "both": AlternatingBackend(exact, crude), "crude": crude}
    found = compare(PAIRS, PROTOCOLS["warp"], weights, candidates)
    assert found["crude"].shared[0.5] < found["both"].shared[0.5] < 1
    assert found["both"].low_cosine < 1


def test_precisions_are_measured_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photographs(None, (120, 160), 1)[0])
    precision(
        images=tmp_path,
        weights=("superpoint",),
        precisions=("bfloat16",),
        pairs_per_image=1,
        output=tmp_path,
    )
    measured = json.loads((tmp_path / "precision_cpu.json").read_text(encoding="utf-8"))[
        "superpoint"
    ]
    assert measured["sha256"] == load_weights("superpoint").sha256
    assert set(measured["warp"]) == {"float32", "bfloat16"}
    assert measured["warp"]["float32"]["shared"] == {"0.5 px": 1, "1.0 px": 1}
    assert 0.8 < measured["warp"]["bfloat16"]["shared"]["0.5 px"] <= 1
    assert measured["warp"]["bfloat16"]["keeps"] is False
    rows = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert ["keeps the accuracy", "", "too few pairs to decide"] in rows


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        (name, listed)
        for name in available_weights()
        for listed in load_weights(name).precisions
        if listed != "float32"
    ],
)
def test_the_manifest_lists_what_was_measured(name: str, listed: str) -> None:
    """docs/results/performance/precision_cpu.json, of ``python -m benchmarks precision --page``."""
    page = publish.FIGURES / "precision_cpu.json"
    measured = json.loads(page.read_text(encoding="utf-8"))[name]
    assert measured["sha256"] == load_weights(name).sha256, "measure the new weights"
    assert measured["warp"][listed]["pairs"] >= FEWEST_PAIRS
    assert measured["warp"][listed]["keeps"] is True
