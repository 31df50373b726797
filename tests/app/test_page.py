"""The page end to end in Chromium: load, degrade, restore, compare, download, bad input; no request leaves."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pag_inverse.app.server import POLICY, AppRequest, launch
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8, write_png
from pag_inverse.settings import validated

gradio = pytest.importorskip("gradio", reason="gradio is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    f"--{flag}"
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    blocks = launch(AppRequest(port=0, max_side=100), tmp_path_factory.mktemp("app"))
    yield blocks.local_url
    blocks.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page as it is loaded; every address that it asked for is one of its own."""
    asked: list[str] = []
    found = browser.new_page(viewport={"width": 1280, "height": 900})
    found.set_default_timeout(30_000)
    found.on("request", lambda request: asked.append(request.url))
    found.goto(address)
    found.wait_for_selector("#preview img")
    yield found
    found.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def quick(page: Any) -> None:
    """3 steps at 64 pixels."""
    page.get_by_label("64 px square").check()
    page.get_by_text("Speed, steps and seed").click()
    page.locator("#steps").get_by_role("textbox").fill("3")


def choose(page: Any, task: str) -> None:
    page.locator("#task input").click()
    page.get_by_role("option", name=task).click()


def wait_for_status(page: Any, text: str) -> None:
    page.locator("#status").get_by_text(text).wait_for()


def wait_for_toast(page: Any, text: str) -> None:
    """A toast of one line with this text; others may be there, too."""
    page.get_by_test_id("toast-text").filter(has_text=text).first.wait_for()


def command_of(page: Any, folder: Path) -> str:
    """The command line of the download."""
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(folder / "command.zip")
    with zipfile.ZipFile(folder / "command.zip") as archive:
        return archive.read("command.txt").decode()


@needs_chromium
def test_degrade_restore_compare_and_download(page: Any, tmp_path: Path) -> None:
    quick(page)
    choose(page, "2 times too small")
    page.locator("#samples input[type=number]").fill("2")
    page.get_by_label("Show what guidance does").check()
    page.locator("#restore").click()
    wait_for_status(page, "Done.")
    page.get_by_text("Side by side, residual, command line").click()
    page.locator("#explanation img").wait_for()
    page.locator("#compare img").nth(1).wait_for()
    assert page.locator("#deviation img").is_visible() and not page.locator("#live").is_visible()
    text = page.locator("#text").inner_text()
    assert "PSNR" in text and "Residual" in text
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        archive.extractall(tmp_path)
    settings = json.loads((tmp_path / "manifest.json").read_text())["settings"]
    assert (settings["task"], settings["steps"], settings["size"]) == ("super_resolution_x2", 3, 64)
    assert (settings["samples"], settings["solver"], settings["seed"]) == (2, "diffpir", 0)
    assert PIL.Image.open(tmp_path / "astronaut_restoration.png").size == (64, 64)
    assert PIL.Image.open(tmp_path / "astronaut_measurement.png").size == (32, 32)
    assert np.load(tmp_path / "astronaut_std.npy").shape == (3, 64, 64)


@needs_chromium
def test_a_hole_is_painted_and_bad_input_is_a_toast(page: Any, tmp_path: Path) -> None:
    page.get_by_label("is degraded: restore it as it is").check()
    choose(page, "A part is missing")
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "notes.png")
    wait_for_toast(page, "notes.png: not an image of a kind that Pillow reads")
    page.locator("#upload [aria-label='Clear']").first.click()
    write_png(tmp_path / "large.png", np.zeros((8, 120, 3), np.uint8))
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "large.png")
    wait_for_toast(page, "large.png has 120 x 8 pixels; this page takes at most 100 a side")
    page.locator("#upload [aria-label='Clear']").first.click()
    write_png(tmp_path / "scratched.png", prepare(bundled_photograph("coffee"), 64))
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "scratched.png")
    canvas = page.locator("#painted canvas").first
    canvas.wait_for()
    time.sleep(1)
    page.get_by_text("Speed, steps and seed").click()
    page.locator("#steps").get_by_role("textbox").fill("3")
    page.locator("#restore").click()
    wait_for_toast(page, "nothing is marked as missing: paint over it")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=5)
    page.mouse.up()
    page.locator("#sigma").get_by_role("textbox").fill("many")
    page.locator("#restore").click()
    wait_for_toast(page, "sigma is 'many'; it must be a number, or empty")
    page.locator("#sigma").get_by_role("textbox").fill("0.02")
    page.locator("#restore").click()
    wait_for_status(page, "Done.")
    page.locator("#compare img").nth(1).wait_for()
    assert "PSNR" not in page.locator("#text").inner_text()


