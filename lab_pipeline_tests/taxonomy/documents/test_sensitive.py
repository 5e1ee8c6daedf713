from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.config.settings import DocumentSettings, Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import PROJECT, Home
from lab_pipeline.taxonomy.documents.blocks import Block
from lab_pipeline.taxonomy.documents.reading import Document, read_document
from lab_pipeline.taxonomy.documents.sensitive import (
    ALLOWED,
    find_sensitive,
    refused_hosts,
    sensitive_problems,
)
from lab_pipeline.taxonomy.snapshot import check_recipients, take_snapshot
from lab_pipeline.taxonomy.source import taxonomy_state
from lab_pipeline_tests.builders import FREEFORM, KNOWLEDGE, settings_for, write_taxonomy

SENSITIVE = [
    ("The key is AKIAQWERTYUIOPASDFGH, keep it.", "a secret (AWS Access Key)"),
    ("-----BEGIN RSA PRIVATE KEY-----", "a secret (Private Key)"),
    ("Clone https://anna:s3cr3tpw@git.our.org/x first.", "a secret (Basic Auth Credentials)"),
    ("password = 'hunter2abc'", "a secret (quoted beside a keyword)"),
    ("use ghp_0123456789abcdefghijABCDEFGHIJ012345 here", "a secret (GitHub Token)"),
    ("Write to anna.donsk@thalveren.org.", "an e-mail address"),
    ("[Anna](mailto:anna@thalveren.org)", "an e-mail address"),
    ("Ring +41 44 668 18 00 before noon.", "a telephone number"),
    ("Card 4111 1111 1111 1111, please.", "a payment card's number"),
    ("Card 378282246310005.", "a payment card's number"),
    ("Pay to DE89 3704 0044 0532 0130 00 at once.", "a bank account's number (IBAN)"),
    ("Pay to GB82WEST12345698765432.", "a bank account's number (IBAN)"),
    ("Pay to BE31 4354 1116 1155 BIC GEBABEBB.", "a bank account's number (IBAN)"),
    ("IBAN: NO93 8601 1117 947 or by cheque.", "a bank account's number (IBAN)"),
    ("Card 6011-1111-1111-1117.", "a payment card's number"),
    ("Her number is 536-22-1234.", "a social security number (US)"),
]
HARMLESS = [
    "The password must be changed every 90 days.",
    "The secret: 'it' was love; her password is \"<your password>\"; token = '${TOKEN}'.",
    "Write to anna@example.org or to clerk@town.example.",
    "ISBN 978-3-16-148410-0, DOI 10.1000/182, arXiv 2412.13337v2.",
    "Card 4111 1111 1111 1112 has a wrong check digit; 0000 0000 0000 0000 has none.",
    "Its area is 4111111111111111.5 square metres.",
    "DE89 3704 0044 0532 0130 01 is no account; nor is XX46 3704 0044 0532 0130 00, of a country that there is not.",
    "Reigned 1834-1902; +12 % in 1901; 3 + 4 = 7; 2024-05-17T10:00:00+02:00.",
    "commit b68fd0b4a1f0b2c9d8e7f6a5b4c3d2e1f0a9b8c7, hash d41d8cd98f00b204e9800998ecf8427e",
    "The decorator @property and the handle @anna are no addresses.",
    "git clone git@github.com:our/taxonomy.git",
    "Part 123-45-67890 and 000-12-3456; 078-05-1120 was printed in every wallet.",
]


def read(text: str, name: str = "notes.txt") -> Document:
    return read_document(name, "c", text.encode(errors="replace"))


def found_in(text: str, name: str = "notes.txt") -> list[tuple[int, str]]:
    return [(match.line, match.kind) for match in find_sensitive(read(text, name))]


@pytest.mark.parametrize(("line", "kind"), SENSITIVE)
def test_what_should_not_leave_the_house_is_found_at_its_line(line, kind):
    assert found_in(f"# Title\n\n{line}\nThe end.\n") == [(3, kind)]
    assert found_in(f"One.\n{line} <!-- {ALLOWED} -->") == []


MARKED_UP = [
    ("Write to anna\\@thalveren.org.", (1, "an e-mail address")),
    ("One.\nWrite to anna&#64;thalveren.org.", (1, "an e-mail address")),
    ("One.\n\nCard 4111 1111\n1111 1111, please.", (3, "a payment card's number")),
    ("One.\n\n- Card 4111 **1111** 1111 1111.", (3, "a payment card's number")),
    ("# Write to anna@thalveren.org\n\nOne.", (1, "an e-mail address")),
    ("| Who | Address |\n|---|---|\n| Anna | anna@thalveren.org |", (3, "an e-mail address")),
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Card 4111 1111\u200b 1111 1111.", "a payment card's number"),
        ("Card 4111\u00ad1111\u00ad1111\u00ad1111.", "a payment card's number"),
        ("Card 4111\u20111111\u20111111\u20111111.", "a payment card's number"),
        ("Card ４１１１ １１１１ １１１１ １１１１.", "a payment card's number"),
        ("Number 536‑22‑1234.", "a social security number (US)"),
        ("Write to anna@thal\u200bveren.org.", "an e-mail address"),
        ("E-Mail:anna@thalveren.org", "an e-mail address"),
        ("邮箱：anna@thalveren.org", "an e-mail address"),
        ("The key is AKIA\u2060QWERTYUIOPASDFGH.", "a secret (AWS Access Key)"),
    ],
)
def test_characters_that_nobody_sees_and_their_lookalikes_hide_nothing(text, kind):
    assert found_in(f"One.\n\n{text}\nTwo.") == [(3, kind)]
    assert found_in(f"| A |\n|---|\n| {text} |", "notes.md") == [(3, kind)]


