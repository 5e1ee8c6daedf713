"""The verdict for InstructLab's parser is that parser's own, on whatever stands in a file."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instructlab.schema.taxonomy import Taxonomy, TaxonomyParser, TaxonomyReadingException
from yamllint import linter
from yamllint.config import YamlLintConfig

from lab_pipeline.taxonomy.leaf import LeafReading, check_leaf, read_leaf
from lab_pipeline_tests.builders import write_knowledge, write_skill

SKILL, GROUNDED, OLD, KNOWLEDGE = "compositional_skills/a", "compositional_skills/g", "foundational_skills/o", "knowledge/k"
ATTRIBUTION = "Title of work: x\n"


class Parser(TaxonomyParser):
    """InstructLab's parser, which runs yamllint in this process: the same command, a hundred times as fast."""

    def _yamllint(self, text: str, taxonomy: Taxonomy) -> None:
        for problem in linter.run(text.encode(), YamlLintConfig(self.yamllint_config)):
            taxonomy.error(problem.message.replace("%", "%%"))


def upstream(qna: Path, parser: type[TaxonomyParser] = Parser) -> str:
    made = parser(schema_version=0, yamllint_strict=True, message_format="logging")
    made.yq_available = False
    try:
        return "invalid" if made.parse(qna).errors else "valid"
    except TaxonomyReadingException:
        return "invalid"


@pytest.fixture(autouse=True, scope="module")
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def leaves(tmp_path_factory) -> dict[str, str]:
    """Text of a good leaf of each kind, by key."""
    root = tmp_path_factory.mktemp("good")
    write_skill(root, SKILL)
    write_skill(root, GROUNDED, grounded=True)
    write_skill(root, OLD, version=1)
    write_knowledge(root, KNOWLEDGE, "documents")
    return {key: (root / key / "qna.yaml").read_text() for key in (SKILL, GROUNDED, OLD, KNOWLEDGE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("leaf")


def both(folder: Path, key: str, raw: bytes) -> tuple[str, LeafReading]:
    """The verdict of InstructLab's parser, and our reading."""
    (folder / key).mkdir(parents=True, exist_ok=True)
    (folder / key / "qna.yaml").write_bytes(raw)
    (folder / key / "attribution.txt").write_text(ATTRIBUTION)
    return upstream(folder / key / "qna.yaml"), read_leaf(folder, key)


def with_line(text: str, number: int, change: Callable[[str], str]) -> str:
    lines = text.split("\n")
    number %= len(lines)
    lines[number] = change(lines[number])
    return "\n".join(lines)


PIECES = (
    " §  §\t§ \t § #c§ # c§# c\n§---\n§...\n§--- §\n---\n§\n\n\n\n§\r§\r\n§x§: §:§- §-  x§-§yes§True§null§~§3§'3'§"
    "3.0§2§1§4§0§-1§0o7§1e3§.inf§.nan§2024-01-01§2024-13-45§[]§[ ]§[a,b]§[a , b]§[ a]§[  a]§{}§{a: 1}§{  a: 1}§"
    "{a: 1, a: 2}§{a:1}§[a: 1]§[[[[[[a]]]]]]§&x §*x§&x *x§<<: *x§<<: {a: 1}§|§>§>-§|2§|+§'§\"§''§\"\"§\\§"
    '"\\ud83d\\ude00"§"\\e"§"\\/"§!!int 3§!!str 3§!x y§!!set {a}§%YAML 1.1§%YAML 1.2\n---\n§@§`§?§? x§? x\n: y§é§'
    "\u2028§\x85§\ufeff§😀§\x00§\x07§ x: y§colour: red§  - x§\n  - x\n§key:\n  - x\n§version: 2§version: 1§"
    "version: 3§seed_examples: []§document: {}§created_by:§context: ''§context:§# yamllint disable\n§"
    "# yamllint disable-file\n§# yamllint disable-line§{question: q, answer: a}§!!binary aGk=§:§::§a:b§http://x§"
    "\\n§,§{§}§[§]§%§&§*§!§''''§\"a\nb\""
).split("§")


@st.composite
def edits(draw) -> list[Callable[[str], str]]:
    """One to three changes of a text."""
    chosen = []
    for _ in range(draw(st.integers(1, 3))):
        piece, at = draw(st.sampled_from(PIECES)), draw(st.integers(0, 10_000))
        kind = draw(st.sampled_from("insert append line value indent drop twice cut newlines strip start".split()))
        chosen.append(EDITS[kind](piece, at))
    return chosen


EDITS: dict[str, Callable[[str, int], Callable[[str], str]]] = {
    "insert": lambda piece, at: lambda text: text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) :],
    "append": lambda piece, at: lambda text: with_line(text, at, lambda line: line + piece),
    "line": lambda piece, at: lambda text: with_line(text, at, lambda line: f"{line}\n{piece}"),
    "value": lambda piece, at: lambda text: with_line(text, at, lambda line: f"{line.partition(':')[0]}: {piece}"),
    "indent": lambda piece, at: lambda text: with_line(text, at, lambda line: f" {line}"),
    "drop": lambda piece, at: lambda text: with_line(text, at, lambda line: ""),
    "twice": lambda piece, at: lambda text: with_line(text, at, lambda line: f"{line}\n{line}"),
    "cut": lambda piece, at: lambda text: text[: at % (len(text) + 1)],
    "newlines": lambda piece, at: lambda text: text.replace("\n", ("\r\n", "\r", "\n\n", "\n\n\n\n", " \n")[at % 5]),
    "strip": lambda piece, at: lambda text: text.rstrip("\n") if at % 2 else text + "\n" * (at % 7),
    "start": lambda piece, at: lambda text: piece + text,
}


