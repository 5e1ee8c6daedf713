from __future__ import annotations

import json
import os
import random
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from instructlab.schema.taxonomy import TaxonomyParser

from lab_pipeline.core.storage import digest
from lab_pipeline.taxonomy.find import find_leaves
from lab_pipeline.taxonomy.leaf import LeafReading, Seed, read_leaf
from lab_pipeline.text.words import normalised
from lab_pipeline_tests.builders import as_yaml, edit_yaml, write_knowledge, write_skill, write_taxonomy

SKILL = "compositional_skills/writing"
KNOWLEDGE = "knowledge/islands"


def reading_of(root: Path, key: str, text: str) -> LeafReading:
    """What reading gives for a leaf with this `qna.yaml` (and an attribution, so that none is missed)."""
    write_skill(root, key).write_text(text, encoding="utf-8")
    return read_leaf(root, key)


def edited(root: Path, key: str, change) -> LeafReading:
    """A valid leaf after `change` has worked on its value."""
    qna = write_knowledge(root, key, "documents") if key.startswith("knowledge") else write_skill(root, key)
    edit_yaml(qna, change)
    return read_leaf(root, key)


def said(reading: LeafReading) -> list[tuple[int, str]]:
    return [(problem.line, problem.severity) for problem in reading.problems]


def upstream_errors(qna: Path) -> int:
    """The verdict of InstructLab's own parser."""
    return TaxonomyParser(schema_version=0, yamllint_strict=True, message_format="logging").parse(qna).errors


def skill_text(*seeds: str, head: str = "version: 3\ncreated_by: me\ntask_description: Do it.\n") -> str:
    """A skill whose first seed starts at line 5 (with the usual head), one line for each key."""
    return head + "seed_examples:\n" + "".join(seeds)


def seed_text(number: int, context: str = "", answer: str = "An answer.") -> str:
    lines = [f"question: Question {number}?", f"answer: {json.dumps(answer)}"]
    lines += [f"context: {json.dumps(context)}"] if context else []
    return "  - " + "\n    ".join(lines) + "\n"


# finding leaves


def test_leaves_of_all_three_branches_are_found_in_order_and_nothing_else(tmp_path):
    for key in ("knowledge/b/c", "knowledge/b", "compositional_skills/a", "foundational_skills/z", "other/x", "."):
        (tmp_path / key).mkdir(parents=True, exist_ok=True)
        (tmp_path / key / "qna.yaml").touch()
    (tmp_path / "knowledge/qna.yml").touch()
    assert find_leaves(tmp_path) == ["compositional_skills/a", "foundational_skills/z", "knowledge/b", "knowledge/b/c"]


def test_a_folder_without_leaves_has_none(tmp_path):
    assert find_leaves(tmp_path) == find_leaves(tmp_path / "missing") == []


def test_a_key_may_hold_commas_blanks_and_any_script(tmp_path):
    key = "knowledge/a, b/日本 ü%2C"
    write_knowledge(tmp_path, key, "documents")
    assert find_leaves(tmp_path) == [key]
    assert read_leaf(tmp_path, key).usable


def test_a_symbolic_link_is_no_leaf_whichever_part_of_the_path_it_is(tmp_path):
    outside = write_skill(tmp_path / "outside", "compositional_skills/real").parent
    root = tmp_path / "taxonomy"
    write_skill(root, "compositional_skills/own")
    (root / "compositional_skills/leaf").symlink_to(outside)
    (root / "compositional_skills/file").mkdir()
    (root / "compositional_skills/file/qna.yaml").symlink_to(outside / "qna.yaml")
    (root / "compositional_skills/parent").symlink_to(outside.parent)
    (root / "foundational_skills").symlink_to(outside.parent)
    assert find_leaves(root) == ["compositional_skills/own"]


def test_a_taxonomy_behind_a_symbolic_link_is_read(tmp_path):
    write_skill(tmp_path / "real", SKILL)
    (tmp_path / "link").symlink_to("real")
    assert find_leaves(tmp_path / "link") == [SKILL]


def test_a_folder_name_that_is_not_utf_8_gives_a_key_that_can_be_stored_and_is_no_usable_leaf(tmp_path):
    folder = tmp_path / "knowledge" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    (folder / "qna.yaml").touch()
    assert find_leaves(tmp_path) == ["knowledge/caf\ufffd"]
    assert said(read_leaf(tmp_path, "knowledge/caf\ufffd")) == [(1, "error")]


