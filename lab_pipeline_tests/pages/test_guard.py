"""Other sites, hosts and persons get nothing from the pages, and each response forbids what a page never needs."""

from __future__ import annotations

import getpass

import pytest
from starlette.routing import Route

from lab_pipeline.pages.access import Access
from lab_pipeline.pages.app import build_app
from lab_pipeline.pages.guard import POLICY, REPORT_POLICY
from lab_pipeline.taxonomy.reviews import read_reviews
from lab_pipeline_tests.builders import KNOWLEDGE
from lab_pipeline_tests.pages.visitor import ADDRESS, LOCAL, Visitor

TOKEN = "correct-horse-battery-staple"
LOGIN = Access(
    hosts=frozenset({"lab.example.org"}),
    tokens={TOKEN: "Anna"},
    prefix="/lab",
    origins=frozenset({"https://lab.example.org"}),
)


@pytest.mark.parametrize("path", ["/", "/rows", "/nothing", "/static/pages.css", "/row?leaf=x&id=y", "/report?id=x"])
def test_every_response_forbids_scripts_from_elsewhere_frames_and_caches(visitor, path):
    headers = visitor.client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY and "script-src 'self';" in POLICY and "default-src 'none'" in POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "same-origin"


def test_a_report_may_run_nothing():
    assert "script" not in REPORT_POLICY and "sandbox;" in REPORT_POLICY and "default-src 'none'" in REPORT_POLICY


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.org",
        "127.0.0.1.evil.org",
        "evil.org:3001",
        "",
        "127.0.0.1@evil.org",
        "127.0.0.1:1@evil.org",
        "[",
        "[::1",
        "evil.org/127.0.0.1",
    ],
)
def test_a_page_that_calls_this_machine_by_its_own_name_reads_nothing(visitor, host):
    answer = visitor.client.get("/rows", headers={"Host": host})
    assert answer.status_code == 421 and "islands" not in answer.text


def test_the_port_of_the_host_does_not_matter(visitor):
    assert visitor.client.get("/rows", headers={"Host": "127.0.0.1:9999"}).status_code == 200


FORMS = ["/review", "/check", "/preview", "/save", "/login", "/logout"]


def test_the_forms_named_here_are_all(lab):
    app = build_app(lab.home, LOCAL)
    posts = [route.path for route in app.routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    assert sorted(posts) == sorted(FORMS)


@pytest.mark.parametrize("path", FORMS)
def test_no_form_of_another_site_is_taken(visitor, lab, path):
    fields = {"leaf": KNOWLEDGE, "id": "x", "decision": "ban", "reason": "r", "key": KNOWLEDGE}
    token = visitor.client.app.state.access.form_token(getpass.getuser())
    for origin in ({}, {"Origin": "null"}, {"Origin": "http://evil.org"}, {"Origin": "http://127.0.0.1:8000"}):
        assert visitor.client.post(path, data={**fields, "token": token}, headers=origin).status_code == 403
    for forged in ({}, {"token": ""}, {"token": "0" * 64}):
        assert visitor.client.post(path, data={**fields, **forged}, headers={"Origin": ADDRESS}).status_code == 403
    assert visitor.client.get(path).status_code in (200, 405)
    assert read_reviews(lab.home.root / "reviews.yaml") == []


def test_a_form_of_many_megabytes_is_refused(visitor):
    answer = visitor.client.post("/check", content=b"qna=" + b"x" * (5 << 20), headers={"Origin": ADDRESS})
    assert answer.status_code == 413


def test_without_a_login_nobody_reads(lab):
    stranger = Visitor(lab.home, LOGIN, "https://lab.example.org")
    for path in ("/", "/rows", "/row?leaf=x&id=y", "/leaf?key=x", "/report?id=x", "/reportfile?id=x", "/edit", "/nothing"):
        answer = stranger.client.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/lab/login"), path
    assert stranger.client.post("/check", data={}, headers={"Origin": "https://lab.example.org"}).status_code == 401
    for forged in (f"Anna.{'0' * 64}", "Anna.ä", "Anna", ".", ""):
        cookie = f"{LOGIN.cookie}={forged}".encode()
        assert stranger.client.get("/rows", headers=[(b"cookie", cookie)]).status_code == 303


def test_who_logs_in_comes_to_the_page_that_was_wanted_and_reviews_in_their_name(lab):
    anna = Visitor(lab.home, LOGIN, "https://lab.example.org")
    wanted = anna.client.get("/rows?text=a&status=kept").headers["location"]
    assert wanted == "/lab/login?to=rows%3Ftext%3Da%26status%3Dkept"
    origin = {"Origin": "https://lab.example.org"}
    form = {"token": LOGIN.form_token(""), "to": "rows?text=a&status=kept"}
    assert anna.client.post("/login", data={**form, "secret": "wrong"}, headers=origin).status_code == 403
    answer = anna.client.post("/login", data={**form, "secret": TOKEN}, headers=origin)
    assert answer.status_code == 303 and answer.headers["location"] == "/lab/rows?text=a&status=kept"
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Secure", "Path=/lab"))
    anna.client.cookies.clear()
    anna.client.headers["Cookie"] = cookie.partition(";")[0]
    assert "Anna" in anna.html("rows") and 'href="/lab/static/pages.css"' in anna.html("rows")
    assert (
        anna.client.post("/logout", data={"token": LOGIN.form_token("Anna")}, headers=origin).headers["location"]
        == "/lab/login"
    )


@pytest.mark.parametrize(
    "to", ["//evil.org", "/evil.org", "\\evil.org", "https://evil.org", "rows\r\nX: y", "../x", "javascript:x"]
)
def test_a_login_leads_nowhere_else(lab, to):
    anna = Visitor(lab.home, LOGIN, "https://lab.example.org")
    form = {"token": LOGIN.form_token(""), "secret": TOKEN, "to": to}
    answer = anna.client.post("/login", data=form, headers={"Origin": "https://lab.example.org"})
    assert answer.headers["location"] == "/lab/"


def test_a_proxy_names_the_person_and_without_a_name_nobody_reads(lab):
    behind = Visitor(lab.home, Access(frozenset({"127.0.0.1"}), user_header="X-User"))
    assert behind.client.get("/rows").status_code == 403
    assert "Bea" in behind.client.get("/rows", headers={"X-User": "Bea"}).text


def test_a_defect_shows_no_traceback(lab, monkeypatch):
    monkeypatch.setattr("lab_pipeline.pages.quality.TABLES", None)
    visitor = Visitor(lab.home)
    with pytest.raises(AttributeError):
        visitor.client.get("/quality")
    visitor.client._transport.raise_server_exceptions = False
    assert visitor.client.get("/quality").text == "The server failed; its log says where."


def test_an_unknown_page_and_an_unknown_leaf_are_said(visitor):
    assert "There is no such page." in visitor.text("nothing", 404)
    assert "did you mean knowledge/places/islands" in visitor.text("leaf", 404, key="knowledge/places/island")