@needs_chromium
def test_a_mask_whose_white_is_missing_and_a_colour(page: Any, tmp_path: Path) -> None:
    """The command line has what was chosen; a convention that is likely wrong is told."""
    page.get_by_label("is degraded: restore it as it is").check()
    page.locator("#sigma").get_by_text("Empty: estimated from the picture.").wait_for()
    choose(page, "A part is missing")
    marked = np.asarray(PIL.Image.fromarray(to_uint8(prepare(bundled_photograph("coffee"), 64)))).copy()
    marked[20:30, 20:30] = (255, 0, 255)
    white = np.zeros((64, 64), np.uint8)
    white[20:30, 20:30] = 255
    PIL.Image.fromarray(marked).save(tmp_path / "marked.png")
    PIL.Image.fromarray(white).save(tmp_path / "mask.png")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "marked.png")
    page.locator("#painted canvas").first.wait_for()
    page.get_by_text("Speed, steps and seed").click()
    page.locator("#steps").get_by_role("textbox").fill("2")
    page.locator("#sigma").get_by_role("textbox").fill("0.02")
    page.locator("#mask input[type=file]").set_input_files(tmp_path / "mask.png")
    page.locator("#mask").get_by_text("mask.png").wait_for()
    page.locator("#restore").click()
    wait_for_status(page, "Done.")
    assert "white-missing takes white as missing" in page.locator("#text").inner_text()
    page.locator("#mask_convention").get_by_label("is missing").check()
    page.locator("#restore").click()
    page.locator("#text").get_by_text("white-missing takes").wait_for(state="detached")
    wait_for_status(page, "Done.")
    assert "--mask-convention white-missing" in command_of(page, tmp_path)
    page.locator("#mask [aria-label='Clear']").first.click()
    page.locator("#remove_colour").get_by_role("textbox").fill("#ff00ff")
    page.locator("#restore").click()
    page.locator("#text").get_by_text("#ff00ff and 2 pixels around it are the hole").wait_for()
    assert "--remove-colour '#ff00ff'" in command_of(page, tmp_path)


@needs_chromium
def test_a_restoration_is_stopped(page: Any) -> None:
    page.get_by_label("64 px square").check()
    page.get_by_text("Speed, steps and seed").click()
    page.locator("#steps").get_by_role("textbox").fill("1000")
    page.locator("#restore").click()
    page.locator("#live img").wait_for()
    page.locator("#stop").click()
    wait_for_status(page, "Stopped. The picture is unfinished.")
    page.locator("#steps").get_by_role("textbox").fill("2")
    page.locator("#restore").click()
    wait_for_status(page, "Done.")


@needs_chromium
def test_a_visitor_who_waits_can_stop(page: Any, browser: Any, address: str) -> None:
    """The one who waits leaves the queue at once; the restoration of the other goes on."""
    other = browser.new_page()
    other.set_default_timeout(30_000)
    other.goto(address)
    other.wait_for_selector("#preview img")
    for visitor in (other, page):
        quick(visitor)
    other.locator("#steps").get_by_role("textbox").fill("1000")
    other.locator("#restore").click()
    other.locator("#live img").wait_for()
    for stopping in (page, other):
        page.locator("#restore").click()
        wait_for_status(page, "Waiting: 1 restoration before yours.")
        stopping.locator("#stop").click()
        wait_for_status(stopping, "Stopped.")
        if stopping is page:
            other.locator("#status").get_by_text("of 1000").wait_for()
    wait_for_status(page, "Done.")
    other.close()


def test_the_page_refuses_other_addresses(address: str) -> None:
    from urllib.request import urlopen

    assert address.startswith("http://127.0.0.1:")
    with urlopen(address) as answer:
        assert answer.headers["content-security-policy"] == POLICY
        html = answer.read().decode()
    assert "stylesheet" in html and 'src="http' not in html and 'href="http' not in html


def test_bad_flags_are_one_line(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pag_inverse.cli.app import main

    taken = address.rstrip("/").rpartition(":")[2]
    for arguments, message in (
        (["--port", taken], f"port {taken} of 127.0.0.1 cannot be used"),
        (["--port", "70000"], "port is 70000"),
        (["--max-side", "2"], "max_side is 2"),
        (["--max-upload", "0"], "max_upload is 0"),
        (["--device", "abacus"], "device is 'abacus'"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_the_default_is_this_machine_alone() -> None:
    assert validated(AppRequest, {}).host == "127.0.0.1"