def test_a_branchs_own_folder_is_judged_as_that_branch(tmp_path):
    write_knowledge(tmp_path, "knowledge", "documents")
    assert find_leaves(tmp_path) == ["knowledge"]
    assert read_leaf(tmp_path, "knowledge").leaf.kind == "knowledge"


# valid leaves


def test_the_builders_leaves_are_usable_without_a_problem_and_valid_upstream(tmp_path):
    write_taxonomy(tmp_path)
    readings = [read_leaf(tmp_path, key) for key in find_leaves(tmp_path)]
    assert [reading.leaf.kind for reading in readings] == [
        "grounded_skill",
        "freeform_skill",
        "freeform_skill",
        "knowledge",
    ]
    for reading in readings:
        assert reading.usable and reading.problems == [] and reading.schema_verdict == "valid"
        assert upstream_errors(tmp_path / reading.key / "qna.yaml") == 0


def test_a_knowledge_leaf_is_read_whole(tmp_path):
    qna = write_knowledge(tmp_path, KNOWLEDGE, "documents", contexts=5)
    value = yaml.safe_load(qna.read_text())
    leaf = read_leaf(tmp_path, KNOWLEDGE).leaf
    assert (leaf.key, leaf.version, leaf.created_by, leaf.domain) == (KNOWLEDGE, 3, "tester", value["domain"])
    assert leaf.document_outline == value["document_outline"]
    assert leaf.attribution.startswith(f"Title of work: {KNOWLEDGE}")
    assert len(leaf.seeds) == 15
    example = value["seed_examples"][1]
    pair = example["questions_and_answers"][2]
    seed = leaf.seeds[5]
    assert (seed.question, seed.answer, seed.context) == (pair["question"], pair["answer"], example["context"].strip())
    assert (seed.group, seed.asked) == (1, seed.question)
    lines = qna.read_text().splitlines()
    assert pair["question"] in lines[seed.line - 1]
    assert leaf.document.patterns == ("knowledge-islands.md",)
    assert (leaf.document.repo, leaf.document.commit) == ("documents", "worktree")
    assert lines[leaf.document.line - 1] == "document:"


def test_a_grounded_seed_asks_its_context_too(tmp_path):
    write_skill(tmp_path, SKILL, grounded=True)
    for seed in read_leaf(tmp_path, SKILL).leaf.seeds:
        assert seed.asked == f"{seed.context}\n\n{seed.question}"


def test_a_skill_of_version_1_may_have_one_seed_and_needs_no_version_and_no_attribution(tmp_path):
    qna = write_skill(tmp_path, SKILL, seeds=1, version=1)
    (qna.parent / "attribution.txt").unlink()
    assert read_leaf(tmp_path, SKILL).problems == []
    edit_yaml(qna, lambda value: value.pop("version"))
    reading = read_leaf(tmp_path, SKILL)
    assert (reading.version, reading.usable, reading.problems) == (1, True, [])
    assert upstream_errors(qna) == 0


def test_a_skill_of_version_2_is_usable(tmp_path):
    write_skill(tmp_path, SKILL, version=2)
    assert read_leaf(tmp_path, SKILL).usable


def test_text_is_trimmed(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*(seed_text(n, answer="  padded \n ") for n in range(5))))
    assert {seed.answer for seed in reading.leaf.seeds} == {"padded"}


# refused by the schema


@pytest.mark.parametrize("version", [1, 2])
def test_knowledge_of_an_older_version_is_refused_even_in_its_own_layout(tmp_path, version):
    pairs = [{"question": f"Q{n}?", "answer": f"A{n}."} for n in range(5)]
    value = {
        "created_by": "me",
        "version": version,
        "domain": "d",
        "task_description": "t",
        "seed_examples": pairs,
        "document": {"repo": "r", "commit": "c", "patterns": ["*.md"]},
    }
    reading = reading_of(tmp_path, KNOWLEDGE, as_yaml(value))
    assert (reading.schema_verdict, reading.usable, reading.version) == ("invalid", False, version)
    (problem,) = reading.problems
    assert problem.line == 2
    assert problem.message == f"Version {version} is not supported for knowledge. Minimum supported version is 3."
    assert upstream_errors(tmp_path / KNOWLEDGE / "qna.yaml") > 0


