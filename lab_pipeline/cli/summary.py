"""Show how a home stands: its leaves, what is wrong with them, the last candidate's scores and verdict, and the champion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from lab_pipeline.cli.terminal import facts, path, show, table, word
from lab_pipeline.core.formats import number
from lab_pipeline.core.verdict import right_answers

_MODELS = ("candidate", "champion", "base")


def show_summary(result: Mapping[str, Any]) -> None:
    """Print the summary of a retune, or the status of a home."""
    leaves = result["leaves"]
    show(
        "",
        table(
            ["leaf", "status", "kept of generated", "flow"],
            [
                (leaf, row["status"], f"{row['kept']:,} of {row['generated']:,}", row["flow"] or "")
                for leaf, row in leaves.items()
            ],
        ),
        *_problems(leaves),
        "",
    )
    if result.get("nothing_changed"):
        show("Nothing changed since the last evaluated candidate.")
    show(facts(_facts(result)))


def _problems(leaves: Mapping[str, Any]) -> Iterable[Text]:
    """Say each problem once, with the leaves that have it."""
    having: dict[str, list[str]] = defaultdict(list)
    for leaf, row in leaves.items():
        for problem in row["problems"]:
            having[problem].append(leaf)
    for problem, named in having.items():
        whose = named[0] if len(named) == 1 else f"{'All ' if len(named) == len(leaves) else ''}{len(named)} leaves"
        told = problem.removeprefix(f"{named[0]}/") if len(named) == 1 else problem
        yield Text.assemble("\n" if problem is next(iter(having)) else "", (word(whose).plain, "bold"), ": ", word(told))


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    heldout, general = result["heldout"], result["general"]
    shown: dict[str, Any] = {}
    if result["verdict"]:
        shown["verdict"] = word(result["verdict"], "green" if result["promoted"] else "yellow")
        shown["what to do"] = result["next"]
    if heldout and heldout["questions"]:
        right = right_answers({"heldout": heldout})
        shown["right answers"] = ", ".join(f"{model} {right[model]}" for model in _MODELS if model in right)
        shown["loss"] = f"{_losses(heldout)} (nats per answer token over {heldout['questions']} questions, lower is better)"
        if heldout["interval"]:
            low, high = heldout["interval"]
            shown[""] = f"candidate minus base {heldout['difference']:+.3f} (likely {low:+.3f} to {high:+.3f})"
    if general and general["questions"]:
        shown["general loss"] = f"{_losses(general)} (over {general['questions']} questions)"
    if result["report"]:
        shown["report"] = path(Path(result["report"]).with_suffix(".html"))
    if result["champion"]:
        shown["champion"] = path(result["champion"]["folder"])
    if not shown:
        shown["model"] = "none evaluated yet"
    return {**shown, "UI": f"lab-pipeline ui --home {result['home']}"}


def _losses(measured: Mapping[str, Any]) -> str:
    return ", ".join(f"{model} {number(measured[model])}" for model in _MODELS if measured.get(model) is not None)
