from __future__ import annotations

import pytest

from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.pages.access import Access

TOKEN = "t" * 20
URL = "https://lab.example.org/lab"


def test_on_this_machine_nobody_logs_in_and_every_name_of_it_is_a_host():
    access = Access.of(PagesSettings(), "127.0.0.1")
    assert access.hosts == {"127.0.0.1", "localhost", "[::1]"} and not access.tokens and access.prefix == ""


def test_elsewhere_tokens_and_the_address_are_needed(monkeypatch):
    with pytest.raises(LabError, match="needs a login token: set pages.tokens_env"):
        Access.of(PagesSettings(url=URL), "0.0.0.0")
    with pytest.raises(LabError, match="the environment variable LAB_TOKENS is not set"):
        Access.of(PagesSettings(url=URL, tokens_env="LAB_TOKENS"), "0.0.0.0")
    monkeypatch.setenv("LAB_TOKENS", f"anna:{TOKEN}")
    with pytest.raises(LabError, match="set pages.url"):
        Access.of(PagesSettings(tokens_env="LAB_TOKENS"), "0.0.0.0")
    with pytest.raises(LabError, match="pages.user_header is believed only of a proxy on this machine"):
        Access.of(PagesSettings(url=URL, tokens_env="LAB_TOKENS", user_header="X-User"), "::")
    access = Access.of(PagesSettings(url=URL, tokens_env="LAB_TOKENS"), "0.0.0.0")
    assert access.hosts == {"lab.example.org"} and access.prefix == "/lab"
    assert access.origins == {"https://lab.example.org"}


@pytest.mark.parametrize("entries", ["anna", "anna:short", f":{TOKEN}", f"anna:{TOKEN} bea:"])
def test_a_token_without_a_name_or_a_short_one_is_refused_without_being_shown(monkeypatch, entries):
    monkeypatch.setenv("LAB_TOKENS", entries)
    with pytest.raises(LabError, match=r"LAB_TOKENS, entry \d: expected NAME:TOKEN") as caught:
        Access.of(PagesSettings(tokens_env="LAB_TOKENS"), "127.0.0.1")
    assert "short" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_login_is_signed_and_that_of_another_server_does_not_count():
    one, other = (Access(frozenset({"h"}), tokens={TOKEN: "Änna. B"}) for _ in range(2))
    cookie = one.login(TOKEN)
    assert cookie and one.login(TOKEN[1:]) is None and one.login("") is None
    assert cookie != other.login(TOKEN) and one.form_token("a") != one.form_token("b") != other.form_token("b")


def test_only_pages_of_the_same_host_or_the_proxys_may_write():
    access = Access(frozenset({"h"}), origins=frozenset({"https://lab.example.org"}))
    assert access.may_write("h:3001", "http://h:3001") and access.may_write("h", "https://LAB.example.org")
    for origin in ("", "null", "http://h:3002", "http://h", "https://lab.example.org.evil.org", "http://evil/h:3001"):
        assert not access.may_write("h:3001", origin), origin
    assert not access.may_write("", "")


@pytest.mark.parametrize("url", ["lab.example.org", "ftp://h/", "https://h/?a", "https://h h/"])
def test_an_address_that_no_link_can_begin_with_is_refused(url):
    with pytest.raises(ValueError, match="url"):
        PagesSettings(url=url)
