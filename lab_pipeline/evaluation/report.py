"""Render an evaluation for people: as Markdown for the Dagster UI, and as one self-contained HTML file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jinja2
import yaml
from markupsafe import Markup

from lab_pipeline.core.evaluation import (
    AcceptanceResult,
    Agreement,
    ChoiceScore,
    Evaluation,
    JudgedAnswers,
    JudgedDifference,
    JudgedMean,
    KnownSeparation,
    Measurement,
)
from lab_pipeline.core.formats import number, took
from lab_pipeline.core.storage import write_json, write_text
from lab_pipeline.evaluation.acceptance import label
from lab_pipeline.evaluation.details import GroupLosses, ReportDetails
from lab_pipeline.evaluation.unlearning import unlearning_sentence

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # leaves, questions and answers are contributors' text
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_POINTS = 400
"""Maximum number of points of a drawn training curve; longer curves are averaged."""


def write_report(evaluation: Evaluation, details: ReportDetails) -> None:
    """Write `report.md` to the path in `evaluation["report"]`, and `details.json` and `report.html` beside it."""
    path = Path(evaluation["report"])
    write_json(path.with_name("details.json"), details)
    write_text(path.with_suffix(".html"), report_html(evaluation, details))
    write_text(path, report_markdown(evaluation))


def report_markdown(evaluation: Evaluation) -> str:
    """Render the short report as Markdown: verdict, losses by leaf, multiple choice, chosen epochs, judged answers."""
    groups: dict[str, Measurement] = {
        "**all leaves**": evaluation["heldout"],
        **{_code(leaf): measured for leaf, measured in sorted(evaluation["heldout"]["leaves"].items())},
        **{f"{_code(leaf)}, by the teacher": measured for leaf, measured in sorted(evaluation["exam"]["leaves"].items())},
        "**general questions**": evaluation["general"],
    }
    lines = [
        f"# {_title(evaluation)}",
        "",
        plain_verdict(evaluation),
        "",
        f"Why: {evaluation['verdict']['reason']}.",
        "",
        f"Candidate `{evaluation['candidate']}` against `{evaluation['reference']}`; base model {evaluation['base_model']}. "
        "Mean negative log-likelihood in nats per answer token, lower is better; difference and interval are candidate minus "
        "base.",
        "",
        "| questions of | number | base | champion | candidate | difference | interval |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, measured) for name, measured in groups.items()),
        "",
        *_ranks(evaluation["heldout"]["ranks"]),
        *(f"- {phase} phase: {took(chosen)}." for phase, chosen in evaluation["chosen"].items()),
        "",
        *_judged(evaluation["judged"]),
        *_acceptance(evaluation["acceptance"]),
        *[f"- taken out: {_code(each['leaf'])}: {unlearning_sentence(each)}." for each in evaluation["unlearned"]],
        f"Changed leaves: {', '.join(_code(leaf) for leaf in evaluation['changed']) or 'none'}.",
        f"Evaluated at {evaluation['evaluated_at']}.",
    ]
    return "\n".join(lines) + "\n"


def report_html(evaluation: Evaluation, details: ReportDetails) -> str:
    """Render the whole report as one HTML document that loads nothing and runs nothing."""
    reference = "base" if evaluation["reference"] == "base" else "champion"
    reason = evaluation["verdict"]["reason"]
    return _TEMPLATES.get_template("report.html.jinja").render(
        evaluation=evaluation,
        details=details,
        verdict=_title(evaluation),
        plain=plain_verdict(evaluation),
        reason=f"{reason[:1].upper()}{reason[1:]}.",
        reference=reference,
        models=["base", "candidate"] if reference == "base" else ["base", "champion", "candidate"],
        leaves=[{**row, "changed": row["name"] in evaluation["changed"]} for row in details["leaves"]],
        leaf_scale=_Scale.of(details["leaves"]),
        exam_scale=_Scale.of(details["exam"]),
        general=[{**row, "name": row["name"].replace("_", " ")} for row in details["general"]],
        general_scale=_Scale.of(details["general"]),
        curves={phase: _curve(report) for phase, report in details["training"].items()},
        recipe=yaml.safe_dump(evaluation["recipe"], sort_keys=False, allow_unicode=True),
        number=number,
        percent=lambda share: f"{share:.0%}",
        signed=_signed,
        took=took,
        breakable=_breakable,
        duration=_duration,
        score=_score,
        judged_difference=lambda difference: _judged_difference(difference).replace("-", "−"),
        agreement=_agreement,
        may_decide=may_decide,
        label=label,
        unlearning_sentence=unlearning_sentence,
    )


_PLAIN: dict[str, str] = {
    "better": "The new model knows the changed subjects better than {before} and got worse nowhere that matters, so it is "
    "promoted.",
    "no worse": "Leaves were taken out, and what remains is known as well as before, so the new model is promoted.",
    "unchanged": "Training gave the very model that is the champion already, so nothing changes.",
    "not enough evidence": "There are too few test questions to tell whether the new model is better than {before}, so it is "
    "not promoted.",
    "not better": "The new model could not be shown to know the changed subjects better than {before}, so it is not promoted.",
    "worse elsewhere": "The new model may have got worse at subjects that did not change, so it is not promoted.",
    "leaf got worse": "The new model certainly got worse at one subject or more, so it is not promoted.",
    "forgetting": "The new model may have forgotten general knowledge that {before} has, so it is not promoted.",
    "judged worse": "A judge finds the answers of the new model worse than those of {before}, so it is not promoted.",
    "acceptance lost": "The new model fails a question that people require and that {before} passes, so it is not promoted.",
    "measure got worse": "The new model does worse than {before} in a test that this team lets decide, so it is not promoted.",
    "answers got worse": "The new model picks the right answer less often than {before}, whatever its loss says, so it is not "
    "promoted.",
}
"""What each outcome means, in a sentence for people who know no statistics."""


def plain_verdict(evaluation: Evaluation) -> str:
    """Return the verdict in one plain sentence."""
    before = "the untrained base model" if evaluation["reference"] == "base" else "the present champion"
    return _PLAIN[evaluation["verdict"]["outcome"]].format(before=before)


def may_decide(known: KnownSeparation) -> str:
    """Say in one sentence whether the judge's scores may refuse a candidate, and why."""
    low, high = known["interval"]
    area = f"its area under the curve over {known['rows']} known rows is {known['area']:.2f} ({low:.2f} to {high:.2f})"
    if known["separates"]:
        return f"The judge separates known rows, so it may refuse a candidate: {area}."
    return f"The scores are advice only, because the judge does not separate known rows well enough: {area}."


