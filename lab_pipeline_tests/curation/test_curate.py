from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab_pipeline.core.rows import CURATED_SCHEMA, REJECTED_SCHEMA
from lab_pipeline.core.storage import write_rows
from lab_pipeline.curation.curate import Curation, funnel
from lab_pipeline.curation.profile import profile
from lab_pipeline.flows.flow import SHIPPED, Flow, Rule, load_flow
from lab_pipeline.teacher.protocol import NO_ANSWER
from lab_pipeline_tests.builders import edit_yaml

SEED = {
    "question": "What is the frame made of?",
    "answer": "It is made of the wood of an old and very tall tree.",
    "context": "The frame is made of the wood of an old and very tall tree.",
}
PLACES = "The city of Harsk, Osmerel and Thalveren was founded by Pellira Donsk. The others are Low, Least, High and None."
SOURCE: dict[str, Any] = {
    "kind": "knowledge",
    "task": "",
    "domain": "places",
    "outline": "",
    "seeds": [{**SEED, "question": f"What is the {side} frame made of?"} for side in ("north", "south", "east")],
    "passages": [{"heading": "", "text": PLACES}],
}
FLOW = load_flow("simple_knowledge", "knowledge")


def row(name: str, place: str = "Harsk", **columns: Any) -> dict[str, Any]:
    """A good row of the knowledge flow; rows of one place ask the same question."""
    empty = {**dict.fromkeys(CURATED_SCHEMA.names), "advice": []}
    good = {
        "id": name,
        "kind": "knowledge",
        "question": f"By whom was the city of {place} founded?",
        "answer": f"The city of {place} was founded by Pellira Donsk.",
        "support": f"The city of {place} was founded by Pellira Donsk.",
        "scores": [scored(0.9)],
    }
    return {**empty, **good, **columns}


def scored(score: float | None) -> dict[str, Any]:
    return {"judge": "faithful", "score": score, "verdict": "Yes"}


def judged_by_words(folder: Path) -> None:
    """Write the files that a gating judge `faithful` needs."""
    (folder / "faithful.yaml").write_text("- {role: user, content: 'Does this tell {{ question }} {{ support }}'}")
    known = [{"question": f"What is {number}?", "support": "A number."} for number in range(8)]
    (folder / "known_rows.yaml").write_text(yaml.safe_dump({"good": known, "bad": {"faithful": known}}))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """The knowledge flow with a judge that rejects below 0.5."""
    folder = shutil.copytree(SHIPPED / "simple_knowledge", tmp_path_factory.mktemp("flows") / "gated")
    edit_yaml(
        folder / "flow.yaml", lambda file: file.update(judges=[{"name": "faithful", "prompt": "faithful.yaml", "gates": True}])
    )
    judged_by_words(folder)
    return load_flow(str(folder), "knowledge")


def curate(rows: list[dict[str, Any]], source: dict[str, Any], flow: Flow) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return Curation(profile(source), flow).split(rows)


def rules_of(rows: list[dict[str, Any]], flow: Flow = FLOW) -> dict[str, str]:
    return {rejected["id"]: rejected["rule"] for rejected in curate(rows, SOURCE, flow)[1]}


def test_a_good_row_is_kept_as_it_is() -> None:
    assert curate([row("a")], SOURCE, FLOW) == ([row("a")], [])


def test_a_rejected_row_stands_there_whole_with_rule_and_reason() -> None:
    faulty = row("a", fault="answer empty", answer="")
    assert curate([faulty], SOURCE, FLOW) == ([], [{**faulty, "rule": "incomplete", "reason": "answer empty"}])


def test_of_rows_with_the_same_question_the_first_good_one_is_kept() -> None:
    rows = [
        row("bad", answer="The city of Harsk was founded ("),
        row("first"),
        row("again"),
        row("other", place="Osmerel"),
    ]
    kept, rejected = curate(rows, SOURCE, FLOW)
    assert [each["id"] for each in kept] == ["first", "other"]
    assert [(each["id"], each["rule"]) for each in rejected] == [("bad", "unfinished"), ("again", "duplicate")]
    assert rejected[1]["reason"] == "asks the same as row first"


def test_a_judge_that_only_advises_rejects_nothing() -> None:
    assert rules_of([row("low", scores=[scored(0.0)]), row("none", "Osmerel", scores=[scored(None)])]) == {}


def test_a_judge_that_gates_rejects_below_its_minimum_and_where_it_could_not_be_read(gated: Flow) -> None:
    scores = {"low": 0.49, "least": 0.5, "high": 0.9, "none": None}
    rows = [row(name, place=name.title(), scores=[scored(score)]) for name, score in scores.items()]
    assert rules_of(rows, gated) == {"low": "judge faithful", "none": "judge faithful unreadable"}


def test_a_row_that_a_rule_rejects_is_not_counted_against_the_judge(gated: Flow) -> None:
    faulty = row("a", fault="answer empty", answer=None, scores=[])
    assert rules_of([faulty], gated) == {"a": "incomplete"}


def test_a_row_that_a_judge_rejects_does_not_make_the_next_one_a_duplicate(gated: Flow) -> None:
    assert rules_of([row("low", scores=[scored(0.1)]), row("next")], gated) == {"low": "judge faithful"}


