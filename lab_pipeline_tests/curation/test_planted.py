"""Planted rows: the rules that need no judge, and the data sets' leak detector, part good rows from bad ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pytest

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import as_prompt
from lab_pipeline.core.storage import read_json
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.rules import LeafRules
from lab_pipeline.datasets.heldout_questions import heldout_prompts
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline.text.leaks import LeakDetector
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.curation.planted import EACH, asked_of_sentences, planted
from lab_pipeline_tests.curation.planted_good import ROOT

LEAST_CAUGHT = 0.95
MOST_LOST = 0.03
KEPT = "kept"
Verdicts = dict[str, tuple[dict[str, Any], str]]
"""Each planted row by id, with the rule that rejected it or `KEPT`."""


@dataclass(frozen=True)
class Ground:
    """The sample taxonomy as curation sees it."""

    sources: dict[str, dict[str, Any]]
    heldout: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    home = Home.open(tmp_path_factory.mktemp("home"))
    snapshot = take_snapshot(home, settings_for(ROOT / "data" / "taxonomy"))
    sources = {leaf: read_json(home.leaf_source(source)) for leaf, source in snapshot.usable.items()}
    return Ground(sources, {row["leaf"]: row["heldout_questions"] for row in snapshot.rows})


def judge(ground: Ground, good: list[dict[str, Any]], bad: list[dict[str, Any]]) -> Verdicts:
    leaks = LeakDetector(heldout_prompts({"leaves": ground.heldout, "general": [], "withheld": []}))
    found: Verdicts = {}
    for leaf, source in ground.sources.items():
        rows = [row for row in [*good, *bad] if row["leaf"] == leaf]
        flow, known = load_flow(f"simple_{source['kind']}", source["kind"]), profile(source)
        kept, rejected = Curation(known, flow).split(rows)
        found |= {row["id"]: (row, row["rule"]) for row in rejected}
        for row in kept:
            asked = as_prompt(row["question"], row["context"])[0]["content"]
            found[row["id"]] = (row, "held_out" if leaks.leak(asked) else KEPT)
    return found


@pytest.fixture(scope="module")
def verdicts(ground: Ground) -> Verdicts:
    return judge(ground, *planted(ground.sources, ground.heldout))


def table(verdicts: Verdicts) -> str:
    """Rows caught by kind, and by which rules."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row, rule in verdicts.values():
        kinds[row.get("planted", "good")][rule] += 1
    lines = ["| planted | rows | caught | by |", "|---|---|---|---|"]
    for kind, rules in sorted(kinds.items()):
        by = ", ".join(f"{rule} {count}" for rule, count in rules.most_common() if rule != KEPT)
        lines.append(f"| {kind} | {rules.total()} | {rules.total() - rules[KEPT]} | {by} |")
    return "\n".join(lines)


def test_there_are_200_good_rows_and_as_many_bad_ones(ground: Ground) -> None:
    good, bad = planted(ground.sources, ground.heldout)
    assert len(good) >= 200 and len(bad) >= 200
    assert set(Counter(row["planted"] for row in bad).values()) == {EACH}


def test_rules_without_a_judge_catch_the_bad_and_keep_the_good(verdicts: Verdicts) -> None:
    print("\n" + table(verdicts))
    missed: dict[str, list[str]] = defaultdict(list)
    lost = []
    for row, rule in verdicts.values():
        if "planted" not in row and rule != KEPT:
            lost.append(f"{rule}: {row['question']!r} -> {row['answer']!r}: {row.get('reason')}")
        elif "planted" in row and rule == KEPT:
            missed[row["planted"]].append(f"{row['question']!r} -> {row['answer']!r}")
    good = sum("planted" not in row for row, _ in verdicts.values())
    assert len(lost) <= MOST_LOST * good, "\n".join(lost)
    for kind, rows in missed.items():
        assert len(rows) <= (1 - LEAST_CAUGHT) * EACH, f"{kind}:\n" + "\n".join(rows)


def test_what_is_off_topic_is_found_in_leaves_of_four_seeds_as_well(ground: Ground) -> None:
    good, bad = planted(ground.sources, ground.heldout)
    few = {leaf: {**source, "seeds": source["seeds"][:4]} for leaf, source in ground.sources.items()}
    skills = [row for row in bad if row["planted"] == "off_topic" and row["kind"] != "knowledge"]
    verdicts = judge(Ground(few, ground.heldout), good, skills).values()
    assert skills and [row for row, rule in verdicts if rule == KEPT and "planted" in row] == []
    assert sum(rule == "off_topic" for row, rule in verdicts if "planted" not in row) <= MOST_LOST * len(good)


def test_the_rules_of_the_simple_flow_find_the_questions_that_a_sentence_does_not_answer(ground: Ground) -> None:
    answered, unanswered = asked_of_sentences(ground.sources)
    flow = load_flow("simple_knowledge")
    leaves = {leaf: profile(source) for leaf, source in ground.sources.items()}

    def kept(rows: list[dict[str, Any]]) -> float:
        rules = LeafRules(flow.file.rules, {})
        return sum(rules.broken(row, leaves[row["leaf"]])[0] is None for row in rows) / len(rows)

    assert len(answered) >= 70 and len(unanswered) >= 2000
    assert kept(answered) >= 0.75
    assert kept(unanswered) <= 0.01