VERSIONS = ["4", "0", "-1", "'3'", "3.5", "true", "null", "[3]", "{a: 3}", ".inf", ".nan", "9" * 99, "2024-01-01"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_that_there_is_not_is_refused_at_its_line(tmp_path, version):
    qna = write_skill(tmp_path, SKILL)
    qna.write_text(f"created_by: me\nversion: {version}\n{qna.read_text().split('tester', 1)[1]}")
    reading = read_leaf(tmp_path, SKILL)
    assert (reading.schema_verdict, reading.version, said(reading)) == ("invalid", None, [(2, "error")])
    assert "use 3" in reading.problems[0].message


@pytest.mark.parametrize("first", [3, 3.0])
def test_the_version_3_0_is_version_3_as_it_is_upstream(tmp_path, first):
    reading = edited(tmp_path, SKILL, lambda value: value.update(version=first))
    assert reading.usable and type(reading.version) is int
    assert upstream_errors(tmp_path / SKILL / "qna.yaml") == 0


def test_too_few_seeds_are_refused_at_their_line(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*map(seed_text, range(4))))
    assert said(reading) == [(4, "error")]
    assert "seed_examples" in reading.problems[0].message
    assert str(reading.problems[0]).startswith(f"{SKILL}/qna.yaml:4: ")


def test_unknown_keys_are_refused_and_named(tmp_path):
    top = reading_of(tmp_path, SKILL, skill_text(*map(seed_text, range(5))) + "colour: red\n")
    assert said(top) == [(15, "error")]
    assert "colour" in top.problems[0].message
    text = skill_text(seed_text(0), seed_text(1) + "    colour: red\n", *map(seed_text, range(2, 5)))
    inner = reading_of(tmp_path, SKILL, text)
    assert said(inner) == [(9, "error")]
    assert inner.problems[0].message == "seed_examples.1: unknown key 'colour'; known are context, question, answer"


def test_an_unknown_key_that_is_no_text_is_refused(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*map(seed_text, range(5))) + "1: x\n2024-01-01: y\nnull: z\n")
    assert (reading.schema_verdict, reading.usable) == ("invalid", False)


def test_every_problem_of_the_schema_is_told_in_the_order_of_lines(tmp_path):
    text = skill_text(
        "  - question: ''\n    answer: a\n",  # line 5
        "  - question: 7\n    answer: a\n",  # line 7
        "  - answer: a\n",  # line 9
        *map(seed_text, range(2)),
        head="version: 3\ncreated_by: me\n",
    )
    reading = reading_of(tmp_path, SKILL, text)
    assert said(reading) == [(1, "error"), (4, "error"), (6, "error"), (8, "error")]
    told = [problem.message for problem in reading.problems]
    assert "task_description" in told[0]
    assert told[2] == "seed_examples.1.question: expected a text, found 7; put it in quotes"


def test_a_mistyped_key_and_a_missing_version_are_said_with_how_to_mend_them(tmp_path):
    reading = edited(
        tmp_path, SKILL, lambda value: value["seed_examples"][0].update(anwser=value["seed_examples"][0].pop("answer"))
    )
    assert [each.message for each in reading.problems] == ["seed_examples.0: unknown key 'anwser'; did you mean answer?"]
    reading = edited(tmp_path, KNOWLEDGE, lambda value: value.pop("version"))
    assert reading.problems[0].message.startswith("the key 'version' is missing; add 'version: 3'")


def test_a_long_message_is_cut(tmp_path):
    reading = edited(tmp_path, SKILL, lambda value: value.update(created_by=["x" * 5000]))
    assert len(reading.problems[0].message) < 400


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- a\n", 1, "expected a mapping with 'seed_examples', found list"),
        ("version: 3\na: &x [*x]\n", 2, "*x stands inside of what it repeats"),
        ("version: 3\nb: " + "[" * 300, 2, "nested deeper than 20 levels"),
        ("#" * 1_000_001, 1, "the file has 1,000,001 bytes; at most 1,000,000 are read"),
        ("version: 3\nb: 'x\n", 3, "found unexpected end of stream; close the quotes or brackets that are open"),
    ],
)
def test_what_cannot_be_read_is_one_problem_at_its_line(tmp_path, text, line, message):
    reading = reading_of(tmp_path, SKILL, text)
    assert (reading.leaf, reading.schema_verdict) == (None, "invalid")
    assert [(problem.line, problem.message, problem.severity) for problem in reading.problems] == [(line, message, "error")]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n", "[]\n", "0\n"])