def _title(evaluation: Evaluation) -> str:
    verdict = evaluation["verdict"]
    return f"{'Promoted' if verdict['promoted'] else 'Not promoted'}: {verdict['outcome']}"


def _row(name: str, measured: Measurement) -> str:
    if measured["difference"] is None:
        return f"| {name} | 0 | - | - | - | - | not measurable |"
    interval = "{:+.3f} to {:+.3f}".format(*measured["interval"]) if measured["interval"] else "one question"
    numbers = " | ".join(number(loss) for loss in (measured["base"], measured["champion"], measured["candidate"]))
    return f"| {name} | {measured['questions']} | {numbers} | {measured['difference']:+.3f} | {interval} |"


def _ranks(ranks: Mapping[str, ChoiceScore | None]) -> list[str]:
    candidate = ranks["candidate"]
    if not candidate:
        return []
    accuracies = ", ".join(f"{model} {score['accuracy']:.0%}" for model, score in ranks.items() if score)
    return [f"Multiple choice, reference answer likeliest: {accuracies} (by guessing {candidate['by_guessing']:.0%}).", ""]


def _judged(judged: JudgedAnswers | None) -> list[str]:
    if judged is None:
        return []
    if judged["unanswered"]:
        return [f"No answer was judged: {_code(judged['unanswered'])}.", ""]
    scores = ", ".join(f"{model} {_score(mean)}" for model, mean in judged["models"].items())
    return [
        f"Answers judged by {_code(judged['judge'])}, from 0, wrong, to 1, right: {scores}. Candidate minus reference: "
        f"{_judged_difference(judged['raw'])}; at equal length {_judged_difference(judged['equal_length'])}. "
        f"{_agreement(judged['agreement'])} {may_decide(judged['known_rows'])}",
        "",
        "| judged answers to | base | champion | candidate |",
        "|---|---|---|---|",
        *(
            f"| {_code(leaf)} | {' | '.join(_score(means.get(model)) for model in ('base', 'champion', 'candidate'))} |"
            for leaf, means in judged["leaves"].items()
        ),
        "",
    ]


