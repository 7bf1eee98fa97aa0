"""Values of every type become 8 bits that show the picture, and it is said how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_files import RGB, tiff

from cv_superpoint import FeatureError, SuperPointFeature2D, to_uint8
from cv_superpoint.pictures.depth import find_range
from cv_superpoint.pictures.reading import PictureError, load_picture

CAMERA = skimage.data.camera()[90:250, 180:380]
"""160 x 200 of a photograph that fills the range of 8 bits."""
KELVIN = 273.15 + CAMERA.astype(np.float64) * 0.1
"""The same as temperatures, from 0 to 25 degrees."""


def png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


WIDE = CAMERA.astype(np.uint16)
FILES: dict[str, tuple[bytes, str]] = {
    "16 bits": (png(WIDE * 257), "uint16 values, the upper 8 of 16 bits taken"),
    "14 bits": (png(WIDE << 6), "uint16 values, the upper 8 of 14 bits taken"),
    "12 bits": (png(WIDE << 4), "uint16 values, the upper 8 of 12 bits taken"),
    "10 bits": (png(WIDE << 2), "uint16 values, the upper 8 of 10 bits taken"),
    "8 bits in 16": (png(WIDE), "uint16 values, as they are"),
    "12 bits, TIFF": (tiff(WIDE << 4), "uint16 values, the upper 8 of 12 bits taken"),
    "12 bits, PGM": (
        b"P5\n200 160\n4095\n" + (WIDE << 4).astype(">u2").tobytes(),
        "uint16 values, the upper 8 of 12 bits taken",
    ),
    "0 is white": (
        tiff(65535 - WIDE * 257, photometric="miniswhite"),
        "uint16 values, the upper 8 of 16 bits taken",
    ),
    "float to 1": (
        tiff((CAMERA / 255).astype(np.float32)),
        "float32 values, 0 to 1 spread over 0 to 255",
    ),
    "double to 1": (tiff(CAMERA / 255), "float64 values, 0 to 1 spread over 0 to 255"),
    "float to 255": (
        tiff(CAMERA.astype(np.float32)),
        "float32 values, 0 to 255 spread over 0 to 255",
    ),
    "PFM": (
        cv2.imencode(".pfm", (CAMERA / 255).astype(np.float32))[1].tobytes(),
        "float32 values, 0 to 1 spread over 0 to 255",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_whose_values_fill_a_usual_range_are_their_8_bit_files(
    name: str, tmp_path: Path
) -> None:
    data, said = FILES[name]
    (tmp_path / "a").write_bytes(data)
    for grey in (False, True):
        picture = load_picture(tmp_path / "a", grey=grey)
        expected = CAMERA if grey else np.dstack([CAMERA] * 3)
        np.testing.assert_array_equal(picture.pixels, expected)
        assert picture.values == said
        assert picture.notes == (said,)


THERMAL = {
    "centikelvin": (KELVIN * 100).astype(np.uint16),
    "counts of 14 bits": (7000 + CAMERA.astype(np.uint16) * 3),
    "signed, below 0 too": (CAMERA.astype(np.int16) - 128) * 10,
    "signed, 0 and more": CAMERA.astype(np.int16) * 8 + 20000,
    "signed, 32 bits": (CAMERA.astype(np.int32) - 128) * 100000,
    "signed, 8 bits": (CAMERA.astype(np.int16) - 128).astype(np.int8),
    "kelvin": KELVIN.astype(np.float32),
    "celsius": (KELVIN - 273.15 - 10).astype(np.float32),
    "double": KELVIN,
    "above 1": (CAMERA / 255 * 40000).astype(np.float32),
}


@pytest.mark.parametrize("name", THERMAL)
def test_files_of_other_ranges_are_spread(name: str, tmp_path: Path) -> None:
    values = THERMAL[name]
    (tmp_path / "a.tif").write_bytes(tiff(values))
    picture = load_picture(tmp_path / "a.tif", grey=True)
    assert picture.values.startswith(f"{values.dtype} values, ")
    assert picture.values.endswith(" spread over 0 to 255")
    low, high = np.quantile(CAMERA, (0.001, 0.999))  # whatever the type, the same is spread
    expected = np.clip((CAMERA - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(picture.pixels, expected, atol=1.5)


def test_keypoints_of_a_thermal_picture_are_those_of_the_photograph(
    tmp_path: Path, detector: SuperPointFeature2D
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(THERMAL["centikelvin"]))
    found = detector.extract(load_picture(tmp_path / "a.tif").pixels)
    expected = detector.extract(CAMERA)
    assert len(found) >= 0.9 * len(expected) > 20
    apart = np.abs(found.keypoints[:, None] - expected.keypoints[None]).max(axis=2)
    assert np.mean(apart.min(axis=0) < 1) > 0.9


def test_colours_are_spread_together(tmp_path: Path) -> None:
    warm = (RGB.astype(np.uint16) + 1000) * 8
    (tmp_path / "a.tif").write_bytes(tiff(warm, photometric="rgb"))
    picture = load_picture(tmp_path / "a.tif")
    assert picture.values == "uint16 values, 8000 to 9984 spread over 0 to 255"
    expected = np.rint(RGB[..., ::-1] * 8.0 * (255 / (9984 - 8000))).clip(0, 255)
    np.testing.assert_allclose(picture.pixels, expected, atol=1)
    grey = load_picture(tmp_path / "a.tif", grey=True)
    assert grey.values == picture.values
    np.testing.assert_array_equal(grey.pixels, cv2.cvtColor(picture.pixels, cv2.COLOR_BGR2GRAY))


def test_an_alpha_channel_does_not_count(tmp_path: Path) -> None:
    alpha = np.full(RGB.shape[:2], 65535, np.uint16)
    values = np.dstack([RGB[..., ::-1].astype(np.uint16) << 4, alpha])
    (tmp_path / "a.png").write_bytes(png(values))
    picture = load_picture(tmp_path / "a.png")
    assert picture.values == "uint16 values, the upper 8 of 12 bits taken"
    np.testing.assert_array_equal(picture.pixels, RGB[..., ::-1])


def test_planes_of_16_bits_are_not_read_as_noise(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1)).astype(np.uint16) * 257
    (tmp_path / "a.tif").write_bytes(tiff(planes, photometric="rgb", planarconfig="separate"))
    picture = load_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, RGB[..., ::-1])
    assert picture.values == "uint16 values, the upper 8 of 16 bits taken"


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (CAMERA.astype(np.float16), {}),
        (np.zeros((8, 8, 5), np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}),
        (
            np.zeros((3, 8, 9), np.float32),
            {"photometric": "rgb", "planarconfig": "separate"},
        ),
    ],
)
def test_what_opencv_does_not_read_is_told(
    values: np.ndarray, options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, **options))
    with pytest.raises(PictureError, match=r"a\.tif: this OpenCV does not read TIFF files of \d x"):
        load_picture(tmp_path / "a.tif")


# ---- arrays ----


def test_defects_of_the_sensor_do_not_count() -> None:
    values = WIDE << 4
    values[::40, ::40] = 65535
    spread = to_uint8(values)
    ordinary = np.ones(CAMERA.shape, bool)
    ordinary[::40, ::40] = False
    np.testing.assert_array_equal(spread[ordinary], CAMERA[ordinary])


def test_what_was_not_measured_does_not_count() -> None:
    known = CAMERA[:, :120].astype(np.int16) - 128
    missing = np.full((160, 80), -32768, np.int16)
    spread = to_uint8(np.hstack([known, missing]))
    np.testing.assert_array_equal(spread[:, :120], to_uint8(known))
    assert not spread[:, 120:].any()
    floats = known.astype(np.float32)
    for nothing in (np.nan, np.inf, -np.inf, -3.4e38):
        beside = np.full((160, 80), nothing, np.float32)
        np.testing.assert_allclose(to_uint8(np.hstack([floats, beside])), spread, atol=1)


def test_bounds_of_ones_own() -> None:
    kelvin = KELVIN.astype(np.float32)
    degrees = to_uint8(kelvin, 263.15, 314.15)
    np.testing.assert_allclose(degrees, (kelvin - 263.15) * 5, atol=0.51)
    assert to_uint8(np.array([-5.0, 0.0, 10.0, 20.0, 25.0]), 0, 20).tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]
    assert to_uint8(np.array([[100, 200]], np.uint8), 100, 200).tolist() == [[0, 255]]
    above = to_uint8(kelvin, low=280.0)
    assert above[kelvin <= 280.0].max() == 0
    assert above.max() == 255


def test_uint8_and_bool() -> None:
    assert to_uint8(CAMERA) is CAMERA
    assert to_uint8(np.array([[True, False]])).tolist() == [[255, 0]]


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_flat_and_empty_images(kind: str) -> None:
    assert not to_uint8(np.full((4, 5), 700, kind)).any()
    assert to_uint8(np.zeros((0, 5), kind)).shape == (0, 5)
    star = np.full((200, 200), 700).astype(kind)
    star[50, 60] = 900
    assert to_uint8(star).max() == to_uint8(star)[50, 60] == 255


@pytest.mark.parametrize(
    ("image", "bounds", "message"),
    [
        (np.zeros((2, 2), complex), (), "whole or floating"),
        (np.array([["a"]]), (), "whole or floating"),
        (np.zeros((2, 2)), (1, 1), "low must be below high"),
        (np.zeros((2, 2)), (0, float("nan")), "low must be below high"),
    ],
)
def test_wrong_arguments(image: Any, bounds: Any, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        to_uint8(image, *bounds)


NUMBERS = (*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),)


@given(
    st.sampled_from((*NUMBERS, "float16", "float32", "float64")).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    )
)
def test_any_array_keeps_its_order(values: np.ndarray) -> None:
    result = to_uint8(values)
    assert result.shape == values.shape
    assert result.dtype == np.uint8
    usual = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    if values.dtype.kind == "f":
        usual &= np.abs(np.where(usual, values, 0).astype(float)) < 1e38
    order = np.argsort(values[usual], kind="stable")
    assert np.all(np.diff(result[usual][order].astype(int)) >= 0)


def test_large_images_are_sampled_evenly() -> None:
    values = np.tile(WIDE << 4, (12, 12))  # 4.6 million pixels
    assert find_range(values) == find_range(WIDE << 4)
