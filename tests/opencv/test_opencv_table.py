"""What cv2.SIFT does in each corner case, and that ours does the same or what is meant instead.

Both columns are checked on the installed OpenCV, so that a new release shows where it moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

BGR = np.ascontiguousarray(
    cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)[20:180, 150:360]
)
GREY = cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY)
ONES = np.ones_like(GREY)
FLAT = np.full((120, 160), 128, np.uint8)
NOISE8 = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
EMPTY = np.zeros((0, 0), np.uint8)
POINTS = (cv2.KeyPoint(60.25, 50.5, 8, 30, 0.5, 2, 7), cv2.KeyPoint(33.0, 21.0, 5))
OUTSIDE = (*POINTS, cv2.KeyPoint(-30, 5, 8), cv2.KeyPoint(float("nan"), 3, 8))

FOUND = "(keypoints, float32 rows)"
NOTHING = "((), None)"
ERROR = "error"


def summary(value: Any) -> str:
    """The form of a result, without its numbers."""
    if value is None:
        return "None"
    if isinstance(value, cv2.UMat):
        rows = value.get()
        return "empty UMat" if rows is None else f"UMat of {rows.dtype} rows"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} rows" if value.ndim == 2 else f"{value.dtype} {value.shape}"
    if isinstance(value, tuple):
        if value and all(isinstance(item, cv2.KeyPoint) for item in value):
            return "keypoints"
        return "(" + ", ".join(map(summary, value)) + ")"
    return repr(value)


def outcome(call: Callable[[Any], Any], feature: Any) -> str:
    try:
        return summary(call(feature))
    except cv2.error:
        return ERROR


@dataclass(frozen=True)
class Row:
    """A call, and what comes of it; ``sift=None`` where the call is unsafe, ``ours=None``: same."""

    name: str
    call: Callable[[Any], Any]
    sift: str | None
    ours: str | None = None

    @property
    def expected(self) -> str:
        result = self.sift if self.ours is None else self.ours
        assert result is not None
        return result


def dac(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda feature: feature.detectAndCompute(*args, **kwargs)


def detect(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda feature: feature.detect(*args, **kwargs)


def compute(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda feature: feature.compute(*args, **kwargs)


def filled_in_place(with_compute: bool) -> Callable[[Any], Any]:
    def call(feature: Any) -> Any:
        keypoints = feature.detect(GREY)
        rows = np.zeros((len(keypoints), feature.descriptorSize()), np.float32)
        if with_compute:
            result = feature.compute(GREY, keypoints, rows)[1]
        else:
            result = feature.detectAndCompute(GREY, None, descriptors=rows)[1]
        return result is rows and bool(np.abs(rows).sum(axis=1).min() > 0)

    return call


def fields_kept(feature: Any) -> Any:
    kept = feature.compute(GREY, POINTS)[0]
    names = ("pt", "size", "angle", "response", "octave", "class_id")
    return [[getattr(k, n) for n in names] for k in kept] == [
        [getattr(k, n) for n in names] for k in POINTS
    ]


def counts(feature: Any) -> Any:
    keypoints, rows = feature.compute(GREY, OUTSIDE)
    return len(keypoints), len(rows)


U = cv2.UMat
UMAT = "(keypoints, UMat of float32 rows)"
TWO = "(keypoints, keypoints)"
ROWS = [
    # images
    Row("no mask argument", dac(GREY), ERROR, FOUND),
    Row("mask None", dac(GREY, None), FOUND),
    Row("keywords", dac(image=GREY, mask=None), FOUND),
    Row("all keywords", dac(image=GREY, mask=None, useProvidedKeypoints=False), FOUND),
    Row("BGR", dac(BGR, None), FOUND),
    Row("BGRA", dac(cv2.cvtColor(BGR, cv2.COLOR_BGR2BGRA), None), FOUND),
    Row("H x W x 1", dac(GREY[:, :, None], None), FOUND),
    Row("negative stride", dac(GREY[:, ::-1], None), FOUND),
    Row("slices", dac(BGR[4:-3:1, 5:-2], None), FOUND),
    Row("2 channels", dac(BGR[:, :, :2].copy(), None), FOUND, ERROR),
    Row("5 channels", dac(np.dstack([BGR, BGR])[:, :, :5].copy(), None), FOUND, ERROR),
    *(
        Row(f"{kind} grey", dac(GREY.astype(kind), None), ERROR)
        for kind in ("uint16", "int16", "int8", "uint32", "int64", "float64", "bool", "float32")
    ),
    Row("float32 BGR", dac(BGR.astype(np.float32), None), ERROR),
    Row("None", dac(None, None), ERROR),
    Row("0 x 0", dac(EMPTY, None), ERROR),
    Row("0 x W", dac(np.zeros((0, 20), np.uint8), None), ERROR),
    Row("path", dac("image.png", None), ERROR),
    Row("nested list", dac([[1, 2], [3, 4]], None), ERROR),
    Row("list of images", dac([GREY, GREY], None), ERROR),
    Row("1 x 1", dac(np.zeros((1, 1), np.uint8), None), NOTHING),
    Row("1-D", dac(np.zeros(5, np.uint8), None), NOTHING, ERROR),
    Row("flat", dac(FLAT, None), NOTHING),
    Row("8 x 8 noise", dac(NOISE8, None), NOTHING),
    # detect
    Row("detect", detect(GREY), "keypoints"),
    Row("detect keywords", detect(image=GREY, mask=ONES), "keypoints"),
    Row("detect None", detect(None), "()"),
    Row("detect empty", detect(EMPTY), "()"),
    Row("detect flat", detect(FLAT), "()"),
    Row("detect list", detect([GREY, BGR]), TWO),
    Row("detect tuple", detect((GREY, GREY)), TWO),
    Row("detect images=", detect(images=[GREY, GREY]), TWO),
    Row("detect empty list", detect([]), "()"),
    Row("detect with masks", detect([GREY, BGR], [ONES, ONES]), TWO),
    Row("detect with None masks", detect([GREY, BGR], [None, None]), TWO),
    Row("detect with no masks", detect([GREY, BGR], []), TWO),
    Row(
        "detect with masks=", detect(images=[GREY, GREY], masks=[ONES, ONES * 0]), "(keypoints, ())"
    ),
    Row("detect with one mask for two", detect([GREY, GREY], [ONES]), ERROR),
    Row("detect list with empty", detect([GREY, EMPTY]), "(keypoints, ())"),
    Row("detect list with None", detect([None, GREY]), "((), keypoints)"),
    Row("detect N x H x W", detect(np.zeros((3, 40, 640), np.uint8)), ERROR),
    Row("detect nothing given", detect(), ERROR),
    # masks
    Row("mask of 0/1", dac(GREY, ONES), FOUND),
    Row("mask of 0/255", dac(GREY, ONES * 255), FOUND),
    Row("mask H x W x 1", dac(GREY, ONES[:, :, None]), FOUND),
    Row("mask empty array", dac(GREY, EMPTY), FOUND),
    Row("mask all zero", dac(GREY, ONES * 0), NOTHING),
    Row("detect, mask all zero", detect(GREY, ONES * 0), "()"),
    Row("mask float32", dac(GREY, ONES.astype(np.float32)), ERROR),
    Row("mask int32", dac(GREY, ONES.astype(np.int32)), ERROR),
    Row("mask with 3 channels", dac(GREY, np.dstack([ONES] * 3)), ERROR),
    Row("mask bool", dac(GREY, ONES.astype(bool)), ERROR, FOUND),
    # SIFT reads out of bounds here: never called.
    Row("mask of the wrong size", dac(GREY, ONES[:-8]), None, ERROR),
    Row("mask too large", dac(GREY, np.ones((500, 500), np.uint8)), None, ERROR),
    Row("mask is a string", dac(GREY, "mask"), ERROR),
    # compute
    Row("compute list", compute(GREY, list(POINTS)), FOUND),
    Row("compute tuple", compute(GREY, POINTS), FOUND),
    Row("compute keywords", compute(image=GREY, keypoints=POINTS), FOUND),
    Row("compute []", compute(GREY, []), NOTHING),
    Row("compute ()", compute(GREY, ()), NOTHING),
    Row("compute None", compute(GREY, None), NOTHING),
    Row("compute on None", compute(None, POINTS), "(keypoints, None)", ERROR),
    Row("compute on empty", compute(EMPTY, POINTS), "(keypoints, None)", ERROR),
    Row("compute N x 2", compute(GREY, np.zeros((3, 2), np.float32)), ERROR),
    Row("compute pairs", compute(GREY, [(1, 2)]), ERROR),
    Row(
        "compute lists",
        compute([GREY, BGR], [POINTS, list(POINTS)]),
        f"({TWO}, (float32 rows, float32 rows))",
    ),
    Row(
        "compute images=",
        compute(images=[GREY], keypoints=[POINTS]),
        "((keypoints), (float32 rows))",
    ),
    Row("compute nothing in lists", compute([], []), "((), ())"),
    Row("compute count mismatch", compute([GREY, GREY], [POINTS]), ERROR),
    Row("compute outside and NaN", counts, "(4, 4)", "(2, 2)"),
    Row("compute keeps every field", fields_kept, None, "True"),
    Row("provided, none given", dac(GREY, None, None, True), NOTHING),
    # preallocated
    Row("descriptors filled in place", filled_in_place(False), "True"),
    Row("compute fills in place", filled_in_place(True), "True"),
    Row("descriptors of another shape", dac(GREY, None, np.zeros((2, 3), np.float32)), FOUND),
    # UMat
    Row("UMat", dac(U(GREY), None), UMAT),
    Row("UMat mask", dac(GREY, U(ONES)), UMAT),
    Row("UMat both", dac(U(BGR), U(ONES)), UMAT),
    Row("UMat descriptors", dac(GREY, None, U()), UMAT),
    Row("UMat flat", dac(U(FLAT), None), "((), empty UMat)"),
    Row("UMat detect", detect(U(GREY)), "keypoints"),
    Row("UMat list", detect([U(GREY), U(BGR)]), TWO),
    Row("UMat compute", compute(U(GREY), POINTS), UMAT),
    Row(
        "UMat compute lists",
        compute([U(GREY)], [POINTS]),
        "((keypoints), (UMat of float32 rows))",
    ),
    Row("cuda_GpuMat", dac(cv2.cuda_GpuMat(), None), ERROR),
    # the rest of the interface
    Row("defaultNorm", lambda f: f.defaultNorm(), str(cv2.NORM_L2)),
    Row("descriptorType", lambda f: f.descriptorType(), str(cv2.CV_32F)),
    Row("descriptorSize", lambda f: f.descriptorSize(), "128", "256"),
    Row(
        "getDefaultName", lambda f: f.getDefaultName(), "'Feature2D.SIFT'", "'Feature2D.SuperPoint'"
    ),
    Row("clear", lambda f: f.clear(), "None"),
    Row("empty", lambda f: f.empty(), "True", "False"),
]


@pytest.mark.parametrize("row", [r for r in ROWS if r.sift is not None], ids=lambda row: row.name)
def test_sift(row: Row) -> None:
    assert outcome(row.call, cv2.SIFT_create()) == row.sift


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_ours(row: Row, detector: Any) -> None:
    assert outcome(row.call, detector) == row.expected


@pytest.mark.parametrize("row", [r for r in ROWS if r.expected == ERROR], ids=lambda r: r.name)
def test_our_errors_are_value_errors_too(row: Row, detector: Any) -> None:
    with pytest.raises(ValueError, match=r"\w{3}") as caught:
        row.call(detector)
    assert isinstance(caught.value, cv2.error)
    assert caught.value.code in (-5, -215)