def test_an_empty_file_is_not_usable_though_instructlab_only_warns_of_it(tmp_path, text):
    reading = reading_of(tmp_path, SKILL, text)
    assert (reading.leaf, reading.usable, reading.schema_verdict) == (None, False, "valid")
    assert upstream_errors(tmp_path / SKILL / "qna.yaml") == 0


def test_a_key_that_stands_twice_is_refused_at_its_line(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*map(seed_text, range(5))) + "created_by: you\n")
    found = [(each.line, each.column, each.rule) for each in reading.problems if each.severity == "error"]
    assert found == [(15, 1, "duplicate-key")]


def test_text_that_is_not_utf_8_is_refused_at_its_line(tmp_path):
    write_skill(tmp_path, SKILL).write_bytes("version: 3\ncreated_by: José\n".encode("latin-1"))
    assert said(read_leaf(tmp_path, SKILL)) == [(2, "error")]


def test_a_missing_file_and_a_folder_in_its_place_are_problems(tmp_path):
    (tmp_path / SKILL / "qna.yaml").mkdir(parents=True)
    for key in (SKILL, "knowledge/none"):
        reading = read_leaf(tmp_path, key)
        assert said(reading) == [(1, "error")]
        assert reading.problems[0].message.startswith("cannot be read (")


CHANGES = {
    "nothing": lambda value: None,
    "a seed less": lambda value: value["seed_examples"].pop(),
    "two seeds less": lambda value: (value["seed_examples"].pop(), value["seed_examples"].pop()),
    "the same seed twice": lambda value: value["seed_examples"].append(dict(value["seed_examples"][0])),
    "no author": lambda value: value.pop("created_by"),
    "an empty author": lambda value: value.update(created_by=""),
    "an unknown key": lambda value: value.update(colour="red"),
    "an unknown key of a seed": lambda value: value["seed_examples"][0].update(colour="red"),
    "a number as a question": lambda value: value["seed_examples"][0].update(question=5),
    "an empty context": lambda value: value["seed_examples"][0].update(context=""),
    "a null context": lambda value: value["seed_examples"][0].update(context=None),
    "a version as text": lambda value: value.update(version="3"),
    "a version that is true": lambda value: value.update(version=True),
    "version 1": lambda value: value.update(version=1),
    "version 2": lambda value: value.update(version=2),
    "version 4": lambda value: value.update(version=4),
    "no seeds": lambda value: value.update(seed_examples=[]),
    "seeds that are no list": lambda value: value.update(seed_examples="many"),
    "a document": lambda value: value.update(document={"repo": "r", "commit": "c", "patterns": ["p"]}),
    "no patterns": lambda value: value.update(document={"repo": "r", "commit": "c", "patterns": []}),
    "more in the document": lambda value: value.update(document={"repo": "r", "commit": "c", "patterns": ["p"], "x": 1}),
}


@pytest.mark.parametrize("key", [SKILL, KNOWLEDGE])
@pytest.mark.parametrize("change", CHANGES)
def test_the_schema_verdict_is_that_of_instructlab(tmp_path, key, change):
    reading = edited(tmp_path, key, CHANGES[change])
    assert (reading.schema_verdict == "valid") == (upstream_errors(tmp_path / key / "qna.yaml") == 0)


# valid, but not usable or only in part


def test_blank_answers_and_questions_are_set_aside_at_their_lines(tmp_path):
    seeds = [*map(seed_text, range(4)), seed_text(4, answer=" \n\t"), "  - question: '  '\n    answer: a\n"]
    reading = reading_of(tmp_path, SKILL, skill_text(*seeds))
    assert (reading.schema_verdict, reading.usable) == ("valid", True)
    assert said(reading) == [(13, "warning"), (15, "warning")]
    assert [seed.question for seed in reading.leaf.seeds] == [f"Question {n}?" for n in range(4)]


