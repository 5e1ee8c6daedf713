"""The evaluation as Markdown: verdict first, then the table by leaf."""

from __future__ import annotations

from typing import Any


def report_markdown(evaluation: dict[str, Any]) -> str:
    """A report for people, from the evaluation's own data."""
    verdict = evaluation["verdict"]
    word = "Promoted" if verdict["promoted"] else "Not promoted"
    groups = {
        "**all leaves**": evaluation["heldout"],
        **{f"`{leaf}`": measured for leaf, measured in sorted(evaluation["heldout"]["leaves"].items())},
        "**general questions**": evaluation["general"],
    }
    lines = [
        f"# {word}: {verdict['outcome']}",
        "",
        f"{verdict['reason']}.",
        "",
        f"Candidate `{evaluation['candidate']}` against `{evaluation['reference']}`; base model {evaluation['base_model']}. "
        "Mean negative log-likelihood in nats per answer token, lower is better; difference and interval are candidate minus "
        "base.",
        "",
        "| questions of | number | base | champion | candidate | difference | interval |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, measured) for name, measured in groups.items()),
        "",
        f"Changed leaves: {', '.join(f'`{leaf}`' for leaf in evaluation['changed']) or 'none'}.",
        f"Evaluated at {evaluation['evaluated_at']}.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, measured: dict[str, Any]) -> str:
    if not measured["questions"]:
        return f"| {name} | 0 | - | - | - | - | not measurable |"
    low, high = measured["interval"] or (float("-inf"), float("inf"))
    numbers = " | ".join(number(measured[key]) for key in ("base", "champion", "candidate"))
    return f"| {name} | {measured['questions']} | {numbers} | {measured['difference']:+.3f} | {low:+.3f} to {high:+.3f} |"


def number(value: float | None) -> str:
    """A loss as reports show it; '-' where nothing could be measured."""
    return "-" if value is None else f"{value:.3f}"