def check_verdict(folder: Path, key: str, text: str) -> None:
    started = time.monotonic()
    theirs, reading = both(folder, key, text.encode())
    assert time.monotonic() - started < 10  # theirs and ours
    if not any(problem.rule in BEYOND for problem in reading.problems):
        assert reading.schema_verdict == theirs, [*map(str, reading.problems)]
    errors = [problem for problem in reading.problems if problem.severity == "error"]
    assert reading.usable != bool(errors)
    ends = len(text.splitlines()) + text.count("\r") + 2
    assert all(1 <= problem.line <= ends and problem.column >= 1 for problem in reading.problems)


BEYOND = ("too-large", "too-many-values", "alias-recursive", "too-deep", "long-number")
"""Files that are not read, for they could cost unbounded time: the verdict is 'invalid', whatever InstructLab's parser says."""


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from([SKILL, GROUNDED, OLD, KNOWLEDGE]), changes=edits())
def test_the_verdict_on_an_edited_leaf_is_that_of_instructlab(folder, leaves, key, changes):
    text = leaves[key]
    for change in changes:
        text = change(text)
    check_verdict(folder, key, text)


@pytest.mark.parametrize("number", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_no_mutated_file_makes_reading_raise_or_take_long(folder, leaves, number):
    """Changes at random, up to eight in a file; the verdict is InstructLab's as well."""
    choice = random.Random(7)
    slowest = 0.0
    for _ in range(number):
        key = choice.choice([*leaves])
        text = leaves[key]
        for _ in range(choice.randint(1, 8)):
            text = EDITS[choice.choice([*EDITS])](choice.choice(PIECES), choice.randrange(100_000))(text)
        raw = bytearray(text.encode())
        if raw and choice.random() < 0.2:
            raw[choice.randrange(len(raw))] = choice.randrange(256)
        started = time.monotonic()
        reading = check_leaf(key, bytes(raw), ATTRIBUTION)
        slowest = max(slowest, time.monotonic() - started)
        assert reading.usable or reading.problems
        assert all(problem.line >= 1 and problem.column >= 1 and problem.rule for problem in reading.problems)
        if not any(problem.rule in BEYOND for problem in reading.problems):
            theirs, _ = both(folder, key, bytes(raw))
            assert reading.schema_verdict == theirs, (key, bytes(raw))
    assert slowest < 5


def test_a_leaf_of_thousands_of_seeds_or_keys_is_read_in_seconds(leaves):
    seeds = "".join(f"- question: q{number}\n  answer: a\n" for number in range(7000))
    head = leaves[SKILL].partition("- question")[0]
    keys = "".join(f"    k{number}: v\n" for number in range(15_000))
    started = time.process_time()
    assert check_leaf(SKILL, (head + seeds).encode(), ATTRIBUTION).usable
    assert check_leaf(
        KNOWLEDGE, leaves[KNOWLEDGE].replace("  - question", f"  - x: y\n{keys}    question", 1).encode(), "x"
    ).usable
    assert time.process_time() - started < 20  # 10 on a slow machine; hours if it were quadratic


PLAIN_EDITS = {
    "trailing blanks": lambda text: text.replace("tester\n", "tester  \n"),
    "no final newline": lambda text: text.rstrip("\n"),
    "a tab after a text": lambda text: text.replace("tester\n", "tester\t\n"),
    "a tab in a plain text": lambda text: text.replace("tester", "tes\tter"),
    "a duplicate key": lambda text: text + "created_by: again\n",
    "mixed indentation": lambda text: text.replace("- question", "-  question"),
    "windows line ends": lambda text: text.replace("\n", "\r\n"),
    "old mac line ends": lambda text: text.replace("\n", "\r"),
    "a comment": lambda text: "#comment\n" + text,
    "a document start": lambda text: "---\n" + text,
    "a document end": lambda text: text + "...\n",
    "two documents": lambda text: text + "---\na: 1\n",
    "truthy": lambda text: text.replace("tester", "yes"),
    "empty": lambda text: "",
    "blank lines at the start": lambda text: "\n\n" + text,
    "blank lines at the end": lambda text: text + "\n\n",
    "blank lines between": lambda text: text.replace("seed_examples", "\n\n\n\nseed_examples"),
    "an alias": lambda text: text.replace("tester", "&who tester").replace("task_description: ", "task_description: *who #"),
    "an undeclared alias": lambda text: text.replace("tester", "*who"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "lint switched off": lambda text: "# yamllint disable-file\n" + text.replace("tester\n", "tester  \n"),
    "version 1": lambda text: text.replace("version: 3", "version: 1") + " \n",
    "version 2": lambda text: text.replace("version: 3", "version: 2"),
    "version 4": lambda text: text.replace("version: 3", "version: 4"),
    "version as text": lambda text: text.replace("version: 3", "version: '3'"),
    "version true": lambda text: text.replace("version: 3", "version: true"),
    "deep": lambda text: text + "deep: " + "[" * 50 + "]" * 50 + "\n",
    "deep where all is allowed": lambda text: text.replace("question: ", f"x: {'[' * 50}{']' * 50}\n      question: ", 1),
    "an emoji in two halves": lambda text: text.replace("tester", '"\\ud83d\\ude00"'),
    "a backslash before a slash": lambda text: text.replace("tester", '"a\\/b"'),
}


@pytest.mark.parametrize("name", PLAIN_EDITS)
@pytest.mark.parametrize("key", [SKILL, OLD, KNOWLEDGE])
def test_the_verdict_is_that_of_instructlab(folder, leaves, key, name):
    theirs, reading = both(folder, key, PLAIN_EDITS[name](leaves[key]).encode())
    assert reading.schema_verdict == theirs


@pytest.mark.parametrize("name", ["trailing blanks", "no final newline", "a byte order mark", "an alias", "lint switched off"])
def test_the_verdict_is_that_of_the_parser_with_its_own_process(folder, leaves, name, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # where yamllint is
    both(folder, SKILL, PLAIN_EDITS[name](leaves[SKILL]).encode())
    assert read_leaf(folder, SKILL).schema_verdict == upstream(folder / SKILL / "qna.yaml", TaxonomyParser)


@pytest.mark.parametrize(
    "key", ["foundational_skills/knowledge/x", "compositional_skills/knowledge/x", "knowledge/compositional_skills/x"]
)
@pytest.mark.parametrize("kind", [SKILL, KNOWLEDGE])
def test_a_branchs_name_within_a_path_counts_for_instructlab(folder, leaves, key, kind):
    theirs, reading = both(folder, key, leaves[kind].encode())
    assert reading.schema_verdict == theirs
    if reading.usable and theirs == "invalid":
        assert [problem.rule for problem in reading.problems] == ["upstream-branch"]


def test_a_leaf_of_the_foundational_skills_with_a_document_is_knowledge_for_instructlab(folder, leaves):
    theirs, reading = both(folder, OLD, leaves[KNOWLEDGE].encode())
    assert (theirs, reading.schema_verdict, reading.usable) == ("valid", "valid", False)