def _acceptance(results: Sequence[AcceptanceResult]) -> list[str]:
    if not results:
        return []
    failed = [(label(each), why) for each in results if (why := each["failures"]["candidate"])]
    return [
        f"Acceptance questions passed: {', '.join(_passed(results).values())}.",
        "",
        *(f"- failed by the candidate: {_code(name)}: {_code(why)}" for name, why in failed),
        *([""] if failed else []),
    ]


def _passed(results: Sequence[AcceptanceResult]) -> dict[str, str]:
    """Say for each model how many of the acceptance questions it passes."""
    models = results[0]["failures"]
    return {model: f"{model} {sum(each['failures'][model] is None for each in results)} of {len(results)}" for model in models}


def _score(mean: JudgedMean | None) -> str:
    return f"{mean['score']:.2f}" if mean else "-"


def _judged_difference(difference: JudgedDifference | None) -> str:
    if difference is None:
        return "not measurable"
    interval = "{:+.2f} to {:+.2f}".format(*difference["interval"]) if difference["interval"] else "one question"
    return f"{difference['difference']:+.2f} ({interval})"


def _agreement(agreement: Agreement) -> str:
    """Say in sentences how far the judge's readings agree, and how many replies could not be read; empty without either."""
    text = ""
    if agreement["graded"]:
        text = (
            f"All readings of an answer agree for {agreement['alike']:.0%} of {agreement['graded']} answers. Two readings in "
            f"the same order agree in {_percent(agreement['repeats'])} of cases, in different orders in "
            f"{_percent(agreement['orders'])}; with the reference first, scores differ by {agreement['order_shift']:+.2f}."
        )
    if agreement["unreadable_replies"]:
        text += f" Unreadable replies: {agreement['unreadable_replies']}; answers without a grade: {agreement['not_graded']}."
    return text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _code(text: str) -> str:
    """Quote text as Markdown code, so that it can end neither the code nor a table cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"


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


@dataclass(frozen=True)
class _Scale:
    """Common axis of a table's interval plots, with zero always on it and room on both sides of zero."""

    low: float
    high: float

    @classmethod
    def of(cls, rows: Sequence[GroupLosses]) -> Self:
        ends = [end for row in rows if row["interval"] for end in row["interval"] if math.isfinite(end)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        low, high = 1.1 * min(low, -high / 3) or -1.0, 1.1 * max(high, -low / 3) or 1.0  # room on both sides of zero
        return cls(low, high)

    def at(self, value: float) -> float:
        """Return the position of a value on the axis, in percent from its low end."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @staticmethod
    def can_draw(row: GroupLosses) -> bool:
        """Tell whether the row can be drawn: not without questions, and not if a broken model's losses are not finite."""
        return all(_is_finite(value) for value in (row["difference"], *(row["interval"] or [])))


def _curve(report: Mapping[str, Any]) -> Mapping[str, object] | None:
    """Draw the training and validation losses of a phase's `TrainingReport` as polylines in a square of 100 by 100.

    Training losses are drawn raw and smoothed; `top` is the largest loss drawn. Losses that are not finite are left out. None
    if no finite training loss is left.
    """
    points = [point for point in report["curve"] if math.isfinite(point["loss"])]
    if not points:
        return None
    every = math.ceil(len(points) / _POINTS)
    losses = [_mean([point["loss"] for point in points[at : at + every]]) for at in range(0, len(points), every)]
    window = max(1, len(losses) // 20)
    smooth = [_mean(losses[max(0, at - window) : at + window + 1]) for at in range(len(losses))]
    steps = int(points[-1]["step"])
    validation = {
        group: [(each["step"] / steps, each[group]) for each in report["validation"] if _is_finite(each[group])]
        for group in ("leaves", "general")
    }
    top = max([*losses, *(loss for points in validation.values() for _, loss in points)])
    across = 1 / max(1, len(losses) - 1)
    return {
        "raw": _polyline([(at * across, loss) for at, loss in enumerate(losses)], top),
        "smooth": _polyline([(at * across, loss) for at, loss in enumerate(smooth)], top),
        "validation": {group: _polyline(points, top) for group, points in validation.items() if points},
        "top": top,
        "steps": steps,
    }


def _is_finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)


def _polyline(points: list[tuple[float, float]], top: float) -> str:
    return " ".join(f"{100 * across:.2f},{100 - 100 * loss / (top or 1):.2f}" for across, loss in points)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
