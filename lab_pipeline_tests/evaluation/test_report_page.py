"""The evaluation report in a browser: on a telephone and on a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser tests need the package playwright")

from playwright.sync_api import Browser

from lab_pipeline_tests.browser import CHROMIUM, open_browser
from lab_pipeline_tests.evaluation.test_report import HOSTILE, evaluated, judged_answers, report_html

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need the program chromium"),
]

LEAVES = {
    "usual names": [f"compositional_skills/grounded/extraction/meeting_notes_{n}" for n in range(6)],
    "hostile names": HOSTILE,
}

TOO_WIDE = """() => {
    const page = document.documentElement.clientWidth
    const wide = [...document.querySelectorAll("body *")].filter(each => each.getBoundingClientRect().right > page + 0.5)
    return [document.documentElement.scrollWidth <= page, wide.map(each => each.outerHTML.slice(0, 80))]
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_in_the_report_is_wider_than_the_page(browser, tmp_path: Path, width, scheme, leaves):
    evaluation, details = evaluated(leaves)
    evaluation["judged"] = judged_answers(leaves[0])
    report = tmp_path / "report.html"
    report.write_text(report_html(evaluation, details), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(report.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate(TOO_WIDE) == [True, []]
    page.close()