def test_rows_in_another_language_than_the_seeds_are_rejected() -> None:
    german = {
        "question": "Von wem wurde die Stadt Harsk damals gegründet?",
        "answer": "Die Stadt Harsk wurde damals von Pellira gegründet.",
    }
    assert rules_of([row("german", **german)]) == {"german": "other_language"}
    seed = {
        "question": "Woraus ist das hier gemacht?",
        "answer": "Das hier ist aus sehr schwerem Holz gemacht, wie man sieht.",
        "context": "Das hier ist aus sehr schwerem Holz gemacht, wie man sieht.",
    }
    german_source = {**SOURCE, "seeds": [seed] * 3, "passages": [{"heading": "", "text": " ".join(german.values())}]}
    assert [each["id"] for each in curate([row("german", **german, support=german["answer"])], german_source, FLOW)[0]] == [
        "german"
    ]


ROWS = st.lists(
    st.builds(
        lambda place, columns: {"place": place, **columns},
        st.sampled_from(["Harsk", "Osmerel", "Thalveren"]),
        st.sampled_from(
            [
                {},
                {"fault": "answer empty"},
                {"answer": "Nobody knows of bananas."},
                {"question": "By whom?"},
                {"scores": [scored(0.2)]},
                {"scores": [scored(None)]},
            ]
        ),
    ),
    max_size=15,
)


@given(ROWS)
def test_kept_and_rejected_are_the_rows_given_in_their_order_and_the_funnel_adds_up(
    gated: Flow, given_rows: list[dict[str, Any]]
) -> None:
    rows = [row(str(number), **columns) for number, columns in enumerate(given_rows)]
    kept, rejected = curate(rows, SOURCE, gated)
    without_rule = [{name: value for name, value in each.items() if name not in ("rule", "reason")} for each in rejected]
    for part in (kept, without_rule):
        assert part == [each for each in rows if each in part]
    assert sorted(kept + without_rule, key=lambda each: int(each["id"])) == rows
    counts = funnel(len(rows), len(kept), rejected)
    assert counts.pop("generated") == sum(counts.values()) == len(rows)
    assert counts.pop("kept") == len(kept)
    assert counts == Counter(each["rule"] for each in rejected)


def test_the_funnel_runs_from_generated_by_the_commonest_rules_to_kept() -> None:
    rejected = [{"rule": rule} for rule in ("refusal", "duplicate", "duplicate")]
    assert list(funnel(5, 2, rejected).items()) == [("generated", 5), ("duplicate", 2), ("refusal", 1), ("kept", 2)]


def test_both_parts_fit_their_tables(tmp_path: Path) -> None:
    kept, rejected = curate([row("a"), row("b")], SOURCE, FLOW)
    write_rows(tmp_path / "kept.parquet", kept, CURATED_SCHEMA)
    write_rows(tmp_path / "rejected.parquet", rejected, REJECTED_SCHEMA)


def test_a_judge_before_a_stage_stands_before_the_rules_and_rejects_what_it_stopped(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "simple_knowledge", tmp_path / "early")

    def answer_after_the_judge(file: dict[str, Any]) -> None:
        file["start"]["answers"] = False
        file["stages"].append({"output": "answer", "prompt": "question.yaml", "max_tokens": 40})
        judge = {"name": "faithful", "prompt": "faithful.yaml", "gates": True, "before": "answer", "minimum": 0.8}
        file["judges"] = [judge]

    edit_yaml(folder / "flow.yaml", answer_after_the_judge)
    judged_by_words(folder)
    early = load_flow(str(folder), "knowledge")
    stopped = {"answer": None, "fault": "stopped by judge faithful"}
    rows = [
        row("stopped", scores=[scored(0.3)], **stopped),
        row("unread", scores=[scored(None)], **stopped),
        row("doubtful", scores=[scored(0.6)], answer="Nobody knows."),
        row("cut", scores=[], question="When", answer=None, fault="question cut off at 40 tokens"),
        row("good", scores=[scored(0.9)]),
    ]
    assert rules_of(rows, early) == {
        "stopped": "judge faithful",
        "unread": "judge faithful unreadable",
        "doubtful": "judge faithful",
        "cut": "incomplete",
    }
    assert rules_of(rows[:1], early.trusting([])) == {"stopped": "incomplete"}


def test_advice_is_kept_with_the_row_and_rejects_nothing() -> None:
    advising = replace(FLOW, file=FLOW.file.model_copy(update={"rules": (Rule(rule="unsupported_number", advises=True),)}))
    wrong = row("wrong", answer="The city of Harsk was founded by Pellira Donsk in 1834.")
    kept, rejected = curate([wrong, row("right", "Osmerel")], SOURCE, advising)
    assert rejected == []
    assert [each["advice"] for each in kept] == [["unsupported_number: the number 1834 is not in the source"], []]


def test_a_row_that_lacks_a_text_goes_though_the_seeds_answer_without_a_letter() -> None:
    seeds = [{"question": f"Which crops does field {name} have?", "answer": "[]", "context": PLACES} for name in "ABC"]
    curation = Curation(profile({**SOURCE, "seeds": seeds}), FLOW)
    assert "incomplete" in curation.rules.off
    lacking = [
        row("cut", answer=None, fault="answer missing"),
        row("mute", question=None, answer=None, fault=f"{NO_ANSWER} (x)"),
    ]
    kept, rejected = curation.split(lacking)  # type: ignore[arg-type]
    assert (kept, [each["rule"] for each in rejected]) == ([], ["incomplete", "no_reply"])


def test_a_rule_that_the_seeds_break_is_off_and_says_why() -> None:
    seeds = [{"question": f"Who is {name}", "answer": f"I cannot answer that, {name}.", "context": PLACES} for name in "ABC"]
    off = Curation(profile({**SOURCE, "seeds": seeds}), FLOW).rules.off
    assert off["refusal"] == off["no_question"] == "3 of 3 seed examples break it"