def test_a_leaf_of_blank_answers_only_is_valid_and_not_usable(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*(seed_text(n, answer=" ") for n in range(5))))
    assert (reading.schema_verdict, reading.usable, reading.leaf) == ("valid", False, None)
    assert said(reading)[-1] == (4, "error")
    assert reading.problems[-1].message == "no seed example is left to work with"


def test_the_same_question_twice_is_set_aside_whatever_its_case_and_blanks(tmp_path):
    again = seed_text(0).replace("Question 0?", "'QUESTION   0?'")
    reading = reading_of(tmp_path, SKILL, skill_text(*map(seed_text, range(4)), again))
    assert said(reading) == [(13, "warning")]
    assert reading.problems[0].message == "set aside: the same question stands at line 5"
    assert len(reading.leaf.seeds) == 4


def test_one_request_to_a_skill_may_have_many_answers(tmp_path):
    seeds = [f"  - question: Tell me a joke.\n    answer: Joke {n}.\n" for n in range(64)]
    reading = reading_of(tmp_path, SKILL, skill_text(*seeds))
    assert (said(reading), len(reading.leaf.seeds)) == ([], 64)


def test_the_same_question_on_another_context_is_another_seed_of_a_grounded_skill(tmp_path):
    seeds = [f"  - question: Who?\n    answer: A{n}.\n    context: Text {n}.\n" for n in range(5)]
    reading = reading_of(tmp_path, SKILL, skill_text(*seeds))
    assert (len(reading.leaf.seeds), reading.problems) == (5, [])


def test_in_a_mostly_grounded_leaf_freeform_seeds_are_set_aside(tmp_path):
    seeds = [seed_text(0), *(seed_text(n, context="Text.") for n in (1, 2, 3)), seed_text(4)]
    reading = reading_of(tmp_path, SKILL, skill_text(*seeds))
    assert (reading.leaf.kind, len(reading.leaf.seeds), reading.usable) == ("grounded_skill", 3, True)
    assert said(reading) == [(5, "warning"), (16, "warning")]
    assert "a grounded skill leaf's seeds all have a context" in reading.problems[0].message


def test_in_a_mostly_freeform_leaf_grounded_seeds_are_set_aside(tmp_path):
    seeds = [*(seed_text(n, context="Text.") for n in (0, 1)), *map(seed_text, (2, 3, 4))]
    reading = reading_of(tmp_path, SKILL, skill_text(*seeds))
    assert (reading.leaf.kind, len(reading.leaf.seeds), reading.usable) == ("freeform_skill", 3, True)
    assert said(reading) == [(5, "warning"), (8, "warning")]
    assert "a freeform skill leaf's seeds all lack a context" in reading.problems[0].message


def test_a_blank_context_is_none(tmp_path):
    reading = reading_of(tmp_path, SKILL, skill_text(*(seed_text(n, context="  ") for n in range(5))))
    assert (reading.leaf.kind, reading.problems) == ("freeform_skill", [])


def test_texts_beyond_the_documented_length_are_warned_of_at_their_lines(tmp_path):
    long = [seed_text(0, context="w " * 501, answer="w " * 251), seed_text(1, context="w " * 500, answer="w " * 250)]
    reading = reading_of(tmp_path, SKILL, skill_text(*long, *(seed_text(n, context="Text.") for n in range(2, 5))))
    assert reading.usable
    assert sorted((problem.line, problem.message) for problem in reading.problems) == [
        (6, "answer has 251 words; the documented limit is 250"),
        (7, "context has 501 words; the documented limit is 500"),
    ]


def test_a_missing_empty_or_linked_attribution_is_warned_of_in_its_own_file(tmp_path):
    qna = write_skill(tmp_path, SKILL)
    attribution = qna.parent / "attribution.txt"
    (tmp_path / "elsewhere").write_text("Title: secret")
    for state in ("empty", "missing", "linked"):
        if state == "empty":
            attribution.write_text(" \n")
        else:
            attribution.unlink(missing_ok=True)
        if state == "linked":
            attribution.symlink_to(tmp_path / "elsewhere")
        reading = read_leaf(tmp_path, SKILL)
        assert (reading.usable, reading.leaf.attribution) == (True, "")
        assert [(problem.file, problem.line, problem.severity) for problem in reading.problems] == [
            (f"{SKILL}/attribution.txt", 1, "warning")
        ]


