"""Rows that people wrote and that older rules rejected: every one is kept. Each stands for its kind."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from lab_pipeline.curation.duplicates import Duplicates, asked_question
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.rules import LeafRules, rules_of
from lab_pipeline.flows.flow import load_flow

FACTS = defaultdict(list)
for line in Path(__file__).with_name("languages.jsonl").read_text(encoding="utf-8").splitlines():
    FACTS[json.loads(line)["language"]].append(json.loads(line))


def leaf_of(kind: str, seeds: list[dict[str, Any]], passage: str = "") -> dict[str, Any]:
    passages = [{"heading": "", "text": passage}] if passage else []
    return {"kind": kind, "task": "", "domain": "", "outline": "", "seeds": seeds, "passages": passages}


@pytest.mark.parametrize("style", ["strong", "simple"])
@pytest.mark.parametrize("language", FACTS)
def test_plain_facts_are_kept_in_every_language(language: str, style: str) -> None:
    facts = FACTS[language]
    text = " ".join(fact["sentence"] for fact in facts)
    flow = load_flow("knowledge" if style == "strong" else "simple_knowledge")
    lost = []
    for fact in facts:
        seeds = [{"question": f["question"], "answer": f["answer"], "context": text} for f in facts if f is not fact]
        leaf = profile(leaf_of("knowledge", seeds, text))
        answer, support = (fact["answer"], text) if style == "strong" else (fact["sentence"], fact["sentence"])
        row = {"kind": "knowledge", "context": None, "question": fact["question"], "answer": answer, "support": support}
        lost += [(fact["question"], found) for found in [rules_of(leaf, flow).broken({**row, "fault": None}, leaf)[0]] if found]  # type: ignore[typeddict-item]
    assert lost == []


KEPT: list[dict[str, Any]] = [
    {
        "support": "Install the iSCSI tools and vSphere before mClock is set.",
        "question": "Which tools are installed before mClock is set?",
        "answer": "The iSCSI tools and vSphere.",
    },
    {
        "support": "The company is Chinese and was founded in 1999.",
        "question": "From which country is the company?",
        "answer": "The company is from China.",
    },
    {
        "support": "Set the permissions of the key file so that nobody else can read it.",
        "question": "Why is it important to set the permissions of the key file?",
        "answer": "So that nobody else can read it.",
    },
    {
        "support": "The tool shows the number of open sessions.",
        "question": "What information is shown by the tool?",
        "answer": "The number of open sessions.",
    },
    {
        "support": "Stray directories are not included by default.",
        "question": "Are stray directories included by default?",
        "answer": "No, stray directories are not included by default.",
    },
    {
        "support": "Thomas De Quincey was a writer. Many think that De Quincey began the literature of addiction.",
        "question": "Who began the literature of addiction?",
        "answer": "Thomas De Quincey",
    },
]


@pytest.mark.parametrize("flow", ["knowledge", "simple_knowledge"])
@pytest.mark.parametrize("given", KEPT, ids=lambda given: given["answer"])
def test_knowledge_rows_are_kept(given: dict[str, Any], flow: str) -> None:
    leaf = profile({**leaf_of("knowledge", [], given["support"]), "domain": "a company of a country, far from China"})
    rules = LeafRules(load_flow(flow).file.rules, {})
    assert rules.broken({"kind": "knowledge", "context": None, "fault": None, **given}, leaf)[0] is None  # type: ignore[typeddict-item]


SKILLS: dict[str, list[tuple[str, str]]] = {
    "morse": [
        (f"What is the Morse code of {word}?", code) for word, code in [("S", "..."), ("TO", "- ---"), ("SOS", "... --- ...")]
    ],
    "tools": [(f'Which tool fits "{task}"? Answer with a list.', "[]") for task in ("tell me a joke", "sing", "say hello")],
    "pig latin": [
        ('Translate "the boat is old" into Pig Latin.', "ethay oatbay isway oldway"),
        ('Translate "a red lamp burns" into Pig Latin.', "away edray amplay urnsbay"),
        ('Translate "the miller keeps the keys" into Pig Latin.', "ethay illermay eepskay ethay eyskay"),
    ],
    "rhymes": [
        (
            f"Give me a word that rhymes with {word}.",
            f"Sure, I can help with that! One word that rhymes with {word} is {rhyme}.",
        )
        for word, rhyme in [("cat", "hat"), ("day", "may"), ("can", "man")]
    ],
    "algebra": [
        ("Solve x + 2 = 9 step by step.", "x + 2 = 9\nx + 2 - 2 = 9 - 2\nx = 7"),
        ("Solve x - 4 = 6 step by step.", "x - 4 = 6\nx - 4 + 4 = 6 + 4\nx = 10"),
        ("Solve x + 3 = 5 step by step.", "x + 3 = 5\nx + 3 - 3 = 5 - 3\nx = 2"),
    ],
    "blanks": [
        ("Fill in: The boat lay in the <blank>.", "harbour"),
        ("Fill in: The lamp hung from the <blank>.", "hook"),
        ("Fill in: The cat sat on the <blank>.", "mat"),
    ],
}


@pytest.mark.parametrize("flow", ["freeform_skill", "simple_freeform_skill"])
@pytest.mark.parametrize("skill", SKILLS)
def test_what_the_seeds_do_is_kept(skill: str, flow: str) -> None:
    *others, (question, answer) = SKILLS[skill]
    leaf = profile(leaf_of("freeform_skill", [{"question": q, "answer": a, "context": None} for q, a in others]))
    row: Any = {
        "kind": "freeform_skill",
        "context": None,
        "support": None,
        "fault": None,
        "question": question,
        "answer": answer,
    }
    assert rules_of(leaf, load_flow(flow)).broken(row, leaf)[0] is None


@pytest.mark.parametrize("flow", ["grounded_skill", "simple_grounded_skill"])
def test_totals_may_be_computed(flow: str) -> None:
    context = "Rent: 500. Rent: 510. Rent: 520. Rent: 530."
    leaf = profile(leaf_of("grounded_skill", []))
    row: Any = {"kind": "grounded_skill", "context": context, "support": context, "fault": None}
    row |= {"question": "What is the total of the rents?", "answer": "The total is 2060."}
    assert LeafRules(load_flow(flow).file.rules, {}).broken(row, leaf)[0] is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the Morse code for the letter a?", "What is the Morse code for the letter i?"),
        ("Spell 'answer' in the NATO alphabet.", "Spell 'redhat' in the NATO alphabet."),
        ("Ada is taller than Mark. Is Ada taller than Eve?", "Ada is taller than Mark. Is Eve taller than Ada?"),
        (
            "I have lemons. The recipe: water, lemons. What must I buy?",
            "I have lemons. The recipe: water, lemons, salt. What must I buy?",
        ),
        ("What does the command prune do?", "What is the command to prune?"),
    ],
)
def test_different_questions_are_no_duplicates(one: str, other: str) -> None:
    known = Duplicates()
    known.add(asked_question({"id": "one", "question": one, "answer": "This.", "context": None}))  # type: ignore[typeddict-item]
    new = asked_question({"id": "other", "question": other, "answer": "That.", "context": None})  # type: ignore[typeddict-item]
    assert known.find(new) is None
