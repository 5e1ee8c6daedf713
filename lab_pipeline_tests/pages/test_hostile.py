"""Nothing of a row, document or name is ever HTML, on any page."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from lab_pipeline.pages.access import Access
from lab_pipeline.reports.search import Query, find_rows, refreshed_leaves
from lab_pipeline_tests.builders import KNOWLEDGE
from lab_pipeline_tests.datasets.filled import FilledHome
from lab_pipeline_tests.pages.hostile import LEAF, SCRIPT, hostile_home
from lab_pipeline_tests.pages.visitor import Visitor


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> FilledHome:
    return hostile_home(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def visitor(lab: FilledHome) -> Visitor:
    return Visitor(lab.home, Access(frozenset({"127.0.0.1"})))


class Parsed(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def every_page(lab: FilledHome) -> Iterator[tuple[str, dict[str, object]]]:
    yield from (("", {}), ("leaves", {}), ("rows", {}), ("rejects", {}), ("quality", {}), ("models", {}), ("edit", {}))
    for leaf in (LEAF, KNOWLEDGE, f"{LEAF}/broken"):
        yield "leaf", {"key": leaf}
    for leaf in (LEAF, KNOWLEDGE):
        yield (
            "row",
            {"leaf": leaf, "id": find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=leaf)).rows[0]["row"]["id"]},
        )
        yield "edit", {"leaf": leaf}
        yield "rejects", {"leaf": leaf}
    yield "rows", dict.fromkeys(("text", "leaf", "rule", "judge", "stage", "status", "id"), SCRIPT)
    yield "leaves", {"text": SCRIPT, "status": SCRIPT}
    yield "compare", {"one": "one", "other": "other"}
    yield "report", {"id": "other"}
    yield "card", {"id": "other"}


def test_no_page_has_an_element_of_a_contributor(lab, visitor):
    seen = 0
    for name, query in every_page(lab):
        html = visitor.html(name, **query)
        seen += html.count("&lt;script&gt;")
        for tag, attributes in Parsed(html).elements:
            assert tag not in ("img", "style", "object", "embed", "base"), (name, tag)
            assert not any(each.startswith("on") or each == "style" for each in attributes), (name, attributes)
            for link in ("href", "src", "action", "hx-get", "hx-post"):
                begins = ("/", "#", "https://") if (name, tag) == ("card", "a") else ("/", "#")  # sources of a leaf are linked
                assert (attributes.get(link) or "/").startswith(begins), (name, attributes)
                assert not (attributes.get(link) or "").startswith("//"), (name, attributes)
            if tag == "script":
                assert (attributes.get("src") or "").startswith("/static/"), (name, attributes)
        assert "49{%" not in html, name
    assert seen > 100


def test_no_error_or_fragment_has_one(visitor, lab):
    row = find_rows(lab.home, refreshed_leaves(lab.home), Query(leaf=LEAF)).rows[0]["row"]["id"]
    answers = [
        visitor.html("leaf", 404, key=SCRIPT),
        visitor.html("report", 404, id=SCRIPT),
        visitor.html("card", 404, id=SCRIPT),
        visitor.html("edit", 404, leaf=SCRIPT),
        visitor.html("rows", 400, least=SCRIPT),
        visitor.send("check", key=SCRIPT, qna=f"{SCRIPT!r}: [", attribution=SCRIPT),
        visitor.send("review", 200, {"HX-Request": "true"}, leaf=LEAF, id=row, decision="ban", reason=SCRIPT),
    ]
    for answer in answers:
        assert 'onerror="' not in answer and "<script>" not in answer and "<img" not in answer
