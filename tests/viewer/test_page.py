"""The viewer's page in a real browser: first screen, tabs, click, sliders, upload, download."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cv_superpoint.viewer.pictures import second_view

NAMES = ("superpoint", "superpoint-lite", "SIFT", "ORB")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, coffee: Any) -> Iterator[str]:
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("viewer")
    cv2.imwrite(str(folder / "one.png"), coffee)
    cv2.imwrite(str(folder / "two.png"), second_view(coffee)[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cv_superpoint", "view", "--port", str(port)]
    command += [str(folder / name) for name in ("one.png", "two.png")] + ["--no-open-browser"]
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
        shown = page.predict(*files, 50, api_name="/compare")
        return [cv2.imread(shown[index]) for index in (-3, -2)]

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
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """The page in a window of a size, when it shows what the command line asked for."""
    opened = []

    def call(width: int, height: int) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height})
        opened.append(page)
        # Nothing but this machine can be reached.
        page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url.startswith(address) else route.abort()
            ),
        )
        page.goto(address)
        page.locator("#figures td").first.wait_for(timeout=300_000)
        page.locator("#matches img").wait_for(timeout=300_000)
        return page

    yield call
    for page in opened:
        page.close()


def figures(page: Any) -> dict[str, dict[str, str]]:
    """The table as text: by detector, then by column."""
    head = page.locator("#figures th").all_inner_texts()
    cells = page.locator("#figures td").all_inner_texts()
    rows = (cells[start : start + len(head)] for start in range(0, len(cells), len(head)))
    return {each[0]: dict(zip(head, each, strict=True)) for each in rows}


def wait_for(page: Any, condition: Any) -> dict[str, dict[str, str]]:
    end = time.monotonic() + 120
    while True:
        try:
            found = figures(page)
            if tuple(found) == NAMES and condition(found["superpoint"]):
                return found
        except (KeyError, ValueError):  # the table is being drawn
            found = {}
        assert time.monotonic() < end, found
        page.wait_for_timeout(200)


def counts(found: dict[str, str]) -> tuple[str, ...]:
    """What does not change from run to run, as the time does."""
    return found["keypoints"], found["matches"], found["inliers"]


def open_tab(page: Any, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():  # on a phone, behind three dots
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    tab.click()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_first_screen(open_page: Any, size: tuple[int, int], tmp_path: Path) -> None:
    page = open_page(*size)
    # Compared without a click: matches and figures lie on the first screen, nothing beside it.
    assert tuple(figures(page)) == NAMES
    for name in ("#matches img", "#figures"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]
    scroll = page.evaluate("document.documentElement.scrollWidth")
    table = page.locator("#figures table").bounding_box()
    assert scroll <= size[0]
    assert table["x"] + table["width"] <= size[0]
    page.screenshot(path=tmp_path / "first.png")
    views = {
        "Side by side": {f"matches{index}": 640 for index in range(4)},
        "Overlay": {"overlay": 320, "slider": 320},
        "Keypoints": {"keypoints0": 320, "keypoints1": 320},
        "Heatmap": {"heatmap": 320},
        "Pictures": {"first": 320, "second": 320},
    }
    for tab, pictures in views.items():
        open_tab(page, tab)
        for name, width in pictures.items():
            image = page.locator(f"#{name} img").first
            image.wait_for(timeout=300_000)
            assert image.evaluate("image => image.naturalWidth") == width, name
        page.screenshot(path=tmp_path / f"{tab}.png", full_page=True)


def test_the_line_of_the_overlay_moves(open_page: Any) -> None:
    page = open_page(1280, 800)
    open_tab(page, "Overlay")
    box = page.locator("#slider img").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.wait_for_timeout(500)
    before = page.locator("#slider").screenshot()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, middle[1], steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    shown = [
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)
        for data in (before, page.locator("#slider").screenshot())
    ]
    # Left of the line is the warped picture 1, which is brighter than picture 2.
    width = shown[0].shape[1]
    part = np.s_[100:-40, width * 6 // 10 : width * 8 // 10]
    assert (shown[1] - shown[0])[part].mean() > 5


def test_click_slider_upload_download(open_page: Any, coffee: Any, tmp_path: Path) -> None:
    page = open_page(1280, 1200)
    first = figures(page)
    assert "error, px" not in first["superpoint"]  # the truth is unknown

    page.locator("#descriptors input").click()
    page.get_by_role("option", name="binary").click()
    before = counts(first["superpoint"])
    bits = wait_for(page, lambda found: counts(found) != before)

    slider = page.locator("#radius input[type=range]")
    slider.focus()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    before = counts(bits["superpoint"])
    wait_for(page, lambda found: counts(found) != before)

    field = page.locator("#count input[type=number]")
    field.fill("20")
    field.press("Enter")
    page.locator("#compare").click()
    fewer = wait_for(page, lambda found: found["keypoints"] == "20 / 20")
    assert all(int(each["matches"]) <= 21 for each in fewer.values())  # SIFT gives one more at ties

    shifted = tmp_path / "shifted.png"
    cv2.imwrite(str(shifted), np.roll(coffee, 25, axis=1))
    open_tab(page, "Pictures")
    page.locator('#second button[aria-label="Remove Image"]').click()
    page.locator("#compare").click()
    # The second view is ours: its truth is known.
    known = wait_for(page, lambda found: "error, px" in found)
    assert float(known["SIFT"]["error, px"]) < 5
    assert page.locator("#matches img").is_visible()

    open_tab(page, "Pictures")
    page.locator("#second input[type=file]").set_input_files(shifted)
    page.locator("#second img").wait_for(timeout=300_000)
    page.locator("#compare").click()
    wait_for(page, lambda found: "error, px" not in found)
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "matches.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["keypoints0.npz", "keypoints1.npz", "matches.csv"]
        table = np.loadtxt(archive.open("matches.csv"), delimiter=",", skiprows=1, ndmin=2)
    moved = table[table[:, 6] == 1][:, 4:6] - table[table[:, 6] == 1][:, 2:4]
    np.testing.assert_allclose(np.median(moved, axis=0), [25, 0], atol=0.5)


def test_options_that_do_not_go_together_are_shown(open_page: Any) -> None:
    page = open_page(1280, 800)
    for name, value in (("descriptors", "binary"), ("matcher", "flann")):
        page.locator(f"#{name} input").click()
        page.get_by_role("option", name=value, exact=True).click()
    page.get_by_text("does not take binary descriptors").first.wait_for(timeout=300_000)


def test_without_a_picture_the_page_asks_for_one(open_page: Any) -> None:
    page = open_page(1280, 800)
    open_tab(page, "Pictures")
    for name in ("first", "second"):
        page.locator(f'#{name} button[aria-label="Remove Image"]').click()
    page.locator("#compare").click()
    page.get_by_text("choose a first picture, in the tab Pictures").wait_for(timeout=300_000)
    assert page.locator("#first").is_visible()
