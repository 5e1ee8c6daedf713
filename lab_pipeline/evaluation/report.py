"""The evaluation for people: as Markdown for the Dagster UI, and as one HTML file that stands by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from lab_pipeline.core.formats import number, took

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # leaves, questions and answers are contributors' text
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_POINTS = 400
"""Points drawn of a training curve at most."""


def report_markdown(evaluation: dict[str, Any]) -> str:
    """A report for people, from the evaluation's own data."""
    groups = {
        "**all leaves**": evaluation["heldout"],
        **{_code(leaf): measured for leaf, measured in sorted(evaluation["heldout"]["leaves"].items())},
        "**general questions**": evaluation["general"],
    }
    lines = [
        f"# {_title(evaluation)}",
        "",
        f"{evaluation['verdict']['reason']}.",
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
        f"Changed leaves: {', '.join(_code(leaf) for leaf in evaluation['changed']) or 'none'}.",
        f"Evaluated at {evaluation['evaluated_at']}.",
    ]
    return "\n".join(lines) + "\n"


def report_html(evaluation: dict[str, Any], details: dict[str, Any]) -> str:
    """The whole report as one HTML document that loads nothing and runs nothing.

    `details` are those of `lab_pipeline.evaluation.details.report_details`.
    """
    reference = "base" if evaluation["reference"] == "base" else "champion"
    reason = evaluation["verdict"]["reason"]
    return _TEMPLATES.get_template("report.html.jinja").render(
        evaluation=evaluation,
        details=details,
        verdict=_title(evaluation),
        reason=f"{reason[:1].upper()}{reason[1:]}.",
        reference=reference,
        models=["base", "candidate"] if reference == "base" else ["base", "champion", "candidate"],
        leaves=[{**row, "changed": row["name"] in evaluation["changed"]} for row in details["leaves"]],
        leaf_scale=_Scale.of(details["leaves"]),
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
        judged_difference=lambda found: _judged_difference(found).replace("-", "−"),
        agreement=_agreement,
        may_decide=may_decide,
    )


def may_decide(known: dict[str, Any]) -> str:
    """Whether the gate listens to the judge, and why."""
    low, high = known["interval"]
    said = f"its area under the curve over {known['rows']} known rows is {known['area']:.2f} ({low:.2f} to {high:.2f})"
    if known["separates"]:
        return f"The judge separates known rows, so it may refuse a candidate: {said}."
    return f"The scores are advice only, for the judge does not separate known rows well enough: {said}."


def _title(evaluation: dict[str, Any]) -> str:
    verdict = evaluation["verdict"]
    return f"{'Promoted' if verdict['promoted'] else 'Not promoted'}: {verdict['outcome']}"


def _row(name: str, measured: dict[str, Any]) -> str:
    if not measured["questions"]:
        return f"| {name} | 0 | - | - | - | - | not measurable |"
    interval = "{:+.3f} to {:+.3f}".format(*measured["interval"]) if measured["interval"] else "one question"
    numbers = " | ".join(number(measured[key]) for key in ("base", "champion", "candidate"))
    return f"| {name} | {measured['questions']} | {numbers} | {measured['difference']:+.3f} | {interval} |"


def _ranks(ranks: dict[str, Any]) -> list[str]:
    if not ranks["candidate"]:
        return []
    said = ", ".join(f"{model} {found['accuracy']:.0%}" for model, found in ranks.items() if found)
    return [
        f"The reference is the likeliest of several answers: {said} (by guessing {ranks['candidate']['by_guessing']:.0%}).",
        "",
    ]