@pytest.mark.parametrize(("text", "found"), MARKED_UP)
def test_what_is_found_is_what_the_teacher_would_be_sent_not_how_the_source_writes_it(text, found):
    assert found_in(text, "notes.md") == [found]


def test_what_is_not_sent_is_not_searched():
    assert found_in("Ask [Anna](mailto:anna@thalveren.org).\n\n<!-- bea@thalveren.org -->", "notes.md") == []


def test_a_mark_on_either_line_allows_a_number_over_two_lines():
    assert found_in(f"Card 4111 1111\n1111 1111, please. <!-- {ALLOWED} -->", "notes.md") == []
    assert found_in(f"Card 4111 1111\n1111 1111, please.\n\nOne. <!-- {ALLOWED} -->", "notes.md") != []


def test_a_place_is_named_where_the_format_has_no_lines():
    document = Document("a.pdf", "c", "pdf 1", [Block("text", "Write to anna@thalveren.org.", place="page 3")])
    assert [str(each) for each in sensitive_problems(document, [])] == [
        "a.pdf:1: there seems to be an e-mail address on page 3"
    ]


def test_a_secret_in_a_very_long_line_is_found():
    for before in (0, 1590, 1970, 1990, 5555):
        assert found_in(f"{'x ' * (before // 2)}AKIAQWERTYUIOPASDFGH{' y' * 2000}") == [(1, "a secret (AWS Access Key)")]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_looks_like_it_is_left_alone(line):
    assert found_in(line) == []


def test_there_is_no_false_alarm_on_the_project_s_own_texts():
    texts = [*(PROJECT / "data").rglob("*.md"), *PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    assert len(texts) > 5
    assert {text.name: found for text in texts if (found := found_in(text.read_text(encoding="utf-8"), text.name))} == {}


@given(st.text())
def test_any_text_is_read(text):
    found_in(text.replace("\0", ""))


@pytest.mark.parametrize(
    "unit", ["password", 'passwordsecretkey="', "a@", "a.", "+1", "DE89 ", "4111 ", "sk-", "eyJ.", "://a:", "x"]
)
def test_a_line_made_to_be_slow_is_not(unit):
    started = time.monotonic()
    found_in(unit * (50_000 // len(unit)))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "foreign"),
    [
        ("http://localhost:8000/v1", []),
        ("http://127.0.0.1:8000/v1", []),
        ("http://[::1]:8000/v1", []),
        ("http://10.3.2.1/v1", []),
        ("http://vllm:8000/v1", []),
        ("http://vllm.models.svc.cluster.local/v1", []),
        ("https://api.somebody.com/v1", ["api.somebody.com"]),
        ("https://8.8.8.8/v1", ["8.8.8.8"]),
        ("api.somebody.com", ["api.somebody.com"]),
    ],
)
def test_a_host_is_foreign_if_it_is_not_in_the_own_network(tmp_path, url, foreign):
    assert refused_hosts(hosted(tmp_path, url)) == foreign
    assert refused_hosts(settings_for(tmp_path)) == []


def hosted(taxonomy: Path, url: str = "https://api.somebody.com/v1", sensitive: str = "refuse") -> Settings:
    """Settings with a local teacher and a judge at that address."""
    judge = EndpointTeacherSettings(kind="endpoint", url=url, model="m")
    return settings_for(taxonomy, judge=judge, documents=DocumentSettings(sensitive=sensitive))


def test_a_document_s_problems_name_document_line_and_kind_never_the_thing():
    document = read("One.\npassword = 'hunter2abc'\nTwo.\nanna@a.org\nbea@b.org\n", "ours/notes.md")
    warnings = [str(problem) for problem in sensitive_problems(document, [])]
    assert warnings == [
        "ours/notes.md:2: there seems to be a secret (quoted beside a keyword)",
        "ours/notes.md:4: there seems to be an e-mail address (and 1 more such lines)",
    ]
    errors = list(sensitive_problems(document, ["api.somebody.com"]))
    assert {problem.severity for problem in errors} == {"error"}
    assert "which must not go to api.somebody.com (documents.sensitive)" in str(errors[0])
    assert not [text for text in [*warnings, *map(str, errors)] if "hunter2" in text or "anna" in text]


def test_refused_documents_quarantine_their_leaf_alone_and_only_where_they_would_leave_the_house(tmp_path):
    taxonomy = write_taxonomy(tmp_path / "taxonomy")
    (document,) = (taxonomy / "documents").iterdir()
    document.write_text(document.read_text() + "\nWrite to anna.donsk@thalveren.org.\n")
    line = document.read_text().count("\n")
    home = Home.open(tmp_path / "home")
    for settings in (settings_for(taxonomy), hosted(taxonomy, sensitive="warn"), hosted(taxonomy, "http://localhost/v1")):
        snapshot = take_snapshot(home, settings)
        assert KNOWLEDGE in snapshot.usable
        assert snapshot.problems[KNOWLEDGE] == [f"{document.name}:{line}: there seems to be an e-mail address"]
        assert snapshot.state == taxonomy_state(home, settings)
    refusing = hosted(taxonomy)
    assert refused_hosts(refusing) == ["api.somebody.com"]
    assert taxonomy_state(home, refusing) != snapshot.state  # so that the sensor looks again
    with pytest.raises(LabError, match=r"not yet looked through .* api\.somebody\.com"):
        check_recipients(snapshot, refusing)
    refused = take_snapshot(home, refusing)
    assert KNOWLEDGE not in refused.usable and FREEFORM in refused.usable
    assert refused.state == taxonomy_state(home, refusing)
    assert not [
        path for path in home.root.rglob("*.json") if "anna.donsk" in path.read_text() and path.parent.name != "sources"
    ]
    check_recipients(refused, refusing)
    check_recipients(refused, settings_for(taxonomy))
