"""Render an evaluation for people, as one self-contained HTML file that loads nothing and runs nothing."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.formats import number, took
from lab_pipeline.core.storage import write_json, write_text
from lab_pipeline.core.verdict import Told, counted, label, likelihood, right_answers, times, what_is_left
from lab_pipeline.evaluation import report_text
from lab_pipeline.evaluation.details import QuestionResult, ReportDetails
from lab_pipeline.evaluation.marking import mark_answer
from lab_pipeline.evaluation.pictures import Axis, can_draw, curve, outcomes

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # leaves, questions and answers are contributors' text
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LISTED = 30
"""Maximum number of won questions that a report lists, and of lost ones."""
_FINDINGS = {"not measurable": "too few questions"}
MODELS = {"base": "base model", "champion": "old model", "candidate": "new model"}
"""What people read for each role."""


def write_report(evaluation: Evaluation, details: ReportDetails, questions: Sequence[QuestionResult]) -> None:
    """Write `report.md` to the path in `evaluation["report"]`, and beside it `report.html` and the data that it shows."""
    path = Path(evaluation["report"])
    write_json(path.with_name("details.json"), details)
    write_json(path.with_name("questions.json"), questions)
    write_text(path.with_suffix(".html"), report_html(evaluation, details, questions))
    write_text(path, report_text.report_markdown(evaluation))


def report_html(evaluation: Evaluation, details: ReportDetails, questions: Sequence[QuestionResult]) -> str:
    """Render the whole report as one HTML document.

    Args:
        questions: what each model did with each question, for what was won and lost.
    """
    told = Told(evaluation)
    reference = told.role
    leaves = [_leaf_row(evaluation, each, questions, reference) for each in evaluation["verdict"]["leaves"]]
    compared = [each["comparison"] for each in leaves if each["comparison"]]
    ends = [
        end
        for each in (*compared, *([told.gain] if told.gain else []))
        for end in (each["difference"], *(each["interval"] or []))
    ]
    everything = outcomes(questions, reference)
    return _TEMPLATES.get_template("report.html.jinja").render(
        evaluation=evaluation,
        details=details,
        told=told,
        reference=reference,
        models=["base", "candidate"] if reference == "base" else list(MODELS),
        names=MODELS,
        right=right_answers(evaluation),
        everything=everything,
        won=[each for each in questions if each["right"]["candidate"] and each["right"][reference] is False][:_LISTED],
        lost=[each for each in questions if each["right"][reference] and each["right"]["candidate"] is False][:_LISTED],
        leaves=leaves,
        widest=max([each["outcomes"].of for each in leaves], default=1) or 1,
        leaf_axis=Axis.of(ends),
        people_axis=_axis(details["leaves"]),
        exam_axis=_axis(details["exam"]),
        general=[{**row, "name": row["name"].replace("_", " ")} for row in details["general"]],
        general_axis=_axis(details["general"]),
        curves={phase: curve(report) for phase, report in details["training"].items()},
        recipe=yaml.safe_dump(evaluation["recipe"], sort_keys=False, allow_unicode=True),
        number=number,
        counted=counted,
        percent=lambda share: f"{share:.0%}",
        signed=_signed,
        with_commands=_with_commands,
        times=times,
        likelihood=likelihood,
        took=took,
        breakable=_breakable,
        duration=_duration,
        can_draw=can_draw,
        mark=mark_answer,
        score=report_text.judged_score,
        judged_difference=lambda difference: report_text.judged_difference(difference).replace("-", "−"),
        agreement=report_text.agreement_sentences,
        may_decide=report_text.may_decide,
        label=label,
        what_is_left=what_is_left,
    )


def _with_commands(text: str) -> Markup:
    """Escape a text, and set the commands in it apart as code."""
    parts = re.split(r"(lab-pipeline(?: (?:skills|knowledge)-\w+| [a-z-]+| [A-Z]+)+)", text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _leaf_row(
    evaluation: Evaluation, verdict: Mapping[str, Any], questions: Sequence[QuestionResult], reference: str
) -> dict[str, Any]:
    """Return what the report shows of a leaf: the gate's verdict on it, right answers before and now, and what was won."""
    leaf = verdict["leaf"]
    right = right_answers(evaluation, leaf)
    finding = _FINDINGS.get(verdict["finding"], verdict["finding"])
    note = ", refuses the new model" if verdict["veto"] else ", allowed" if verdict["role"] == "allowed" else ""
    return {
        **verdict,
        "comparison": verdict.get("comparison"),
        "changed": leaf in evaluation["changed"],
        "right": [right.get(reference), right.get("candidate")],
        "outcomes": outcomes((each for each in questions if each["leaf"] == leaf), reference),
        "finding": finding + note,
        "tone": {"better": "good", "worse": "bad"}.get(finding, "soft"),
    }


def _axis(rows: Sequence[Mapping[str, Any]]) -> Axis:
    return Axis.of(end for row in rows for end in (row["difference"], *(row["interval"] or [])))


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _breakable(leaf: str) -> Markup:
    """Allow a line break after each slash of a leaf's key."""
    return Markup("/<wbr>").join(leaf.split("/"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