def _judged(judged: dict[str, Any] | None) -> list[str]:
    if judged is None:
        return []
    if judged["unanswered"]:
        return [f"No answer was judged: {_code(judged['unanswered'])}.", ""]
    scores = ", ".join(f"{model} {_score(found)}" for model, found in judged["models"].items())
    return [
        f"Answers judged by {_code(judged['judge'])}, from 0, wrong, to 1, right: {scores}. Candidate minus reference: "
        f"{_judged_difference(judged['raw'])}; at equal length {_judged_difference(judged['equal_length'])}. "
        f"{_agreement(judged['agreement'])} {may_decide(judged['known_rows'])}",
        "",
        "| judged answers to | base | champion | candidate |",
        "|---|---|---|---|",
        *(
            f"| {_code(leaf)} | {' | '.join(_score(found.get(model)) for model in ('base', 'champion', 'candidate'))} |"
            for leaf, found in judged["leaves"].items()
        ),
        "",
    ]


def _score(found: dict[str, Any] | None) -> str:
    return f"{found['score']:.2f}" if found else "-"


def _judged_difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measurable"
    interval = "{:+.2f} to {:+.2f}".format(*found["interval"]) if found["interval"] else "one question"
    return f"{found['difference']:+.2f} ({interval})"


def _agreement(agreement: dict[str, Any]) -> str:
    """What the readings of the judge agree in, as sentences."""
    said = ""
    if agreement["graded"]:
        said = (
            f"All readings of an answer agree for {agreement['alike']:.0%} of {agreement['graded']} answers. Two readings in "
            f"the same order agree in {_percent(agreement['repeats'])} of cases, in different orders in "
            f"{agreement['orders']:.0%}; with the reference first, scores differ by {agreement['order_shift']:+.2f}."
        )
    if agreement["unreadable_replies"]:
        said += f" Unreadable replies: {agreement['unreadable_replies']}; answers without a grade: {agreement['not_graded']}."
    return said


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _code(text: str) -> str:
    """Text as Markdown code that ends neither itself nor a table's cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _breakable(leaf: str) -> Markup:
    """A leaf's key that may go on in a new line after each slash."""
    return Markup("/<wbr>").join(leaf.split("/"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass(frozen=True)
class _Scale:
    """The common axis of a table's interval plots, zero always on it."""

    low: float
    high: float

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> _Scale:
        ends = [end for row in rows if row["interval"] for end in row["interval"] if math.isfinite(end)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        low, high = 1.1 * min(low, -high / 3) or -1.0, 1.1 * max(high, -low / 3) or 1.0  # room on both sides of zero
        return cls(low, high)

    def at(self, value: float) -> float:
        """Position in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @staticmethod
    def holds(row: dict[str, Any]) -> bool:
        """Can the row be drawn? A broken model's losses are not numbers."""
        return all(math.isfinite(value) for value in (row["difference"], *row["interval"]))


def _curve(report: dict[str, Any]) -> dict[str, Any] | None:
    """Training and validation losses as polylines in a square of 100, None without points; NaN is left out."""
    points = [point for point in report["curve"] if math.isfinite(point["loss"])]
    if not points:
        return None
    every = math.ceil(len(points) / _POINTS)
    losses = [_mean([point["loss"] for point in points[at : at + every]]) for at in range(0, len(points), every)]
    window = max(1, len(losses) // 20)
    smooth = [_mean(losses[max(0, at - window) : at + window + 1]) for at in range(len(losses))]
    steps = int(points[-1]["step"])
    validation = {
        part: [(found["step"] / steps, found[part]) for found in report["validation"] if _drawable(found[part])]
        for part in ("leaves", "general")
    }
    top = max([*losses, *(loss for several in validation.values() for _, loss in several)])
    across = 1 / max(1, len(losses) - 1)
    return {
        "raw": _polyline([(at * across, loss) for at, loss in enumerate(losses)], top),
        "smooth": _polyline([(at * across, loss) for at, loss in enumerate(smooth)], top),
        "validation": {part: _polyline(several, top) for part, several in validation.items() if several},
        "top": top,
        "steps": steps,
    }


def _drawable(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)


def _polyline(points: list[tuple[float, float]], top: float) -> str:
    return " ".join(f"{100 * across:.2f},{100 - 100 * loss / (top or 1):.2f}" for across, loss in points)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
