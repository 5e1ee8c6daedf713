from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.config.settings import NotificationSettings, Settings
from lab_pipeline.instructions.plan import LeafFailure
from lab_pipeline.reports import notifications
from lab_pipeline.reports.notifications import needs_attention, newly_quarantined, notify
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.webhook import SECRET, Webhook, webhook

VARIABLE = "LAB_TEST_WEBHOOK"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as opened:
        yield opened


def posted(monkeypatch: pytest.MonkeyPatch, url: str | None, text: str = "hello") -> list[str]:
    """What is said when `text` is posted to `url`."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if url is not None:
        monkeypatch.setenv(VARIABLE, url)
    said: list[str] = []
    notify(settings(), text, said.append)
    return said


def settings() -> Settings:
    return settings_for(Path("/t"), notifications=NotificationSettings(webhook_env=VARIABLE))


def test_a_message_arrives_as_slack_wants_it(hook, monkeypatch):
    assert posted(monkeypatch, hook.url, "Ünïcode \U0001f642 \udc80\n- line") == []
    ((content_type, body),) = hook.requests
    assert content_type == "application/json"
    assert json.loads(body) == {"text": "Ünïcode \U0001f642 \udc80\n- line"}


def test_a_contributors_text_can_call_nobody(hook, monkeypatch):
    posted(monkeypatch, hook.url, "<!channel> & <https://bad|good>")
    assert hook.texts == ["&lt;!channel&gt; &amp; &lt;https://bad|good&gt;"]


def test_without_a_setting_nothing_happens(hook, monkeypatch):
    monkeypatch.setenv(VARIABLE, hook.url)
    said: list[str] = []
    notify(settings_for(Path("/t")), "hello", said.append)
    assert said == [] and hook.requests == []


def test_a_first_failure_is_tried_again(hook, monkeypatch):
    hook.statuses = [500]
    assert posted(monkeypatch, hook.url) == []
    assert hook.texts == ["hello", "hello"]


@pytest.mark.parametrize("status", [500, 404, 429, 302])
def test_a_server_that_refuses_is_said_after_two_tries_without_its_url(hook, monkeypatch, status):
    hook.statuses = [status] * 5
    (said,) = posted(monkeypatch, hook.url)
    assert f"HTTP {status}" in said and VARIABLE in said
    assert SECRET not in said and "127.0.0.1" not in said
    assert len(hook.requests) == 2


def test_a_slow_server_costs_two_time_outs(hook, monkeypatch):
    monkeypatch.setattr(notifications, "_TIMEOUT_SECONDS", 0.2)
    hook.seconds = 2.0
    started = time.monotonic()
    (said,) = posted(monkeypatch, hook.url)
    assert time.monotonic() - started < 1.5
    assert "ReadTimeout" in said and SECRET not in said


def test_a_refused_connection_is_said(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (said,) = posted(monkeypatch, f"http://127.0.0.1:{port}/{SECRET}")
    assert "ConnectError" in said and SECRET not in said


@pytest.mark.parametrize("url", [None, "", SECRET, f"ftp://host/{SECRET}", f"http:///{SECRET}", f"http://[bad/{SECRET}"])
def test_a_variable_without_a_url_is_said(monkeypatch, url):
    (said,) = posted(monkeypatch, url)
    assert f"the environment variable {VARIABLE}" in said and SECRET not in said


@pytest.mark.parametrize("url", [f"http://host:99999/{SECRET}", f"http://host/\x07{SECRET}", f"http://ho st/{SECRET}"])
def test_what_only_looks_like_a_url_is_said(monkeypatch, url):
    (said,) = posted(monkeypatch, url)
    assert VARIABLE in said and SECRET not in said


def test_no_log_shows_the_url(hook, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        posted(monkeypatch, hook.url)
    assert hook.requests and SECRET not in caplog.text


def snapshot(**leaves: list[dict[str, Any]]) -> Snapshot:
    """A snapshot of leaves with these problems; a leaf with an error is quarantined."""
    rows = [
        {"leaf": leaf, "usable": not any(each["severity"] == "error" for each in problems), "problems": problems}
        for leaf, problems in leaves.items()
    ]
    return Snapshot("id", "", "", rows)


def problem(line: int, message: str, severity: str = "error") -> dict[str, Any]:
    return {"file": "leaf/qna.yaml", "line": line, "severity": severity, "message": message}


def test_a_leaf_is_named_when_it_is_quarantined_and_not_again():
    good, broken = snapshot(a=[], b=[]), snapshot(a=[problem(1, "long", "warning"), problem(3, "no seeds")], b=[])
    assert newly_quarantined(good, broken) == "Quarantined, not used until fixed:\n- a, leaf/qna.yaml:3: no seeds"
    assert newly_quarantined(None, broken) == newly_quarantined(good, broken)
    assert newly_quarantined(broken, broken) is None
    assert newly_quarantined(broken, good) is None
    both = snapshot(a=[problem(3, "no seeds")], b=[problem(4, "bad"), problem(5, "worse")])
    assert newly_quarantined(broken, both) == ("Quarantined, not used until fixed:\n- b, leaf/qna.yaml:4: bad (and 1 more)")


def test_after_ten_leaves_the_rest_is_counted():
    lines = newly_quarantined(None, snapshot(**{f"leaf{number}": [problem(1, "bad")] for number in range(13)})).split("\n")
    assert len(lines) == 12 and lines[-1] == "and 3 more"
    lines = newly_quarantined(None, snapshot(**{f"leaf{number}": [problem(1, "bad")] for number in range(10)})).split("\n")
    assert len(lines) == 11 and "more" not in lines[-1]


def test_attention_is_asked_for_at_the_third_failure_only():
    failures = [LeafFailure(f"leaf{attempts}", "HTTP 400", attempts, {}, "plan", "2026-01-01") for attempts in (1, 2, 3, 4)]
    assert needs_attention(failures, 3) == "Failed 3 times and needs attention:\n- leaf3: HTTP 400"
    assert needs_attention(failures[:2], 3) is None
