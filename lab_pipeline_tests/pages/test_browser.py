"""The pages in Chromium: reviewing by keys, writing a leaf, comparing models, and a home that means harm.

With axe-core in `node_modules` (`npm install axe-core`) each page is also checked for faults of accessibility.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import uvicorn

pytest.importorskip("playwright", reason="the browser tests need the package playwright")

from playwright.sync_api import Browser, Page, expect

from lab_pipeline.core.home import PROJECT, Home
from lab_pipeline.core.storage import write_json, write_text
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.app import build_app
from lab_pipeline.pages.links import page as path
from lab_pipeline.pages.server import listen
from lab_pipeline.registry.champion import promote
from lab_pipeline.reports.search import Query, find_row, find_rows, refreshed_leaves
from lab_pipeline.taxonomy.reviews import read_reviews
from lab_pipeline_tests.browser import CHROMIUM, open_browser
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE
from lab_pipeline_tests.datasets.filled import FilledHome
from lab_pipeline_tests.pages.hostile import LEAF, hostile_home
from lab_pipeline_tests.pages.test_hostile import every_page
from lab_pipeline_tests.registry.promotions import evaluation

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need the program chromium")

AXE = PROJECT / "node_modules" / "axe-core" / "axe.min.js"
T = TypeVar("T")
TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def apart(function: Callable[..., T], *given: Any) -> T:
    """Call a function in another thread: playwright has an event loop in this one."""
    with ThreadPoolExecutor() as threads:
        return threads.submit(function, *given).result()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    return apart(hostile_home, tmp_path_factory.mktemp("hostile"))


@contextmanager
def served(home: Home) -> Iterator[str]:
    """The address of the pages of a home, served in a thread."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(build_app(home, Access(frozenset({"127.0.0.1"}))), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def two_models(home: Home) -> None:
    for name, reference in (("one", "base"), ("other", "one")):
        found = evaluation(home, name, reference=reference)
        write_json(home.evaluations / "last.json", {**found, "inputs": "i"})
        write_json(home.evaluations / name / "details.json", {"gained": [], "lost": []})
        write_text(home.evaluations / name / "report.html", "<!doctype html><title>Report</title><h1>Report of then</h1>")
        promote(home, found)


