"""Render an evaluation as Markdown for the Dagster UI and for logs: what a person needs first, then the losses by leaf."""

from collections.abc import Sequence

from lab_pipeline.core.evaluation import (
    AcceptanceResult,
    Agreement,
    Evaluation,
    JudgedAnswers,
    JudgedDifference,
    JudgedMean,
    KnownSeparation,
    Measurement,
    TaskMeasure,
)
from lab_pipeline.core.formats import cell, number, took
from lab_pipeline.core.verdict import Told, label, right_answers, what_is_left


def report_markdown(evaluation: Evaluation) -> str:
    """Render the short report: verdict, reasons, what to do next, losses by leaf, judged answers, acceptance questions."""
    told = Told(evaluation)
    groups: dict[str, Measurement] = {
        "**all leaves**": evaluation["heldout"],
        **{_code(leaf): measured for leaf, measured in sorted(evaluation["heldout"]["leaves"].items())},
        **{f"{_code(leaf)}, by the teacher": measured for leaf, measured in sorted(evaluation["exam"]["leaves"].items())},
        "**general questions**": evaluation["general"],
    }
    lines = [
        f"# {'Promoted' if evaluation['verdict']['promoted'] else 'Not promoted'}",
        "",
        f"**{cell(told.sentence)}**",
        "",
        *(f"- {cell(each)}" for each in told.reasons),
        "",
        f"**What to do next:** {cell(told.next)}",
        "",
        f"Candidate `{evaluation['candidate']}` against `{evaluation['reference']}`; base model {evaluation['base_model']}. "
        "Mean negative log-likelihood in nats per answer token, lower is better; difference and interval are candidate minus "
        "base.",
        "",
        "| questions of | number | base | champion | candidate | difference | interval |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, measured) for name, measured in groups.items()),
        "",
        *_right(evaluation),
        *(f"- {phase} phase: {took(chosen)}." for phase, chosen in evaluation["chosen"].items()),
        "",
        *_judged(evaluation["judged"]),
        *_acceptance(evaluation["acceptance"]),
        *_measures(evaluation.get("measures", [])),
        *[f"- taken out: {_code(each['leaf'])}: {what_is_left(each)}." for each in evaluation["unlearned"]],
        f"The gate's own words: {cell(evaluation['verdict']['outcome'])}: {cell(evaluation['verdict']['reason'])}.",
        f"Changed leaves: {', '.join(_code(leaf) for leaf in evaluation['changed']) or 'none'}.",
        f"Evaluated at {evaluation['evaluated_at']}.",
    ]
    return "\n".join(lines) + "\n"


def may_decide(known: KnownSeparation) -> str:
    """Say in one sentence whether the judge's scores may refuse a candidate, and why."""
    low, high = known["interval"]
    area = f"its area under the curve over {known['rows']} known rows is {known['area']:.2f} ({low:.2f} to {high:.2f})"
    if known["separates"]:
        return f"The judge separates known rows, so it may refuse a candidate: {area}."
    return f"The scores are advice only, because the judge does not separate known rows well enough: {area}."


def judged_score(mean: JudgedMean | None) -> str:
    return f"{mean['score']:.2f}" if mean else "-"


def judged_difference(difference: JudgedDifference | None) -> str:
    if difference is None:
        return "not measurable"
    interval = "{:+.2f} to {:+.2f}".format(*difference["interval"]) if difference["interval"] else "one question"
    return f"{difference['difference']:+.2f} ({interval})"


def agreement_sentences(agreement: Agreement) -> str:
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


def _row(name: str, measured: Measurement) -> str:
    if measured["difference"] is None:
        return f"| {name} | 0 | - | - | - | - | not measurable |"
    interval = "{:+.3f} to {:+.3f}".format(*measured["interval"]) if measured["interval"] else "one question"
    numbers = " | ".join(number(loss) for loss in (measured["base"], measured["champion"], measured["candidate"]))
    return f"| {name} | {measured['questions']} | {numbers} | {measured['difference']:+.3f} | {interval} |"


def _right(evaluation: Evaluation) -> list[str]:
    right = right_answers(evaluation)
    candidate = evaluation["heldout"]["ranks"]["candidate"]
    if "candidate" not in right or not candidate:
        return []
    counts = ", ".join(f"{model} {count}" for model, count in right.items())
    return [f"Right in multiple choice: {counts} (by guessing {candidate['by_guessing']:.0%}).", ""]


def _judged(judged: JudgedAnswers | None) -> list[str]:
    if judged is None:
        return []
    if judged["unanswered"]:
        return [f"No answer was judged: {_code(judged['unanswered'])}.", ""]
    scores = ", ".join(f"{model} {judged_score(mean)}" for model, mean in judged["models"].items())
    return [
        f"Answers judged by {_code(judged['judge'])}, from 0, wrong, to 1, right: {scores}. Candidate minus reference: "
        f"{judged_difference(judged['raw'])}; at equal length {judged_difference(judged['equal_length'])}. "
        f"{agreement_sentences(judged['agreement'])} {may_decide(judged['known_rows'])}",
        "",
        "| judged answers to | base | champion | candidate |",
        "|---|---|---|---|",
        *(
            f"| {_code(leaf)} | {' | '.join(judged_score(means.get(model)) for model in ('base', 'champion', 'candidate'))} |"
            for leaf, means in judged["leaves"].items()
        ),
        "",
    ]


def _measures(measures: Sequence[TaskMeasure]) -> list[str]:
    """Give each task's scores in a line of a list; empty without tasks."""
    lines = [
        f"- {_code(each['task'])}: {', '.join(f'{m} {score:.3f}' for m, score in each['scores'].items())}" for each in measures
    ]
    return ["Scores in tasks of lm-eval:", "", *lines, ""] if lines else []


def _acceptance(results: Sequence[AcceptanceResult]) -> list[str]:
    if not results:
        return []
    failed = [(label(each), why) for each in results if (why := each["failures"]["candidate"])]
    passed = [f"{model} {sum(each['failures'][model] is None for each in results)}" for model in results[0]["failures"]]
    return [
        f"Acceptance questions passed, of {len(results)}: {', '.join(passed)}.",
        "",
        *(f"- failed by the candidate: {_code(name)}: {_code(why)}" for name, why in failed),
        *([""] if failed else []),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _code(text: str) -> str:
    """Quote text as Markdown code, so that it can end neither the code nor a table cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
