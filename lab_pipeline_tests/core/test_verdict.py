"""Every verdict of the gate in sentences, by value: what happened, why, and what to do next."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from lab_pipeline.core.verdict import Right, Told, right_answers, times
from lab_pipeline.evaluation.gate import Outcome
from lab_pipeline.evaluation.report_text import report_markdown
from lab_pipeline_tests.evaluation.cases import CASES, LOOM, ORDER, case

SENTENCES = {
    "promoted": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is promoted, "
    "because it finds each word of the right answers 2.0 times as likely.",
    "promoted though fewer right": "The new model answers 15 of 30 test questions right in multiple choice, the old one 18; "
    "it is promoted, although it answers fewer of them right, because it finds each word of the right answers 2.0 times as "
    "likely.",
    "first model": "The new model answers 8 of 12 test questions right in multiple choice, the base model before "
    "training 4; it is promoted, because it finds each word of the right answers 2.9 times as likely.",
    "not better": "The new model answers 18 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because so small a gain may be chance.",
    "worse for certain": "The new model answers 18 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it finds the right answers less likely than before, by more than chance explains.",
    "leaf got worse": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it got worse at “foundational_skills/reasoning/temporal/order_of_events”.",
    "worse elsewhere": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it may have got worse at what did not change.",
    "forgetting": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it may have forgotten general knowledge.",
    "acceptance lost": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it fails the required question “knowledge/geography/thalveren: harbour "
    "bell”, which the old model passes.",
    "answers got worse": "The new model answers 5 of 30 test questions right in multiple choice, the old one 28; it is "
    "not promoted, because it picks the right answer less often, by more than chance explains.",
    "judged worse": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because a judge finds its answers worse.",
    "measure got worse": "The new model answers 20 of 30 test questions right in multiple choice, the old one 16; it is "
    "not promoted, because it does worse in a test that your team lets decide.",
    "not enough evidence": "The new model answers 2 of 3 test questions right in multiple choice, the old one 1; it is not "
    "promoted, because there are too few test questions to tell.",
    "unchanged": "Training gave the very model that is in use already, file for file, so nothing changes.",
    "taken out and forgotten": "The new model answers 15 of 24 test questions right in multiple choice, the old one 14; "
    "it is promoted, because “knowledge/crafts/osmerel_loom” had to go and nothing else got worse by more than is tolerated.",
    "taken out and still known": "The new model answers 15 of 24 test questions right in multiple choice, the old one 14; "
    "it is promoted, because “knowledge/crafts/osmerel_loom” had to go and nothing else got worse by more than is tolerated; "
    "but it still knows part of “knowledge/crafts/osmerel_loom”.",
}
NEXT = {
    "promoted": "Nothing has to be done",
    "promoted though fewer right": "Read the lost questions below, and ask the new model yourself",
    "first model": "Nothing has to be done",
    "not better": "The old model stays in use. The gain may be real, but is too small for this exam. To see "
    "smaller gains, write seeds",
    "worse for certain": "The old model stays in use. Read what the new model was taught",
    "leaf got worse": "The old model stays in use. Read the lost questions below. If new documents contradict old "
    "ones, mend them.",
    "worse elsewhere": "The old model stays in use. Read the lost questions below. If new documents contradict old "
    "ones, mend them.",
    "forgetting": "The old model stays in use. In the recipe, repeat more general rows",
    "acceptance lost": "The old model stays in use. Add seeds or documents that say what the question asks for",
    "answers got worse": "The old model stays in use. Read the lost questions below: the rows may teach a style",
    "judged worse": "The old model stays in use. Read the answers below, and decide whether the judge is right.",
    "measure got worse": "The old model stays in use. Raise its tolerance under measures in settings.yaml",
    "not enough evidence": "The old model stays in use. At least 2 more test questions are needed: write seeds",
    "unchanged": "Nothing. The next change of the taxonomy starts a new try.",
    "taken out and forgotten": "Nothing has to be done",
    "taken out and still known": "Look for other leaves or documents that say what was taken out, withdraw them too, ",
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_says_what_happened(name):
    assert Told(case(name)[0]).sentence == SENTENCES[name]


@pytest.mark.parametrize("name", CASES)
def test_every_verdict_ends_in_what_to_do_next(name):
    assert Told(case(name)[0]).next.startswith(NEXT[name])


def test_every_outcome_has_a_case():
    assert {case(name)[0]["verdict"]["outcome"] for name in CASES} == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "promoted",
            "How fine this exam is: it notices a gain of 1.3 times or more in 8 of 10 cases; smaller gains it often misses.",
        ),
        ("first model", "There was no model before it, so it is compared with the base model, which was taught none of this."),
        (
            "first model",
            "With so few leaves, the verdict rests on single questions and a set allowance for a retrain's luck.",
        ),
        ("promoted though fewer right", "it may have learned their style, not their facts."),
        ("not enough evidence", "There are 3 test questions about what changed; 5 are needed, so 2 are missing."),
        (
            "acceptance lost",
            "it answers “It is called Sallow Basin.”, which fails: the answer lacks 'Old Marrow'. The answer of the old model, "
            "which passes: “It is called Old Marrow.”.",
        ),
        ("measure got worse", "In the test arithmetic it scores 52.0%, the old model 61.0%."),
        ("acceptance lost", "Of 2 required questions (exam.yaml) it passes 1, the old model 2."),
        ("leaf got worse", f"{ORDER}, 0."),
        ("forgetting", "too much may be forgotten."),
        ("judged worse", "A judge gives its answers 0.40 of 1, those of the old model 0.70."),
        ("taken out and forgotten", f"Taken out: {LOOM}. Nothing is left for certain: its right answers are "),
        ("taken out and still known", "Warning: the new model still has 50% of what the old one had learned of it."),
    ],
)
def test_the_reasons_tell_what_a_person_should_know(name, said):
    assert said in " ".join(Told(case(name)[0]).reasons)


@pytest.mark.parametrize("name", CASES)
def test_no_sentence_needs_a_statistician(name):
    told = Told(case(name)[0])
    text = " ".join([told.sentence, *told.reasons, told.next])
    for word in ("nats", "likelihood", "interval", "confidence", "candidate", "e-0"):
        assert word not in text.replace(case(name)[0]["candidate"], "")
    assert report_markdown(case(name)[0]).splitlines()[2].startswith("**")


def test_what_unchanged_leaves_show_as_well_is_told_apart():
    evaluation: Any = case("promoted")[0]
    gain = {**evaluation["verdict"]["gain"], "difference": -1.0, "shift": -0.5, "interval": [-1.2, -0.8]}
    told = Told({**evaluation, "verdict": {**evaluation["verdict"], "gain": gain}})
    assert "4.5 times as likely" in told.sentence, "what the model does"
    said = " ".join(told.reasons)
    assert "4.5 times the probability that the old model gives it. Unchanged leaves, taught nothing new: 1.6 times" in said
    assert "without that, 2.7 times (2.2 to 3.3 times once chance is allowed for)." in said
    refused = {**evaluation["verdict"], "promoted": False, "outcome": "not better", "gain": {**gain, "shift": 0.95}}
    assert "training the old one again might gain as much by luck" in Told({**evaluation, "verdict": refused}).sentence
    less = {**gain, "difference": 0.2, "shift": -0.3, "interval": [0.1, 0.3]}
    assert "it gained less than leaves" in Told({**evaluation, "verdict": {**refused, "gain": less}}).sentence


def test_an_evaluation_of_an_earlier_release_is_told_still():
    evaluation: Any = dict(case("not better")[0])
    verdict = {"promoted": False, "outcome": "not better", "reason": "no", "leaves": []}
    evaluation |= {"verdict": verdict, "heldout": {"candidate": 1.0}}
    for missing in ("exam", "acceptance", "unlearned", "policy", "judged"):
        del evaluation[missing]
    told = Told(evaluation)
    assert told.sentence == "A new model was trained; it is not promoted, because so small a gain may be chance."
    assert told.reasons and told.next.startswith("The old model stays in use.")


def test_right_answers_count_peoples_and_the_teachers_questions():
    score = {"questions": 21, "accuracy": 12 / 21}
    leaf = {"ranks": {"candidate": score, "champion": None}}
    group = {**leaf, "leaves": {"a": leaf}}
    assert right_answers({"heldout": group, "exam": group}) == {"candidate": Right(24, 42)}
    assert right_answers({"heldout": group}, "a") == {"candidate": Right(12, 21)} and str(Right(12, 21)) == "12 of 21"
    assert right_answers({"heldout": group}, "b") == {}


def test_a_change_in_nats_is_told_as_times_as_likely():
    told = {-0.693: "2.0", 0.0: "1.00", 0.5: "0.61", -3.0: "20", -40.0: "more than 1,000", float("nan"): "an unknown number of"}
    assert {change: times(change) for change in told} == told
