"""Documents as people write them, from the file to the passages and problems of the snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipeline.config.settings import DocumentSettings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import Passage
from lab_pipeline.core.storage import read_json
from lab_pipeline.taxonomy.documents.passages import estimated_tokens
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import KNOWLEDGE, edit_yaml, settings_for, write_taxonomy


def take(root: Path, files: dict[str, str | bytes], **sections) -> tuple[list[Passage], list[str]]:
    """The passages of a knowledge leaf with these documents, and its problems; no passages if it is quarantined."""
    taxonomy = write_taxonomy(root / "taxonomy")
    for old in (taxonomy / "documents").iterdir():
        old.unlink()
    for name, text in files.items():
        path = taxonomy / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    edit_yaml(taxonomy / KNOWLEDGE / "qna.yaml", lambda value: value["document"].update(patterns=["**", "*"]))
    home = Home.open(root / "home")
    snapshot = take_snapshot(home, settings_for(taxonomy, **sections))
    frozen = snapshot.usable.get(KNOWLEDGE)
    return read_json(home.leaf_source(frozen))["passages"] if frozen else [], snapshot.problems[KNOWLEDGE]


def texts(passages: list[Passage]) -> list[tuple[str, str]]:
    return [(each["heading"], each["text"]) for each in passages]


def test_front_matter_reaches_no_passage_and_is_said(tmp_path):
    found, problems = take(tmp_path, {"a.md": "---\ntitle: Gate guide\nreviewer: Bea\n---\n\n# Locks\n\nBea has two locks.\n"})
    assert texts(found) == [("Locks", "Bea has two locks.")]
    assert [each for each in problems if each.startswith("a.md:1: left out: front matter, ")]


def test_all_of_a_plain_text_reaches_the_passage(tmp_path):
    text = (
        "GATE GUIDE\n==========\n\n    Gate opens at five. Bea keeps it.\n\n1987. A good year.\n\n- 7 degrees was the low.\n"
        "The rate is 3*4*5 = 60, and <lock> opens if a<b and c>d.\n# of boats: 9\n-----\nlong_lock_name and *star* stay.\n"
    )
    found, problems = take(tmp_path, {"a.txt": text})
    assert "".join("".join(each["text"].split()) for each in found) == "".join(text.split())
    assert problems == []


def test_code_html_tables_and_notes_reach_the_passages(tmp_path):
    text = (
        "# Set up\n\nRun this:\n\n```bash\nlockctl open --gate west\n```\n\n    in an indented block\n\n"
        "<details><summary>Who has it?</summary>\n\nBea has it.[^1]\n\n</details>\n<div>\nThe gate opens at five.\n</div>\n\n"
        "Cold<br>dry, and ![The west gate with two boats](x.png) is shown.\n\n"
        '<table><tr><th colspan="2">West</th></tr><tr><td>Keeper</td><td>Bea</td></tr></table>\n\n'
        "| Gate | Keeper | Locks |\n|---|---|---|\n| West | Bea | 2 |\n| East | Odo | 4 |\n\n[^1]: Since 1907.\n"
    )
    ((passage,), problems) = take(tmp_path, {"a.md": text})
    assert passage["heading"] == "Set up"
    assert passage["text"].split("\n\n") == [
        "Run this:",
        "lockctl open --gate west",
        "in an indented block",
        "Who has it?",
        "Bea has it.",
        "Since 1907.",
        "The gate opens at five.",
        "Cold dry, and [The west gate with two boats] is shown.",
        "West: Keeper; West: Bea\nGate: West; Keeper: Bea; Locks: 2\nGate: East; Keeper: Odo; Locks: 4",
    ]
    assert problems == []


def test_escaped_secrets_are_refused_with_their_line(tmp_path):
    text = "One.\n\nWrite to bea\\@gate.org or odo&#64;gate.org, card 4111 1111\n1111 1111, or 4111 **1111** 1111 1111.\n"
    judge = EndpointTeacherSettings(kind="endpoint", url="https://api.somebody.com/v1", model="m")
    found, problems = take(tmp_path, {"a.md": text}, judge=judge, documents=DocumentSettings(sensitive="refuse"))
    assert found == []
    assert [problem.partition(", which")[0] for problem in problems] == [
        "a.md:3: there seems to be a payment card's number",
        "a.md:3: there seems to be an e-mail address",
    ]


def test_a_byte_order_mark_is_as_if_it_were_not_there(tmp_path):
    assert texts(take(tmp_path, {"a.md": "\ufeff# Title\n\nText below it.\n"})[0]) == [("Title", "Text below it.")]


def test_chinese_passages_are_whole_sentences_within_the_budget(tmp_path):
    found, _ = take(tmp_path, {"a.md": "大门每天早上五点打开。谁保管钥匙？贝亚保管！" * 60})
    assert len(found) > 5
    assert all(each["text"][-1] in "。？！" and estimated_tokens(each["text"]) <= 180 for each in found)


def test_sentences_of_other_languages_are_split_and_their_abbreviations_are_not():
    from lab_pipeline.text.sentences import sentences

    assert len(sentences("¿Quién abre la puerta? ¡Bea la abre! ¿Cuándo la cierra?", "Spanish")) == 3
    assert len(sentences("Brama otwiera się o piątej. Łucja jej pilnuje. Żaden wóz nie czeka.", "Polish")) == 3
    assert len(sentences("Dr. med. Bea kommt um 5 Uhr. Am 4. März öffnet das Tor. Das gilt z. B. für Wagen.", "German")) == 3


def test_one_long_line_is_cut_at_the_budget(tmp_path):
    found, _ = take(tmp_path, {"a.md": "word " * 5000})
    assert all(estimated_tokens(each["text"]) <= 180 for each in found)
    assert " ".join(each["text"] for each in found) == ("word " * 5000).strip()


def test_a_long_table_is_whole_rows_each_with_its_headers(tmp_path):
    rows = "".join(f"| G{number} | K{number} | {number} |\n" for number in range(150))
    found, _ = take(tmp_path, {"a.md": f"| Gate | Keeper | Locks |\n|---|---|---|\n{rows}"})
    assert len(found) > 5
    lines = [line for each in found for line in each["text"].split("\n")]
    assert lines == [f"Gate: G{number}; Keeper: K{number}; Locks: {number}" for number in range(150)]


# files


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.md", b"%PDF-1.4\n1 0 obj", "is a PDF file, but not named as one"),
        ("a.docx", b"%PDF-1.4\n1 0 obj", "is a PDF file, but not named as one"),
        ("a.pdf", b"PK\3\4 word", "is an archive such as .docx or .pptx, but not named as one"),
        ("a.md", b"\xef\xbb\xbf\n<!DOCTYPE html><p>Text", "is an HTML page, but not named as one"),
        ("a.txt", b"{\\rtf1 Text}", "is an RTF file, but not named as one"),
    ],
)
def test_a_file_with_the_ending_of_another_format_is_refused_with_what_it_is(tmp_path, name, raw, said):
    found, problems = take(tmp_path, {name: raw, "b.md": "Text."})
    assert found == []
    assert [each for each in problems if each.startswith(f"{name}:1: {said}")]


def test_an_empty_file_is_said_and_does_no_harm(tmp_path):
    found, problems = take(tmp_path, {"a.md": "<!-- later -->\n", "b.txt": "Text."})
    assert texts(found) == [("", "Text.")]
    assert problems == ["a.md:1: holds no text"]


def test_files_with_the_same_content_are_both_read(tmp_path):
    found, _ = take(tmp_path, {"a.md": "Text.", "b/a.md": "Text."})
    assert [(each["document"], each["text"]) for each in found] == [("a.md", "Text."), ("b/a.md", "Text.")]


def test_a_file_that_vanishes_while_it_is_read_quarantines_the_leaf(tmp_path, monkeypatch):
    read = Path.read_bytes

    def vanish(path: Path) -> bytes:
        return read(path if path.name != "a.md" else path.with_name("gone.md"))

    monkeypatch.setattr(Path, "read_bytes", vanish)
    found, problems = take(tmp_path, {"a.md": "Text.", "b.md": "Text."})
    assert found == []
    assert [each for each in problems if each.endswith("gone.md cannot be read: No such file or directory")]
