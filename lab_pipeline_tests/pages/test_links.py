from __future__ import annotations

from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.home import Home
from lab_pipeline.pages.links import link, page, record_address
from lab_pipeline_tests.builders import settings_for


def test_a_leaf_is_in_the_query_and_nothing_empty_is():
    assert page("leaf", key="knowledge/../a?b&c#d <") == "/leaf?key=knowledge%2F..%2Fa%3Fb%26c%23d+%3C"
    assert page("rows", leaf="", least=None, most=0.0, number=1) == "/rows?most=0.0&number=1" and page("") == "/"


def test_links_begin_with_the_setting_else_where_the_pages_were_last_served(tmp_path):
    home, settings = Home.open(tmp_path), settings_for(tmp_path)
    assert link(home, settings, "leaf", key="a/b") == "http://127.0.0.1:3001/leaf?key=a%2Fb"
    record_address(home, "http://127.0.0.1:4001")
    assert link(home, settings, "quality") == "http://127.0.0.1:4001/quality"
    proxied = settings_for(tmp_path, pages=PagesSettings(url="https://h.example/lab/"))
    assert link(home, proxied, "quality") == "https://h.example/lab/quality"