def test_keys_behind_a_merge_and_keys_that_are_no_text_do_no_harm(tmp_path):
    merged = "  - <<: {context: Text., question: 'Merged?'}\n    answer: a\n"
    reading = reading_of(tmp_path, SKILL, skill_text(*(seed_text(n, context="T") for n in range(4)), merged))
    assert reading.leaf.seeds[-1].question == "Merged?"
    qna = write_knowledge(tmp_path, KNOWLEDGE, "documents")
    extras = "1: {context: x}\n    more: !!set {context}\n    rest: !!omap [context: 1]\n    "
    qna.write_text(qna.read_text().replace("question: ", f"{extras}question: ", 1))
    assert "!!omap" in qna.read_text()
    assert read_leaf(tmp_path, KNOWLEDGE).usable


# identity


def test_a_seed_is_the_same_one_whatever_its_case_blanks_line_and_answer():
    one = Seed("What?", "a", None, 0, 1, asked="What is  THIS?")
    other = Seed("What?", "b", "c", 4, 9, asked="what is\nthis?")
    assert one.identity == other.identity
    assert one.identity != Seed("What?", "a", None, 0, 1, asked="What is that?").identity


def test_normalised_text_is_lower_case_with_single_blanks():
    assert normalised("  Straße\n\tIST  ") == "strasse ist"


# whatever stands in the file


VALID = {}


def valid_text(kind: str, tmp_path_factory) -> str:
    if kind not in VALID:
        root = tmp_path_factory.mktemp("valid")
        qna = write_knowledge(root, KNOWLEDGE, "d") if kind == "knowledge" else write_skill(root, SKILL, grounded=True)
        VALID[kind] = qna.read_text()
    return VALID[kind]


def check_reading(folder: Path, key: str, raw: bytes) -> None:
    (folder / key).mkdir(parents=True, exist_ok=True)
    (folder / key / "qna.yaml").write_bytes(raw)
    reading = read_leaf(folder, key)
    errors = [problem for problem in reading.problems if problem.severity == "error"]
    assert reading.usable != bool(errors)
    assert all(problem.line >= 1 for problem in reading.problems)
    digest([asdict(reading), [seed.identity for seed in reading.leaf.seeds] if reading.leaf else []])


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=80))
def test_no_bytes_make_reading_raise(tmp_path_factory, raw):
    check_reading(tmp_path_factory.getbasetemp() / "bytes", SKILL, raw)


WILD = (
    "[]|{}|~|3|'3'|1.5|.nan|true|=|<<|''|' '|\"\\0\"|\"\\ud800\"|*x|&x y|!!int ''|!!set {a}|!!omap [a: 1]|"
    "!!binary aGk=|!!timestamp x|2024-01-01|2024-13-45|0x"
    + "f"
    * 5000
    + "|{<<: {context: c, question: q, answer: a}}|[[[[1]]]]|"
    '{1: {context: x}}|{question: q}|{context: c, questions_and_answers: []}|[*x]|\n  - x|: |"|- |# |é\u2028|x: y'
).split("|")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["knowledge", "skill"]),
    wild=st.lists(st.sampled_from(WILD), min_size=1, max_size=2),
    how=st.sampled_from(["value", "key", "line", "insert"]),
    random_seed=st.integers(0, 10**6),
)
def test_no_wild_piece_in_a_valid_leaf_makes_reading_raise(tmp_path_factory, kind, wild, how, random_seed):
    lines = valid_text(kind, tmp_path_factory).splitlines()
    choice = random.Random(random_seed)
    for piece in wild:
        at = choice.randrange(len(lines))
        head, colon, value = lines[at].partition(":")
        indent = head[: len(head) - len(head.lstrip(" -"))]
        lines[at] = {
            "value": f"{head}{colon} {piece}",
            "key": f"{indent}{piece}{colon}{value}",
            "line": f"{indent}{piece}",
            "insert": f"{lines[at]}\n{' ' * len(indent)}{piece}",
        }[how]
    key = KNOWLEDGE if kind == "knowledge" else SKILL
    check_reading(tmp_path_factory.getbasetemp() / "wild", key, "\n".join(lines).encode())