def test_a_person_reviews_writes_and_compares(browser, lab, tmp_path):
    two_models(lab.home)
    kept = find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=KNOWLEDGE, status="kept")).rows
    first, second = (each["row"]["id"] for each in kept[:2])
    with served(lab.home) as address:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        said = watched(page)

        # from the overview to a row and its passage, by links alone
        page.goto(address)
        page.get_by_role("link", name="rows kept").click()
        page.get_by_label("Leaf or branch").fill(KNOWLEDGE)
        page.get_by_label("Leaf or branch").press("Enter")
        expect(page.get_by_text(f"of {len(kept)} rows.")).to_be_visible()
        assert "leaf=knowledge" in page.url
        page.get_by_role("link", name="Passage and origin").first.click()
        expect(page.locator("mark.support")).to_have_text(kept[0]["row"]["support"])
        page.go_back()

        # ban the first row by keys, the second by its button; undo the second
        page.keyboard.press("j")
        page.keyboard.press("b")
        page.keyboard.insert_text("not true")
        page.keyboard.press("Enter")
        expect(page.locator(f"[data-row='{first}'] .decided")).to_contain_text("not true")
        page.keyboard.press("j")
        expect(page.locator(f"[data-row='{second}']")).to_be_focused()
        page.locator(f"[data-row='{second}'] button[value=pin]").click()
        expect(page.locator(f"[data-row='{second}'] .said")).to_contain_text("Say why")
        page.locator(f"[data-row='{second}'] input[name=reason]").fill("an example")
        page.locator(f"[data-row='{second}'] button[value=pin]").click()
        expect(page.locator(f"[data-row='{second}'] .decided")).to_contain_text("pinned")
        page.keyboard.press("u")
        expect(page.locator(f"[data-row='{second}'] button[value=pin]")).to_be_visible()
        made = [(each.row, each.decision) for each in read_reviews(lab.home.root / "reviews.yaml")]
        assert made == [(first, "ban"), (second, "pin"), (second, "undo")]
        apart(lab.refresh, KNOWLEDGE)
        assert find_row(lab.home, KNOWLEDGE, first)["rule"] == "banned"

        # edit a leaf, see the wrong line, mend it, save the patch
        page.goto(address + path("edit", leaf=FREEFORM))
        editor = page.locator("#qna")
        right = editor.input_value()
        editor.fill(right.replace("task_description", "task_descriptoin"))
        line = next(number for number, text in enumerate(right.splitlines(), 1) if "task_description" in text)
        page.get_by_role("button", name=f"line {line}", exact=True).click()
        assert page.evaluate("() => document.activeElement.id") == "qna"
        editor.fill(right.replace("created_by: tester", "created_by: anna"))
        expect(page.locator("#problems")).to_contain_text("No problem found.")
        page.get_by_role("button", name="Preview seeds and passages").click()
        expect(page.locator("#preview article")).to_have_count(6)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save as patch").click()
        download.value.save_as(tmp_path / "leaf.patch")
        subprocess.run(["git", "apply", tmp_path / "leaf.patch"], cwd=lab.taxonomy, check=True)
        assert "created_by: anna" in (lab.taxonomy / FREEFORM / "qna.yaml").read_text()

        # compare two models, and read a report in its frame
        page.get_by_role("link", name="Models").click()
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("heading", name="Two models side by side")).to_be_visible()
        page.get_by_role("link", name="other").first.click()
        expect(page.frame_locator("iframe.report").get_by_text("Report of then")).to_be_visible()
        page.close()
    assert said.errors == [] and said.elsewhere(address) == []


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_a_hostile_home_runs_nothing_loads_nothing_and_fits(browser, hostile, width, scheme):
    with served(hostile.home) as address:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        said = watched(page)
        for name, query in [*every_page(hostile), ("reportfile", {"id": "other"})]:
            page.goto(address + path(name, **query))
            page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
            assert "hostile" not in page.title(), name
            assert not page.evaluate(TOO_WIDE), name
        page.goto(address + path("edit", leaf=LEAF))
        page.get_by_role("button", name="Preview seeds and passages").click()
        expect(page.locator("#preview article").first).to_be_visible()
        assert "hostile" not in page.title()
        page.close()
    assert said.elsewhere(address) == []
    assert [each for each in said.errors if "Content Security Policy" not in each and "sandbox" not in each] == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not in node_modules")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, lab, scheme):
    two_models(lab.home)
    with served(lab.home) as address:
        page = browser.new_page(color_scheme=scheme, bypass_csp=True)
        names = ("", "leaves", "rows", "rejects", "quality", "models", "edit")
        queries = {"leaf": {"key": KNOWLEDGE}, "compare": {"one": "one", "other": "other"}, "card": {"id": "one"}}
        row = find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=KNOWLEDGE)).rows[0]["row"]["id"]
        queries["row"] = {"leaf": KNOWLEDGE, "id": row}
        for name, query in {**{each: {} for each in names}, **queries}.items():
            page.goto(address + path(name, **query))
            page.add_script_tag(path=AXE)
            found = page.evaluate("() => axe.run().then(result => result.violations)")
            faults = [
                (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
            ]
            assert faults == [], name
        page.close()


class watched:
    """What a page says in the console, and what it asks for; not what the browser refused to ask for by the page's policy."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.requests.remove(request.url) if request.failure == "csp" else None)

    def elsewhere(self, address: str) -> list[str]:
        assert self.requests
        own = urlsplit(address).netloc
        return [url for url in self.requests if urlsplit(url).netloc != own]
