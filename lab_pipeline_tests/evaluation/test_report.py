from __future__ import annotations

import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from lab_pipeline.evaluation import report
from lab_pipeline.evaluation.report_text import report_markdown
from lab_pipeline.training.train import TrainingReport

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    '" onmouseover="alert(1)',
    "a" * 3000,
    "שלום \u202e gnihtyreve esrever",
    "| pipe ` tick\nline",
]
VOID = {"meta", "img", "br", "wbr", "line", "polyline", "circle", "rect"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; an element that is not closed where it should be is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "wbr":
            self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def compared(name: str, questions: int = 4, difference: float = -0.5, champion: bool = True) -> dict[str, Any]:
    losses: dict[str, Any] = {"base": 2.0, "candidate": 1.0} | ({"champion": 1.5} if champion else {})
    return {
        "name": name,
        "questions": questions,
        "losses": losses if questions else dict.fromkeys(losses),
        "difference": difference if questions else None,
        "interval": [difference - 0.25, difference + 0.25] if questions else None,
    }


def asked(text: str, models: list[str], difference: float = -0.5) -> dict[str, Any]:
    return {
        "leaf": text,
        "question": text,
        "answer": text,
        "context": text,
        "difference": difference,
        "losses": dict.fromkeys(models, 1.0),
        "answers": dict.fromkeys(models, text),
        "right": dict.fromkeys(models, True),
    }


def evaluated(leaves: list[str], champion: bool = True, measurable: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """An evaluation with its details; every text of it is the name of a leaf."""
    models = ["base", "champion", "candidate"] if champion else ["base", "candidate"]
    questions = 4 if measurable else 0
    measured = {
        "base": 2.0,
        "champion": 1.5 if champion else None,
        "candidate": 1.0,
        "difference": -1.0,
        "interval": [-1.5, -0.5],
        "questions": 4,
    }
    ranked = {"questions": 4, "accuracy": 0.5, "reciprocal_rank": 0.7, "by_guessing": 0.2}
    measured["ranks"] = {"base": ranked, "champion": ranked if champion else None, "candidate": ranked}
    empty = {**dict.fromkeys(measured), "questions": 0, "ranks": dict.fromkeys(["base", "champion", "candidate"])}
    chosen = {"epoch": 2, "of": 10, "why": "it has the lowest loss"}
    found = {"questions": 4, "difference": 0.5, "interval": [0.25, 0.75]} if measurable else None
    says = [
        {"leaf": leaf, "role": "changed", "finding": "worse", "veto": leaf == leaves[0], "comparison": found} for leaf in leaves
    ]
    evaluation = {
        "candidate": "skills-1",
        "digest": "d1",
        "reference": "skills-0" if champion else "base",
        "base_model": leaves[0],
        "taxonomy_commit": "",
        "snapshot": "s1",
        "changed": leaves[:2],
        "verdict": {"promoted": False, "outcome": "not better", "reason": leaves[0], "leaves": says},
        "heldout": {**(measured if measurable else empty), "leaves": dict.fromkeys(leaves, measured if measurable else empty)},
        "exam": {**(measured if measurable else empty), "leaves": {leaves[0]: measured} if measurable else {}},
        "judged": None,
        "unlearned": [
            {
                "leaf": leaves[-1],
                "questions": 4,
                "base": 4.0,
                "champion": 2.0,
                "candidate": 3.0,
                "interval": [-1.4, -0.6],
                "still_known": 0.5,
            }
        ],
        "acceptance": [
            {
                "leaf": leaves[0],
                "name": leaves[0],
                "question": leaves[0],
                "answers": dict.fromkeys(models, leaves[0]),
                "failures": {**dict.fromkeys(models), "candidate": leaves[0]},
            }
        ],
        "general": measured if measurable else empty,
        "leaves": [
            {"leaf": leaf, "kind": "knowledge", "rows": 7, "state": "current", "contributor": leaf, "document_commit": leaf}
            for leaf in leaves
        ],
        "datasets": {"knowledge": "k1", "skills": "k2"},
        "checkpoints": {"knowledge": "knowledge-1", "skills": "skills-1"},
        "recipe": {"name": leaves[0]},
        "chosen": {"knowledge": chosen, "skills": TrainingReport().chosen},
        "seed": 17,
        "evaluated_at": "2026-02-03T04:05:06+00:00",
    }
    points = [{"step": step, "loss": 3 / step, "learning_rate": 0.1} for step in range(1, 1001)]
    measured_after = [
        {"epoch": epoch, "step": 100 * epoch, "leaves": 3.5 / (epoch + 1), "general": 1 + epoch / 20, "by_leaf": {}}
        for epoch in range(11)
    ]
    report = {
        "rows": 3,
        "validation_rows": 1,
        "tokens": 70_000,
        "steps": 1000,
        "final_loss": 0.1,
        "seconds": 4000.0,
        "peak_rss_mib": 900,
    }
    details = {
        "confidence": 0.95,
        "leaves": [compared(leaf, questions, champion=champion) for leaf in leaves],
        "exam": [compared(leaves[0], champion=champion)] if measurable else [],
        "general": [compared("everyday_life", champion=champion)] if measurable else [],
        "gained": [asked(leaf, models) for leaf in leaves[:3]] if measurable else [],
        "lost": [asked(leaf, models, 0.5) for leaf in leaves[3:6]] if measurable else [],
        "history": [
            {
                "candidate": "skills-1",
                "at": "2026-02-03T04:05:06+00:00",
                "promoted": False,
                "outcome": "not better",
                "right": [2, 4] if measurable else None,
                "loss": 1.0,
            }
        ],
        "training": {
            "knowledge": {**report, "curve": points, "validation": measured_after, "chosen": chosen},
            "skills": asdict(TrainingReport()),
        },
        "versions": {"torch": "2.13"},
        "teacher": {"calls": 1234, "prompt_tokens": 5, "completion_tokens": 6},
    }
    return evaluation, details


def report_html(evaluation: Any, details: Any) -> str:
    """The report; of each leaf, one question was won and one was lost."""
    leaves = [each["leaf"] for each in evaluation["verdict"]["leaves"]] if details["leaves"][0]["questions"] else []
    before = "base" if evaluation["reference"] == "base" else "champion"
    results: Any = [
        {"leaf": leaf, "by": "people", "question": leaf, "right": {"base": False, before: before_right, "candidate": now}}
        for leaf in leaves
        for before_right, now in ((False, True), (True, False))
    ]
    return report.report_html(evaluation, details, results)


@pytest.mark.parametrize("champion", [True, False])
def test_hostile_text_is_shown_and_never_run(champion):
    plain = Page(report_html(*evaluated([f"leaf {n}" for n in range(len(HOSTILE))], champion)))
    page = Page(report_html(*evaluated(HOSTILE, champion)))
    assert page.tags == plain.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    for text in HOSTILE:
        assert text in page.text


def test_the_page_loads_nothing():
    page = Page(report_html(*evaluated(["a/leaf"])))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "data"} & {name for name, _ in page.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_verdict_comes_first_with_its_reason():
    page = Page(report_html(*evaluated(["the reason", "other"])))
    body = page.text[page.text.index("@media print") :]
    order = [
        "Not promoted",
        "The new model answers",
        "Why",
        "What to do next.",
        "50% → 50%",
        "What was won and lost",
        "By leaf",
        "Who forgot them",
        "Required questions",
        "Examples",
        "History",
        "Statistics",
        "the gate's own words",
        "General knowledge",
        "Training",
        "Costs",
        "Lineage",
    ]
    places = [body.index(said) for said in order]
    assert places == sorted(places)


def test_three_hundred_leaves_stand_in_tables_the_changed_ones_open():
    leaves = [f"knowledge/leaf_{n:03}" for n in range(300)]
    page = report_html(*evaluated(leaves))
    parsed = Page(page)
    assert "2 new or changed leaves" in parsed.text and "298 other leaves" in parsed.text
    assert page.count("<details open>") == 3, "the changed leaves, what was lost, and the teacher's few questions"
    assert page.count("<wbr>leaf_299") == 4, "in the picture, taken out, with its losses, its lineage"
    assert "300 questions lost (the first 30)" in parsed.text


def test_nothing_measurable_is_said():
    page = Page(report_html(*evaluated(["a/leaf"], champion=False, measurable=False)))
    for said in ("not measurable", "No leaf has a test question.", "There are no general questions."):
        assert said in page.text


def test_figures_are_written_for_people():
    page = Page(report_html(*evaluated(["a/leaf"])))
    for said in (
        "1,234 calls",
        "1,000 steps over 3 rows (70,000 tokens) in 1 h 6 min",
        "−0.500",
        "−0.750 to −0.250",
        "50% → 50%",
        "4 → 4 of 8 questions",
    ):
        assert said in page.text
    assert "Nothing to learn in this phase." in page.text


def test_losses_that_are_no_numbers_break_no_plot():
    evaluation, details = evaluated(["a/leaf"])
    details["leaves"] = [compared("a/leaf", difference=float("nan"))]
    details["training"]["knowledge"]["curve"][3]["loss"] = float("nan")
    page = Page(report_html(evaluation, details))
    assert "not measurable" in page.text
    assert not [value for _, value in page.attributes if "nan" in value]


def test_the_chosen_epoch_is_told_and_validation_is_drawn_over_the_training_loss():
    evaluation, details = evaluated(["a/leaf"])
    details["training"]["knowledge"]["validation"][3]["leaves"] = float("nan")
    page, text = report_html(evaluation, details), report_markdown(evaluation)
    assert "Epoch 2 of 10 was taken: it has the lowest loss." in page
    assert "- knowledge phase: Epoch 2 of 10 was taken: it has the lowest loss." in text
    assert "- skills phase: Nothing to learn in this phase." in text
    (general,) = re.findall('<polyline class="general" points="([^"]*)"', page)
    (leaves,) = re.findall('<polyline class="leaves" points="([^"]*)"', page)
    assert (len(general.split()), len(leaves.split())) == (11, 10)
    assert leaves.split()[0] == "0.00,0.00", "the highest loss is the top of the frame"
    assert general.split()[-1].startswith("100.00,")


def test_plots_stay_in_their_frame():
    evaluation, details = evaluated(["a/leaf", "b/leaf"])
    details["leaves"] = [compared("a/leaf", difference=-40.0), compared("b/leaf", difference=2.0)]
    page = Page(report_html(evaluation, details))
    places = [float(value.rstrip("%")) for name, value in page.attributes if name in ("x1", "x2", "cx")]
    assert places and min(places) > 0 and max(places) < 100
    bars = [(name, float(value.rstrip("%"))) for name, value in page.attributes if name in ("x", "width") and "%" in value]
    assert bars and all(0 <= place <= 100 for _, place in bars)
    for name, value in page.attributes:
        if name == "points":
            assert all(0 <= float(place) <= 100 for point in value.split() for place in point.split(","))


def test_hostile_leaf_names_break_no_markdown_table():
    text = report_markdown(evaluated(HOSTILE)[0])
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 + len(HOSTILE)
    assert all(row.count("|") == 8 for row in rows)


def test_right_answers_and_vetoes_are_told():
    evaluation, details = evaluated(["a/leaf", "b/leaf"])
    page, text = report_html(evaluation, details), report_markdown(evaluation)
    assert "guessing would be right in 20% of cases" in page and page.count("refuses the new model") == 1
    assert "Right in multiple choice: base 4 of 8, champion 4 of 8, candidate 4 of 8 (by guessing 20%)." in text
    evaluation, details = evaluated(["a/leaf"], champion=False, measurable=False)
    assert "No question could be asked in multiple choice." in report_html(evaluation, details)
    assert "guessing" not in report_markdown(evaluation)


def test_no_wrong_answer_stands_under_a_mark_of_right():
    evaluation, details = evaluated(["a/leaf"])
    question = details["gained"][0] | {"question": "Which bell rings?", "answer": "Old Marrow rings.", "difference": -2.0}
    answers = {"base": "", "champion": "The bell of Marrow rings.", "candidate": "It is the Sallow bell."}
    details["gained"] = [question | {"answers": answers, "right": {"base": False, "champion": False, "candidate": True}}]
    text = " ".join(Page(report_html(evaluation, details)).text.split())
    assert "new model says✗ wrong It is the Sallow bell. Lacks Old, Marrow. In multiple choice: right." in text
    assert "old model says◐ partly right The bell of Marrow rings. Lacks Old. In multiple choice: wrong." in text
    assert "in multiple choice ✓ won" in text and "base model says✗ wrong (nothing)" in text


def judged_answers(leaf: str, holds: bool = True) -> dict[str, Any]:
    score = {"answers": 4, "score": 0.75, "words": 9.6}
    models = {"base": score, "champion": None, "candidate": score}
    agreement = {
        "graded": 8,
        "not_graded": 1,
        "unreadable_replies": 5,
        "alike": 0.5,
        "repeats": 0.9,
        "orders": 0.6,
        "order_shift": -0.125,
    }
    return {
        "judge": leaf,
        "unanswered": None,
        "known_rows": {"rows": 52, "area": 0.95, "interval": [0.87, 0.98], "separates": holds, "agreement": agreement},
        "agreement": agreement,
        "models": models,
        "leaves": {leaf: models},
        "compared": 4,
        "raw": {"difference": 0.25, "interval": [0.125, 0.375]},
        "equal_length": None,
    }


@pytest.mark.parametrize("holds", [True, False])
def test_judged_answers_are_told_with_agreement_and_what_they_are_worth(holds: bool):
    evaluation, details = evaluated(["a/leaf"])
    evaluation["judged"] = judged_answers("a/leaf", holds)
    page, text = Page(report_html(evaluation, details)).text, report_markdown(evaluation)
    for told in (page, text):
        assert "a/leaf" in told and "0.75" in told and "+0.25 (+0.12 to +0.38)" in told
        assert "not measurable" in told and "agree for 50% of 8 answers" in told
        assert "in 90% of cases, in different orders in 60%" in told
        assert "Unreadable replies: 5; answers without a grade: 1." in told and "0.95 (0.87 to 0.98)" in told
        assert ("advice only" in told) != holds == ("may refuse" in told)


def test_a_judge_that_did_not_answer_is_told_and_one_that_is_not_there_is_not():
    evaluation, details = evaluated(["a/leaf"])
    for told in (report_html(evaluation, details), report_markdown(evaluation)):
        assert "judged" not in told.casefold()
    evaluation["judged"] = {"judge": "strict", "unanswered": "the judge did not answer: <script>HTTP 503</script>"}
    page = Page(report_html(evaluation, details))
    assert "script" not in page.tags and "<script>HTTP 503</script>" in page.text
    assert "No answer was judged" in report_markdown(evaluation)


def test_hostile_texts_break_no_judged_part():
    for text in HOSTILE:
        evaluation, details = evaluated([text])
        evaluation["judged"] = judged_answers(text)
        assert {"script", "img"}.isdisjoint(Page(report_html(evaluation, details)).tags)
        rows = [line for line in report_markdown(evaluation).splitlines() if line.startswith("| ")]
        assert rows[-1].count("|") == 5
