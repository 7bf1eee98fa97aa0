"""The viewer in a real browser: click, sliders, upload, download; and what it computes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from cv_superpoint.decoding import Decoding
from cv_superpoint.matching.matchers import build_matcher
from cv_superpoint.viewer.analysis import COLUMNS, LoadedNetwork, Settings, analyse
from cv_superpoint.viewer.pictures import second_view, shrink_for_screen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def network() -> LoadedNetwork:
    return LoadedNetwork(device="cpu")


@pytest.fixture(scope="module")
def coffee() -> Any:
    return np.ascontiguousarray(skimage.data.coffee()[60:300, 150:470, ::-1])


def row(analysis: Any, name: str) -> dict[str, Any]:
    (found,) = (each for each in analysis.rows if each[0] == name)
    return dict(zip(COLUMNS, found, strict=True))


def test_what_is_shown(network: LoadedNetwork, coffee: Any) -> None:
    other, truth = second_view(coffee)
    settings = Settings(decoding=Decoding(score_threshold=0.01, max_keypoints=300))
    result = analyse(coffee, other, settings, network, truth)
    assert [each[0] for each in result.rows] == ["SuperPoint", "SIFT", "ORB"]
    ours = row(result, "SuperPoint")
    assert float(ours["corner error, px"]) < 3
    assert 20 < ours["inliers"] <= ours["matches"] <= ours["keypoints 1"] <= 300
    assert row(result, "SIFT")["inliers"] > 20
    assert result.heatmap.shape == coffee.shape
    assert all(picture.shape == (240, 640, 3) for picture in result.matches.values())
    with zipfile.ZipFile(io.BytesIO(result.download)) as archive:
        table = np.loadtxt(archive.open("matches.csv"), delimiter=",", skiprows=1)
        with np.load(io.BytesIO(archive.read("keypoints0.npz"))) as arrays:
            assert len(arrays["keypoints"]) == ours["keypoints 1"]
            rows = table[:, 0].astype(int)
            np.testing.assert_allclose(table[:, 2:4], arrays["keypoints"][rows], rtol=1e-5)
    assert table[:, 6].sum() == ours["inliers"]


def test_options_have_an_effect(network: LoadedNetwork, coffee: Any) -> None:
    small = np.ascontiguousarray(coffee[40:240, 80:320])
    other, truth = second_view(small)
    base = Settings(decoding=Decoding(score_threshold=0.005, max_keypoints=100))
    plain = row(analyse(small, other, base, network, truth), "SuperPoint")
    for changed in (
        {"matcher": build_matcher("ratio")},
        {"decoding": replace(base.decoding, nms_radius=12)},
        {"decoding": replace(base.decoding, max_keypoints=20)},
        {"decoding": replace(base.decoding, score_threshold=0.6)},
        {"decoding": replace(base.decoding, subpixel=False)},
        {"pyramid": True},
        {"matcher": build_matcher("guided")},
    ):
        settings = replace(base, **changed)
        figures = row(analyse(small, other, settings, network, truth), "SuperPoint")
        figures["ms"] = plain["ms"]
        assert figures != plain, changed


def test_refined_beside_plain(network: LoadedNetwork, coffee: Any) -> None:
    other, truth = second_view(coffee)
    settings = Settings(decoding=Decoding(score_threshold=0.01, max_keypoints=300), refine=True)
    result = analyse(coffee, other, settings, network, truth)
    names = [each[0] for each in result.rows]
    assert names == [
        f"{name}{more}" for name in ("SuperPoint", "SIFT", "ORB") for more in ("", ", refined")
    ]
    for name in ("SuperPoint", "SIFT"):
        plain, exact = row(result, name), row(result, f"{name}, refined")
        assert float(exact["corner error, px"]) < min(0.3, float(plain["corner error, px"]))
        assert exact["matches"] == plain["matches"]
    assert set(result.matches) == {"SuperPoint", "SIFT", "ORB"}


def test_flat_pictures_are_no_error(network: LoadedNetwork) -> None:
    flat = np.full((64, 80, 3), 127, np.uint8)
    result = analyse(flat, flat, Settings(decoding=Decoding(score_threshold=0.5)), network)
    assert [each[4] for each in result.rows] == [0, 0, 0]
    assert result.overlay.shape == flat.shape
    assert shrink_for_screen(np.zeros((100, 3200, 3), np.uint8)).shape == (50, 1600, 3)


# ---- the page ----


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, coffee: Any) -> Iterator[str]:
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("viewer")
    cv2.imwrite(str(folder / "one.png"), coffee)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cv_superpoint", "view", str(folder / "one.png")]
    command += ["--port", str(port), "--no-open-browser"]
    # A user's proxy must not stand between the page and this machine.
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, server.stderr.read() if server.stderr else ""
                assert time.monotonic() < end, "the viewer did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture
def compare(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the page's button does, without a browser: both pictures with their keypoints."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = pytest.importorskip("gradio_client")
    page = client.Client(address, verbose=False, download_files=str(tmp_path / "shown"))

    def call(*paths: Path) -> list[np.ndarray]:
        files = [client.handle_file(str(path)) for path in paths]
        options = (0.005, 4, 50, True, False, "mutual")
        shown = page.predict(*files, *options, api_name="/compare")
        return [cv2.imread(shown[index]) for index in (2, 3)]

    try:
        yield call
    finally:
        page.close()


def test_uploads_are_read_as_by_every_command(
    compare: Any, coffee: np.ndarray, tmp_path: Path
) -> None:
    turned, deep = tmp_path / "turned.tif", tmp_path / "deep.png"
    Image.fromarray(coffee[..., ::-1]).save(turned, tiffinfo={274: 6})  # a quarter clockwise
    # 12 bits in a file of 16: nearly black where they are only divided.
    cv2.imwrite(str(deep), coffee.astype(np.uint16) * 16)
    first, second = compare(turned, deep)
    for shown, expected in ((first, np.rot90(coffee, -1)), (second, coffee)):
        assert shown.shape == expected.shape
        assert np.median(np.abs(shown.astype(int) - expected)) < 10  # beside the keypoints


def test_uploads_that_are_damaged_are_said(
    compare: Any, coffee: np.ndarray, tmp_path: Path
) -> None:
    whole = cv2.imencode(".jpg", coffee)[1].tobytes()
    for name, data in (("cut.jpg", whole[: len(whole) // 2]), ("none.jpg", b"no picture" * 99)):
        (tmp_path / name).write_bytes(data)
    whole_file = tmp_path / "whole.jpg"
    whole_file.write_bytes(whole)
    with pytest.raises(Exception, match=r"^cut.jpg: the file is cut short; copy it again"):
        compare(tmp_path / "cut.jpg", whole_file)
    with pytest.raises(Exception, match=r"none.jpg"):
        compare(tmp_path / "none.jpg", whole_file)


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1800})
        # Nothing but this machine can be reached.
        page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url.startswith(address) else route.abort()
            ),
        )
        page.goto(address)
        page.locator("#compare").wait_for(timeout=300_000)
        yield page
        browser.close()


def figures(page: Any) -> dict[str, str]:
    """The first row of the table, as text."""
    cells = page.locator("#figures [role=gridcell]").all_inner_texts()[: len(COLUMNS)]
    return dict(zip(COLUMNS, map(str.strip, cells), strict=True))


def wait_for(page: Any, condition: Any) -> dict[str, str]:
    end = time.monotonic() + 300
    while True:
        try:
            found = figures(page)
            if found["detector"] == "SuperPoint" and condition(found):
                return found
        except ValueError:  # the table is being drawn
            found = {}
        assert time.monotonic() < end, found
        page.wait_for_timeout(200)


def test_click_slider_upload_download(page: Any, coffee: Any, tmp_path: Path) -> None:
    page.locator("#compare").click()
    first = wait_for(page, lambda found: int(found["matches"]) > 0)
    assert float(first["corner error, px"]) < 5  # the second view is ours: its truth is known
    page.locator("#matches img").wait_for(timeout=300_000)
    pictures = {
        name: page.locator(f"#{name} img").evaluate("image => image.naturalWidth")
        for name in ("keypoints0", "keypoints1", "matches", "overlay", "heatmap", "sift", "orb")
    }
    assert pictures == {
        **dict.fromkeys(("keypoints0", "keypoints1", "overlay", "heatmap"), 320),
        **dict.fromkeys(("matches", "sift", "orb"), 640),
    }
    page.screenshot(path=tmp_path / "compared.png", full_page=True)

    field = page.locator("#count input[type=number]")
    field.fill("20")
    field.press("Enter")
    page.locator("#compare").click()
    fewer = wait_for(page, lambda found: found["keypoints 1"] == "20")
    assert int(fewer["matches"]) <= 20

    slider = page.locator("#radius input[type=range]")
    slider.focus()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    wait_for(page, lambda found: found != fewer)

    shifted = tmp_path / "shifted.png"
    cv2.imwrite(str(shifted), np.roll(coffee, 25, axis=1))
    page.locator("#second input[type=file]").set_input_files(shifted)
    page.locator("#second img").wait_for(timeout=300_000)
    page.locator("#compare").click()
    wait_for(page, lambda found: found["corner error, px"] == "-")  # its truth is not known
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "matches.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["keypoints0.npz", "keypoints1.npz", "matches.csv"]
        table = np.loadtxt(archive.open("matches.csv"), delimiter=",", skiprows=1, ndmin=2)
    moved = table[table[:, 6] == 1][:, 4:6] - table[table[:, 6] == 1][:, 2:4]
    np.testing.assert_allclose(np.median(moved, axis=0), [25, 0], atol=0.5)
    page.screenshot(path=tmp_path / "uploaded.png", full_page=True)
