"""Headless Chromium, and in it the Dagster UI of a home as a person uses it, with webserver and daemon by `lab-pipeline ui`."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from lab_pipeline.core.home import PROJECT, Home

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
_SIZE = (1100, 650)
_START_SECONDS = 120
_RUN_SECONDS = 240


@dataclass
class Ui:
    """A browser on the UI."""

    url: str
    page: Page
    pictures: Path
    """Folder of the screenshots."""

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def button(self, text: str) -> Locator:
        """The button with this text; of several the last one, for dialogs come last."""
        return self.page.locator("button").filter(has_text=re.compile(f"^{re.escape(text)}$")).last

    def shows(self, *texts: str) -> None:
        """Each text is on the page, in full though the UI may cut it to fit."""
        for text in texts:
            expect(self.page.locator("body")).to_contain_text(text)

    def launch(self, button: str, ends: str) -> str:
        """Click a button that launches a run, follow it to its page, and wait until it ends with this status.

        Returns its id.
        """
        self._launch(button)
        expect(self.page.locator(".BaseTag").get_by_text(ends, exact=True)).to_be_visible(timeout=_RUN_SECONDS * 1000)
        return self.page.url.rsplit("/", 1)[1]

    def launch_backfill(self, ends: str) -> None:
        """The same for a backfill over all partitions of the assets on the page."""
        self.button("Materialize all…").click()
        self.button("All").click()
        self._launch("Launch backfill")
        status = self.page.locator("//*[text()='Status']/following::*[contains(@class, 'BaseTag')][1]")
        expect(status).to_have_text(ends, timeout=_RUN_SECONDS * 1000)

    def _launch(self, button: str) -> None:
        self.button(button).click()
        notice = self.page.locator("[data-sonner-toast] a").last
        notice.click()
        self.page.wait_for_url("**/runs/**")
        self.page.mouse.move(0, 0)  # under the mouse the notice would stay

    def choose_partition(self, partition: str) -> None:
        """In the dialog that asks for partitions."""
        self.page.get_by_text("Select a partition").click()
        self.page.get_by_text(partition, exact=True).first.click()
        self.page.keyboard.press("Escape")

    def launchpad_errors(self, job: str, config: str) -> str:
        """What the launchpad of a job says about this YAML; the button that would launch it is then disabled."""
        self.open(f"/locations/lab_pipeline/jobs/{job}")
        self.page.locator("[aria-label=arrow_drop_down]").first.click()
        self.page.get_by_text("Open launchpad", exact=True).click()
        expect(self.page.get_by_text("No errors")).to_be_visible()
        self.page.locator(".CodeMirror textarea").last.focus()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(config)
        expect(self.page.get_by_text("No errors")).to_be_hidden()
        expect(self.button("Materialize")).to_be_disabled()
        return self.page.get_by_text("Errors", exact=True).first.locator("xpath=../..").inner_text()

    def picture(self, name: str, width: int = _SIZE[0], height: int = _SIZE[1]) -> None:
        """Save a screenshot, small enough for a README."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(1500)  # graphs and charts move to their new places
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self.pictures.mkdir(parents=True, exist_ok=True)
        small = shot.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # keeps small coloured marks
        small.save(self.pictures / f"{name}.png", optimize=True)


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_ui(home: Home, pictures: Path) -> Iterator[Ui]:
    """The UI with its daemon on a prepared home, and a browser on it; both are ended with all their processes."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with (home.root / "ui.log").open("wb") as log:
        server = psutil.Popen(
            [sys.executable, "-m", "lab_pipeline.cli.app", "ui", "--home", str(home.root), "--port", str(port)],
            cwd=PROJECT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(url, home)
        with open_browser() as browser:
            page = browser.new_page(viewport={"width": _SIZE[0], "height": _SIZE[1]})
            page.set_default_timeout(30_000)
            expect.set_options(timeout=30_000)
            page.goto(url)
            page.get_by_text("Hide navigation").click()  # the browser remembers it
            yield Ui(url, page, pictures)
    finally:
        for process in [*server.children(recursive=True), server]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


def _free_port() -> int:
    """A port that is free, as is the next one, on which the pages are served."""
    while True:
        with socket.socket() as probe, socket.socket() as pages:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with suppress(OSError, OverflowError):
                pages.bind(("127.0.0.1", port + 1))
                return port


def _wait_for(url: str, home: Home) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/server_info").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise TimeoutError(f"the UI did not answer within {_START_SECONDS} s; see {home.root / 'ui.log'}")
