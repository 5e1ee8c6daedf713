"""The shipped judges: their worked examples are balanced and true, and their known rows are what they claim to be."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import yaml

from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import CHECKS
from lab_pipeline.curation.wording import points_at_source
from lab_pipeline.flows.flow import KNOWN_ROWS, SHIPPED, Flow, Judge, KnownRows, Rule, load_flow, shipped_flows
from lab_pipeline.instructions.generate import first_drafts
from lab_pipeline.text.words import numbers
from lab_pipeline_tests.flows.test_flow import SOURCE

JUDGES = [(name, judge) for name in shipped_flows() for judge in load_flow(name).file.judges]
JUDGED = sorted({name for name, _ in JUDGES})
IDS = [f"{name}-{judge.name}" for name, judge in JUDGES]
_UNNAMED = re.compile(r"\b(?:he|she|it|they|this|that|above|author)\b", re.IGNORECASE)

Row = dict[str, Any]
LEAF = profile(SOURCE)


def support(text: str, source: str) -> float:
    """The share of a text's content words that the source has."""
    words, known = LEAF.stems(text), {*LEAF.stems(source), *numbers(source, LEAF.language)}
    return sum(word in known for word in words) / len(words) if words else 1.0


def answer_is_borne_out(row: Row) -> bool:
    return support(row["answer"], row.get("support") or row["context"]) >= 0.6


def pair_is_about_the_document(row: Row) -> bool:
    return support(f"{row['question']} {row['answer']}", row["support"]) >= 0.5


def stands_by_itself(row: Row) -> bool:
    asked = {**row, "kind": "knowledge", "context": None, "answer": "", "support": None}
    return points_at_source(asked, LEAF, Rule(rule="points_at_source")) is None and not _UNNAMED.search(row["question"])


def is_asked_of_the_text(row: Row) -> bool:
    return support(row["question"], f"{row['context']} {row['task']}") >= 0.6


def is_of_the_task(row: Row) -> bool:
    return support(row["task"], row["question"]) >= 0.6


def takes_the_instruction_up(row: Row) -> bool:
    return support(row["answer"], row["question"]) >= 0.5


LOOKS_GOOD: dict[str, Callable[[Row], bool]] = {
    "faithful": answer_is_borne_out,
    "follows_context": answer_is_borne_out,
    "relevant": pair_is_about_the_document,
    "self_contained": stands_by_itself,
    "answerable": is_asked_of_the_text,
    "sound": is_of_the_task,
    "fulfils": takes_the_instruction_up,
}
"""For each judge a rule without any model that finds the verdict of its worked examples, chosen clear enough for it."""


def worked_examples(name: str, judge: Judge) -> list[Row]:
    (examples,) = [part["each"] for part in load_flow(name).prompts[judge.prompt] if "each" in part]
    return examples


def known_rows(name: str) -> KnownRows:
    return KnownRows.model_validate(yaml.safe_load((SHIPPED / name / KNOWN_ROWS).read_text()))


@pytest.mark.parametrize(("name", "judge"), JUDGES, ids=IDS)
def test_worked_examples_hold_each_verdict_equally_often_and_in_no_order_that_tells(name: str, judge: Judge) -> None:
    verdicts = [example["verdict"] for example in worked_examples(name, judge)]
    assert Counter(verdicts) == dict.fromkeys(judge.choices, len(verdicts) // len(judge.choices))
    assert len(verdicts) == 2 or verdicts != verdicts[:2] * (len(verdicts) // 2)


@pytest.mark.parametrize(("name", "judge"), JUDGES, ids=IDS)
def test_each_worked_example_has_the_verdict_that_it_states(name: str, judge: Judge) -> None:
    for example in worked_examples(name, judge):
        assert LOOKS_GOOD[judge.name](example) == (judge.choices[example["verdict"]] == 1), example


@pytest.mark.parametrize(("name", "judge"), JUDGES, ids=IDS)
def test_a_judge_is_asked_about_a_row_as_its_worked_examples_ask(name: str, judge: Judge) -> None:
    row = known_rows(name).good[0]
    *_, example, verdict, last = load_flow(name).render(judge.prompt, row)
    assert (example.role, verdict.role, last.role) == ("user", "assistant", "user")
    assert verdict.content in judge.choices
    assert example.content.splitlines()[-1] == last.content.splitlines()[-1]
    assert row["question"] in last.content


@pytest.mark.parametrize("name", JUDGED)
def test_known_rows_are_there_for_every_judge_and_are_no_worked_examples(name: str) -> None:
    known = known_rows(name)
    judges = load_flow(name).file.judges
    assert set(known.bad) == {judge.name for judge in judges}
    for judge in judges:
        asked = [load_flow(name).render(judge.prompt, row)[-1].content for row in (*known.good, *known.bad[judge.name])]
        assert len(set(asked)) == len(asked)
        shown = "\n".join(str(example) for example in worked_examples(name, judge))
        texts = {row.get("support") or row.get("context") for row in known.good}
        assert not [text for text in texts if text and text in shown]


def leaf_of(row: Row) -> Profile:
    """A leaf that is about nothing but this row."""
    about = {name: row.get(name, "") for name in ("task", "domain", "outline")}
    passages = [{"heading": "", "text": row["support"] or ""}]
    seeds = [{"context": row["context"], "question": row["question"], "answer": row["answer"]}]
    return profile({**about, "kind": row["kind"], "passages": passages, "seeds": seeds})


def broken(row: Row, flow: Flow) -> list[str]:
    """What the rules of a flow find in a row, those that only advise as well."""
    checked = [rule for rule in flow.file.rules if rule.rule in CHECKS]
    return [found for rule in checked if (found := CHECKS[rule.rule](row, leaf_of(row), rule))]


@pytest.mark.parametrize("name", ["knowledge", "grounded_skill", "freeform_skill"])
def test_known_good_rows_pass_the_rules_that_need_no_model(name: str) -> None:
    flow = load_flow(name)
    for known in known_rows(name).good:
        row = {"kind": flow.kind, "fault": None, "support": known.get("context"), "context": None, **known}
        assert broken(row, flow) == []


def test_the_instructions_that_go_with_augmentations_pass_the_rules() -> None:
    flow = load_flow("knowledge")
    for augmentation in flow.file.augmentations:
        for instruction in augmentation.instructions:
            row = {"kind": "knowledge", "fault": None, "question": instruction, "answer": "Anna founded Harsk in 1820."}
            row |= {"context": "Anna founded Harsk in 1820.", "support": "Anna founded Harsk in 1820."}
            assert broken(row, flow) == []


@pytest.mark.parametrize("name", ["knowledge", "grounded_skill"])
def test_prompts_on_one_text_begin_alike_until_after_the_text(name: str) -> None:
    """What a server computed for one request serves the next; the texts differ only behind the document."""
    flow = load_flow(name)
    text = "The loom is made of walnut."
    row = {**first_drafts(SOURCE, flow, 17)[0].variables, "context": text, "support": text, "text": text, "several": 5}
    asked = [row | {"question": f"{word}?", "answer": f"{word}."} for word in ("Who", "Where")]
    judged = [each.prompt for each in flow.judges(early=False) if each.name != "self_contained"]
    together = [[flow.render(prompt, each) for each in asked] for prompt in judged]
    together.append([flow.render(each.prompt, row) for each in flow.file.augmentations])
    for requests in together:
        texts = ["\n".join(message.content for message in request) for request in requests]
        for one, other in combinations(texts, 2):
            assert text in os.path.commonprefix([one, other])  # noqa: RUF071 (of texts)
