"""Options of every type at create and in setters; images of other libraries at the call."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cv_superpoint
from cv_superpoint import FeatureError, SuperPoint, SuperPointFeature2D
from cv_superpoint.checks import as_count, as_flag, as_number, as_scales
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector import DetectorConfig


def make(**options: Any) -> SuperPointFeature2D:
    return SuperPointFeature2D.create(**{"device": "cpu", "backend": "ncnn"} | options)


# ---- options ----

NAMES = {
    "maxKeypoints": "max_keypoints",
    "scoreThreshold": "score_threshold",
    "nmsRadius": "nms_radius",
    "scoreRadius": "score_radius",
    "borderMargin": "border_margin",
    "subpixel": "subpixel",
    "scales": "scales",
}


def shown(value: Any) -> str:
    """The value in the name of a test, without its address: every process must find the same."""
    return re.sub(r" at 0x[0-9a-fA-F]+| 0x[0-9a-fA-F]+", "", repr(value))


TAKEN: list[tuple[str, Any, Any]] = [
    *(("maxKeypoints", value, -1) for value in (0, -1, 0.0, -1.0, None, np.int64(0))),
    *(
        ("maxKeypoints", value, 500)
        for value in (
            *(500, 500.0, np.int16(500), np.uint64(500), np.float32(500), np.array(500)),
            *(Fraction(500), torch.tensor(500)),
        )
    ),
    ("nmsRadius", 4.0, 4),
    ("nmsRadius", np.int32(0), 0),
    ("borderMargin", np.float64(7), 7),
    ("scoreRadius", 2.0, 2),
    ("scoreThreshold", 0, 0.0),
    ("scoreThreshold", np.float64(0.25), 0.25),
    ("scoreThreshold", np.array(0.25, np.float32), 0.25),
    *(("subpixel", value, False) for value in (False, 0, np.False_, 0.0)),
    *(("subpixel", value, True) for value in (True, 1, np.True_)),
    *(("scales", value, (1.0,)) for value in (1, 1.0, [1], (1.0,), np.float32(1), None)),
    *(
        ("scales", value, (1.0, 0.5))
        for value in ([1, 0.5], np.array([1, 0.5], np.float32), iter((1.0, Fraction(1, 2))))
    ),
    ("scales", range(1, 3), (1.0, 2.0)),
]

REFUSED: list[tuple[str, Any]] = [
    *(
        ("maxKeypoints", value)
        for value in (
            *(-2, 0.5, 1e400, float("nan"), True, np.True_, "500", [500], 1j, b"5"),
            np.array([500]),
        )
    ),
    *(("nmsRadius", value) for value in (-1, 4.5, None, True, "4", (4,))),
    *(("borderMargin", value) for value in (-1, 0.1, None, False)),
    *(("scoreRadius", value) for value in (-1, 1.5, True)),
    *(("scoreThreshold", value) for value in (-0.1, 1, float("nan"), True, "0.1", [0.1], 0.1j)),
    *(("subpixel", value) for value in ("no", "True", 2, -1, None, [])),
    *(
        ("scales", value)
        for value in (
            (),
            0,
            "1",
            b"1",
            ["1"],
            (1, True),
            (1, 1),
            9,
            [float("nan")],
            [[1.0]],
            (1, None),
        )
    ),
]


@pytest.fixture(scope="module")
def changing() -> SuperPointFeature2D:
    """A detector whose options tests may change."""
    return make(scoreThreshold=0.1)


@pytest.mark.parametrize(("name", "value", "expected"), TAKEN, ids=shown)
def test_unambiguous_values_are_taken(
    name: str, value: Any, expected: Any, changing: SuperPointFeature2D
) -> None:
    value = list(value) if name == "scales" and hasattr(value, "__next__") else value
    kind = DetectorConfig if name in ("scales", "tileSize") else Decoding
    given = getattr(kind(**{NAMES[name]: value}), NAMES[name])
    assert given == expected
    assert type(given) is type(expected)
    suffix = name[0].upper() + name[1:]
    getattr(changing, f"set{suffix}")(value)
    assert getattr(changing, f"get{suffix}")() == expected


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=shown)
def test_others_are_refused_at_create_and_by_setters(
    name: str, value: Any, changing: SuperPointFeature2D
) -> None:
    options = {"scoreThreshold": 0.1, name: value}
    suffix = name[0].upper() + name[1:]
    before = getattr(changing, f"get{suffix}")()
    for call in (lambda: make(**options), lambda: getattr(changing, f"set{suffix}")(value)):
        with pytest.raises(FeatureError, match=NAMES[name]) as caught:
            call()
        assert isinstance(caught.value, cv2.error)
        assert isinstance(caught.value, ValueError)
    assert getattr(changing, f"get{suffix}")() == before


def test_no_limit_as_in_sift(bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    small = np.ascontiguousarray(bgr[40:140, 60:200])
    sift = [len(cv2.SIFT_create(count).detect(small)) for count in (0, 10)]
    assert sift[0] > 2 * sift[1]
    expected = detector.extract(small)
    assert len(expected) > 20
    unlimited = make(maxKeypoints=0)
    assert unlimited.getMaxKeypoints() == -1
    np.testing.assert_array_equal(unlimited.extract(small).keypoints, expected.keypoints)
    unlimited.setMaxKeypoints(5)
    assert len(unlimited.detect(small)) == 5
    unlimited.setMaxKeypoints(0)
    assert len(unlimited.detect([small])[0]) == len(expected)
    unlimited.setScales((1, 0.5))
    assert len(unlimited.extract(small)) > len(expected)


def test_no_limit_survives_a_file_and_reaches_the_module(tmp_path: Path, bgr: np.ndarray) -> None:
    make(maxKeypoints=0).save(tmp_path / "a.yml")
    read = make(maxKeypoints=5)
    read.read(tmp_path / "a.yml")
    assert read.getMaxKeypoints() == -1
    text = (tmp_path / "a.yml").read_text().replace("maxKeypoints: -1", "maxKeypoints: 0")
    (tmp_path / "a.yml").write_text(text)
    read.read(tmp_path / "a.yml")
    assert read.getMaxKeypoints() == -1
    grey = torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))[None, None, :80, :80] / 255
    module = SuperPoint.from_pretrained(max_keypoints=0, score_threshold=0.05)
    assert module.decoding.max_keypoints == -1
    assert len(module(grey)[0].keypoints) > 5
    with pytest.raises(FeatureError, match="nms_radius"):
        SuperPoint.from_pretrained(nms_radius=1.5)
    for images, says in (
        (grey[0, 0], r"images\[None\]"),
        ((grey * 255).byte(), "images / 255"),
        (bgr, "torch.from_numpy"),
    ):
        with pytest.raises(FeatureError, match=says):
            module(images)


@pytest.mark.parametrize("device", ["cpu", "CPU", torch.device("cpu"), None, "auto"])
def test_devices(device: Any) -> None:
    detector = SuperPointFeature2D.create(5, device=device, backend=None, precision=None)
    assert "cpu" in detector.info() or "cuda" in detector.info()


def test_a_torch_type_is_a_precision() -> None:
    detector = make(backend="torch", precision=torch.bfloat16)
    assert "bfloat16" in detector.info()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": 0}, "device must be a name such as 'cpu' or 'cuda:0'"),
        ({"device": ""}, "device must be a name"),
        ({"device": "abacus", "backend": "auto"}, "device must be 'auto' or a torch device"),
        ({"device": "cuda:0"}, "runs on 'cpu' only"),
        ({"device": torch.device("cuda", 63), "backend": "torch"}, "CUDA devices found"),
        ({"backend": "caffe"}, "backend must be"),
        ({"backend": 3}, "backend must be a name"),
        ({"precision": "int4"}, "precision must be"),
        ({"precision": 16}, "precision must be a name"),
        ({"precision": torch.int16}, "precision must be"),
        ({"threads": 0}, "threads must be a whole number, at least 1"),
        ({"threads": True}, "threads"),
        ({"threads": "2"}, "threads"),
    ],
    ids=shown,
)
def test_wrong_names(options: dict[str, Any], says: str) -> None:
    with pytest.raises(FeatureError, match=says):
        make(**options)


def test_wrong_options_are_found_before_the_network_is_loaded() -> None:
    with pytest.raises(FeatureError, match="scales"):
        make(weights="no-such-file.pth", scales="1")


@given(st.integers(-1, 2**31 - 1))
def test_whole_numbers_of_every_kind(value: int) -> None:
    kinds = [int, np.int64, Fraction, float, np.float64]
    for kind in kinds:
        assert as_count("count", kind(value), -1) == value


@pytest.mark.parametrize("value", [2**31, 7e16, 2**70])
def test_what_no_file_of_opencv_holds_is_refused(value: float) -> None:
    with pytest.raises(FeatureError, match="nms_radius must be at most 2147483647, got"):
        as_count("nms_radius", value)


@given(st.one_of(st.text(), st.none(), st.binary(), st.complex_numbers(), st.lists(st.integers())))
def test_what_is_no_number_is_refused(value: Any) -> None:
    for check in (as_count, as_number, as_flag):
        with pytest.raises(FeatureError, match="size must be"):
            check("size", value)


@given(st.lists(st.floats(0.01, 8), min_size=1))
def test_scales_of_every_container(scales: list[float]) -> None:
    assert as_scales(scales) == as_scales(np.array(scales)) == as_scales(tuple(scales))


# ---- images ----


def said(image: Any, detector: SuperPointFeature2D) -> str:
    """What the error says, the same from every method."""
    messages = set()
    for call in (
        detector.extract,
        lambda one: detector.detectAndCompute(one, None),
        lambda one: detector.compute(one, [cv2.KeyPoint(1, 1, 8)]),
        lambda one: detector.extractBatch([one]),
        lambda one: next(detector.extractStream([one])),
    ):
        with pytest.raises(FeatureError) as caught:
            call(image)
        messages.add(str(caught.value))
    (message,) = messages
    return message


def converted(image: Any, message: str) -> np.ndarray:
    """What the conversion that the error names makes of the image."""
    code = message.split("with ")[-1].split(" if it lies")[0]
    names = {"image": image, "np": np, "cv2": cv2, "cv_superpoint": cv_superpoint}
    result = eval(code, names)
    assert result.dtype == np.uint8
    return result


RGB_MODES = ("RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV")


@pytest.mark.parametrize("mode", [*RGB_MODES, "L", "1", "I;16", "I", "F", "LA"])
def test_pictures_of_pil(mode: str, bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    rgb = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    wide = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    image = {"I;16": wide, "I": wide.convert("I")}.get(mode) or rgb.convert(mode)
    message = said(image, detector)
    assert f"Image {mode}" in message
    result = converted(image, message)
    expected = np.asarray(image.convert("RGB"))[..., ::-1] if mode[0] not in "IF" else bgr
    if result.ndim == 2:
        expected = np.asarray(rgb.convert("1" if mode == "1" else "L"))
        expected = expected * np.uint8(255) if mode == "1" else expected
    np.testing.assert_allclose(result, expected, atol=1)


def test_tensors_of_torch(bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    whole = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)
    share = whole / 255
    for image in (whole, share, share[None], share.double(), share.clone().requires_grad_()):
        message = said(image, detector)
        assert "got torch.Tensor torch." in message
        assert "(C, H, W), RGB" in message
        np.testing.assert_array_equal(converted(image, message), bgr)


def test_grey_tensors_of_torch(grey: np.ndarray, detector: SuperPointFeature2D) -> None:
    for image in (
        *(torch.from_numpy(grey), torch.from_numpy(grey)[None], torch.from_numpy(grey) / 255),
        torch.from_numpy(grey)[None, None] / 255,
    ):
        np.testing.assert_array_equal(converted(image, said(image, detector)), grey)


@pytest.mark.parametrize("kind", [str, Path])
def test_names_of_files(
    kind: Any, tmp_path: Path, bgr: np.ndarray, detector: SuperPointFeature2D
) -> None:
    name = kind(tmp_path / "it's a picture.png")
    cv2.imwrite(str(name), bgr)
    message = said(name, detector)
    assert "it names a file; read it with cv2.imread(" in message
    np.testing.assert_array_equal(converted(name, message), bgr)
    assert "cv2.imread" in said("", detector)


def test_bytes_of_files(bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    file = io.BytesIO(cv2.imencode(".png", bgr)[1].tobytes())
    for data in (file.getvalue(), bytearray(file.getvalue()), file.getbuffer()):
        np.testing.assert_array_equal(converted(data, said(data, detector)), bgr)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("float32", 1 / 255), ("uint16", 257), ("uint16", 16), ("int32", 1), ("bool", 1)],
)
def test_arrays_of_other_types(
    kind: str, scale: float, grey: np.ndarray, detector: SuperPointFeature2D
) -> None:
    image = (grey > 128) if kind == "bool" else (grey * np.float64(scale)).astype(kind)
    result = converted(image, said(image, detector))
    expected = image * np.uint8(255) if kind == "bool" else grey
    np.testing.assert_array_equal(result, expected)


def test_arrays_of_channels_first(bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    image = np.ascontiguousarray(bgr.transpose(2, 0, 1))
    message = said(image, detector)
    assert "if it is (C, H, W), convert with image.transpose(1, 2, 0)" in message
    np.testing.assert_array_equal(image.transpose(1, 2, 0), bgr)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (cv2.cuda_GpuMat(), "image.download()"),
        (np.zeros((4, 4), complex), "an image is numbers"),
        (np.array("a"), "an image is numbers"),
        (3, "np.asarray(image)"),
    ],
    ids=["GpuMat", "complex", "text", "number"],
)
def test_other_things(image: Any, says: str, detector: SuperPointFeature2D) -> None:
    assert says in said(image, detector)


def test_lists_of_rows(detector: SuperPointFeature2D) -> None:
    for call in (detector.extract, lambda one: detector.detectAndCompute(one, None)):
        with pytest.raises(FeatureError, match="lists of images go to"):
            call([[1, 2], [3, 4]])


def test_nothing_is_said_to_be_nothing(detector: SuperPointFeature2D) -> None:
    with pytest.raises(FeatureError, match="cannot read a file: check its name"):
        detector.extract(cv2.imread("no such file.png"))


@pytest.mark.parametrize("wrong", ["grey", "bgr", "name", None, 3])
def test_one_image_where_several_are_meant(
    wrong: Any, grey: np.ndarray, bgr: np.ndarray, detector: SuperPointFeature2D
) -> None:
    images = {"grey": grey, "bgr": bgr}.get(wrong, wrong)
    for call in (detector.extractBatch, detector.extractStream):
        with pytest.raises(FeatureError, match="images must be several"):
            call(images)


def test_a_stack_is_several_images(bgr: np.ndarray, detector: SuperPointFeature2D) -> None:
    stack = np.stack([bgr, bgr[:, ::-1]])
    assert len(detector.extractBatch(stack)) == 2
    assert len(list(detector.extractStream(stack[..., 0]))) == 2
