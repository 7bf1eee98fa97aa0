"""Calls with images, masks, options and keypoints of every kind."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from hypothesis import strategies as st
from kinds import Case, check, kind
from results import check_result, close, same

from cv_superpoint import SuperPointFeature2D, match_features, match_pair, mutual_nearest
from cv_superpoint.matching.guided import guided_matches

PHOTOGRAPH = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
BACKENDS = ("ncnn", "openvino", "onnxruntime", "torch")
LITE, WHOLE = "superpoint-lite", "superpoint"


@functools.lru_cache(maxsize=12)
def detector(backend: str, weights: str, **options: Any) -> SuperPointFeature2D:
    return SuperPointFeature2D.create(
        weights=weights, backend=backend, device="cpu", precision="float32", threads=1, **options
    )


def some_detector(draw_from: Any) -> SuperPointFeature2D:
    """One of those that are made once."""
    weights = WHOLE if draw_from.integers(6) == 0 else LITE
    backend = BACKENDS[int(draw_from.integers(4))]
    return detector(backend, weights, maxKeypoints=(-1, 40)[int(draw_from.integers(2))])


def image_of(seed: int, shape: tuple[int, ...], content: str, dtype: str, strides: str) -> Any:
    """An array of an image: its values, its type, its place in memory."""
    random = np.random.default_rng(seed)
    height, width = shape[:2]
    if content == "photograph":
        y, x = random.integers(0, 430, 2)
        image = np.resize(cv2.resize(PHOTOGRAPH[y : y + 80, x : x + 80], (width, height)), shape)
    elif content == "noise":
        image = random.integers(0, 256, shape)
    elif content == "flat":
        image = np.full(shape, random.integers(256))
    else:
        rows, columns = np.indices((height, width)) // int(random.integers(1, 9))
        image = np.resize(
            ((rows + columns) % 2 * 255)[..., None].repeat(4, 2)[
                ..., : shape[2] if len(shape) > 2 else 1
            ],
            shape,
        )
    with np.errstate(all="ignore"):
        image = (image / 255 if dtype.startswith("float") else image).astype(dtype)
    if strides == "transposed":
        return np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1)
    if strides == "negative":
        return np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    if strides == "sliced":
        wide = np.zeros((height, width * 2, *shape[2:]), image.dtype)
        wide[:, ::2] = image
        return wide[:, ::2]
    if strides == "fortran":
        return np.asfortranarray(image)
    if strides == "read-only":
        image.setflags(write=False)
    if strides == "umat" and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size:
        return cv2.UMat(np.ascontiguousarray(image))
    return image


SIDE = st.one_of(st.integers(1, 70), st.sampled_from([1, 7, 8, 9, 63, 64, 65, 300]))
CHANNELS = st.sampled_from([(), (), (1,), (3,), (3,), (4,), (2,), (5,), (0,)])
IMAGES = st.builds(
    lambda seed, h, w, c, content, dtype, strides: image_of(
        seed, (h, w, *c), content, dtype, strides
    ),
    st.integers(0, 2**31),
    SIDE,
    SIDE,
    CHANNELS,
    st.sampled_from(["photograph", "noise", "flat", "checkers"]),
    st.sampled_from(
        ["uint8"] * 6 + ["int8", "uint16", "float32", "float64", "bool", "int32", "float16"]
    ),
    st.sampled_from(["plain", "transposed", "negative", "sliced", "fortran", "read-only", "umat"]),
)
GOOD = st.builds(
    lambda seed, h, w, c, content, strides: image_of(seed, (h, w, *c), content, "uint8", strides),
    st.integers(0, 2**31),
    SIDE,
    SIDE,
    st.sampled_from([(), (3,), (4,), (1,)]),
    st.sampled_from(["photograph", "noise", "flat", "checkers"]),
    st.sampled_from(["plain", "transposed", "negative", "sliced", "fortran", "read-only"]),
)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 40),
    st.floats(),
    st.floats(-1, 2),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.floats(-1, 9), max_size=3),
    st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)),
    st.sampled_from(
        [
            (),
            [],
            {},
            np.float32(2),
            np.int64(3),
            np.array(4),
            np.zeros((0, 0)),
            object,
            Path("x"),
            1j,
        ]
    ),
)


@kind
def images(case: Case) -> None:
    """Images of any size, type, content and place in memory, alone."""
    model = some_detector(case.random)

    def holds(image: Any) -> None:
        case.notes[:] = [
            f"{type(image).__name__} {getattr(image, 'dtype', '')} {getattr(image, 'shape', '')}"
        ]
        with case.call():
            features = model.extract(image)
            shape = (image.get() if isinstance(image, cv2.UMat) else image).shape
            check_result(features, shape, model.getMaxKeypoints())
        with case.call():
            keypoints, rows = model.detectAndCompute(image, None)
            rows = rows.get() if isinstance(rows, cv2.UMat) else rows
            check(len(keypoints) == (0 if rows is None else len(rows)), "as many rows as keypoints")

    case.given(holds, image=st.one_of(IMAGES, JUNK))


@kind
def batches(case: Case) -> None:
    """The same alone, in a batch, in a stream, from threads and from another layout in memory."""
    model = some_detector(case.random)

    def holds(images: list[Any]) -> None:
        case.notes[:] = [str([each.shape for each in images])]
        alone = [model.extract(each) for each in images]
        case.calls += 3 + len(images)
        for what, found in (
            ("in a batch", model.extractBatch(images)),
            ("in a stream", [each for _, each in model.extractStream(images)]),
        ):
            check(len(found) == len(images), f"{what}: {len(found)} of {len(images)}")
            for one, other in zip(alone, found, strict=True):
                close(one, other, what)
        with ThreadPoolExecutor(3) as pool:
            for one, other in zip(alone, pool.map(model.extract, images), strict=True):
                same(one, other, "from threads")
        for image, one in zip(images, alone, strict=True):
            same(one, model.extract(np.ascontiguousarray(image)), "contiguous")

    case.given(holds, images=st.lists(GOOD, min_size=1, max_size=4))


@kind
def masks(case: Case) -> None:
    """Masks of any size and type."""
    model = some_detector(case.random)

    def holds(image: Any, mask: Any, fits: bool, seed: int) -> None:
        if fits:
            random = np.random.default_rng(seed)
            mask = (random.random(image.shape[:2]) < random.random()).astype(
                random.choice(["uint8", "bool"])
            )
            mask = (
                mask * random.choice([1, 255]).astype(np.uint8) if mask.dtype == np.uint8 else mask
            )
        case.notes[:] = [
            f"{image.shape} {(mask.shape, mask.dtype) if isinstance(mask, np.ndarray) else mask}"
        ]
        with case.call():
            features = model.extract(image, mask)
            check_result(features, image.shape, model.getMaxKeypoints(), mask if fits else None)

    case.given(
        holds,
        image=GOOD,
        mask=st.one_of(IMAGES, JUNK),
        fits=st.booleans(),
        seed=st.integers(0, 99999),
    )


NAMES = (
    *("maxKeypoints", "scoreThreshold", "nmsRadius", "scoreRadius", "borderMargin", "subpixel"),
    *("scales", "tileSize", "weights", "device", "backend", "precision", "threads"),
    *("descriptorFormat", "descriptorDim"),
)
SENSIBLE = {
    "maxKeypoints": st.sampled_from([-1, 0, 1, 30, 500.0, None]),
    "scoreThreshold": st.floats(0, 1),
    "nmsRadius": st.integers(0, 70),
    "scoreRadius": st.integers(0, 32),
    "borderMargin": st.integers(0, 80),
    "subpixel": st.booleans(),
    "scales": st.lists(st.floats(0.05, 3), min_size=1, max_size=3, unique=True),
    "tileSize": st.integers(8, 40).map(lambda n: 8 * n),
    "weights": st.sampled_from([LITE, WHOLE]),
    "device": st.sampled_from(["cpu", "auto"]),
    "backend": st.sampled_from([*BACKENDS, "auto"]),
    "precision": st.sampled_from(["float32", "auto", "bfloat16"]),
    "threads": st.integers(1, 3),
    "descriptorFormat": st.sampled_from(["float32", "uint8", "binary"]),
    "descriptorDim": st.sampled_from([None, 8, 32, 64]),
}


@kind
def options(case: Case) -> None:
    """Options of any value and type: refused when given, or kept by every copy of the detector."""
    image = PHOTOGRAPH[50:170, 180:320]

    def holds(junk: dict[str, Any], good: dict[str, Any], setter: str, value: Any) -> None:
        given = {"weights": LITE, "threads": 1, **good, **junk}
        case.notes[:] = [f"{given} then {setter}({value!r})"]
        with case.call(ImportError):
            model = SuperPointFeature2D.create(**given)
            quota = model.getMaxKeypoints()
            features = model.extract(image)
            check_result(features, image.shape, quota)
            others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
            path = str(case.folder / case.choose(["a.yml", "a.json.gz", "a.xml"]))
            model.save(path)
            others.append(SuperPointFeature2D.create(weights=LITE, threads=1))
            others[-1].read(path)
            for other, what in zip(others, ("pickled", "copied", "saved"), strict=True):
                check(repr(other) == repr(model), f"{what}: {other!r} of {model!r}")
            same(features, others[0].extract(image), "pickled")
            with case.call():
                getattr(model, f"set{setter}")(value)
                check_result(model.extract(image), image.shape, model.getMaxKeypoints())

    case.given(
        holds,
        junk=st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=2),
        good=st.fixed_dictionaries({}, optional=SENSIBLE),
        setter=st.sampled_from(
            [
                *("MaxKeypoints", "ScoreThreshold", "NmsRadius", "BorderMargin", "Scales"),
                *("Subpixel", "DescriptorFormat", "DescriptorDim"),
            ]
        ),
        value=JUNK,
    )


NUMBER = st.one_of(
    st.floats(-100, 400), st.floats(width=32), st.sampled_from([0.0, -0.5, 69.5, -1e-9])
)
KEYPOINT = st.builds(
    cv2.KeyPoint,
    NUMBER,
    NUMBER,
    st.floats(width=32),
    st.floats(width=32),
    st.floats(width=32),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**31), 2**31 - 1),
)


@kind
def keypoints(case: Case) -> None:
    """Keypoints of any origin: those in the image stay in order with all fields, with a row
    each."""
    model = some_detector(case.random)

    def holds(image: Any, points: Any) -> None:
        case.notes[:] = [f"{getattr(image, 'shape', image)} {points!r}"]
        with case.call():
            kept, rows = model.compute(image, points)
            height, width = image.shape[:2]
            expected = [
                each
                for each in points or ()
                if -0.5 <= each.pt[0] <= width - 0.5 and -0.5 <= each.pt[1] <= height - 0.5
            ]
            check(
                list(map(id, kept)) == list(map(id, expected)),
                f"{len(kept)} of {len(expected)} kept",
            )
            check((rows is None) == (not kept), "no rows without keypoints")
            if kept:
                check(rows.shape == (len(kept), model.descriptorSize()), f"rows {rows.shape}")
                check(np.isfinite(rows).all(), "rows are not finite")
                check(np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4), "unit rows")

    points = st.one_of(
        st.lists(KEYPOINT, max_size=8), st.lists(KEYPOINT, max_size=3).map(tuple), JUNK
    )
    case.given(holds, image=GOOD, points=points)


@kind
def matching(case: Case) -> None:
    """Pairs of any images, descriptors of any shape, options of any value."""
    model = detector("ncnn", LITE, maxKeypoints=100)

    def pairs(
        one: Any, other: Any, model_name: Any, threshold: Any, ratio: Any, turns: Any
    ) -> None:
        case.notes[:] = [f"{one.shape} {other.shape} {model_name} {threshold} {ratio} {turns}"]
        with case.call():
            result = match_pair(
                one,
                other,
                model,
                model=model_name,
                threshold=threshold,
                max_ratio=ratio,
                rotations=turns,
            )
            check(len(result.inliers) == len(result.matches), "a verdict for each match")
            check(result.homography is None or np.isfinite(result.homography).all(), "finite")
            check(not math.isnan(result.log_false_alarms), "log_false_alarms")
            guided = guided_matches(result.features0, result.features1, homography=np.eye(3))
            check(guided[0].shape[1] == 2, "guided")
            match_features(result.features0, result.features1)
            result.draw(one, other)

    case.given(
        pairs,
        one=GOOD,
        other=GOOD,
        model_name=st.sampled_from(["homography", "fundamental", "homography", "affine"]),
        threshold=st.sampled_from([3.0, 3, 0.5, 100, -1, math.nan]),
        ratio=st.sampled_from([None, 0.9, 1, 0, 2, math.nan]),
        turns=st.sampled_from([(0,), (0, 90, 180, 270), (90,), (), (45,), (0, 0)]),
    )

    def nearest(first: Any, second: Any) -> None:
        case.notes[:] = [
            f"nearest {getattr(first, 'shape', first)} {getattr(second, 'shape', second)}"
        ]
        with case.call():
            found, cosines = mutual_nearest(first, second)
            check(
                len(found) == len(cosines) and len(set(found[:, 1].tolist())) == len(found),
                "one to one",
            )

    rows = st.builds(
        lambda seed, n, d, kind, unit: _rows(seed, n, d, kind, unit),
        *(st.integers(0, 9999), st.integers(0, 9), st.integers(0, 5)),
        st.sampled_from(["float32", "float64", "float16", "uint8"]),
        st.booleans(),
    )
    case.given(nearest, first=st.one_of(rows, JUNK), second=rows)


def _rows(seed: int, count: int, length: int, dtype: str, unit: bool) -> Any:
    values = np.random.default_rng(seed).normal(size=(count, length))
    if unit and length:
        values /= np.linalg.norm(values, axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return values.astype(dtype)
