"""Commands on rows and leaves: rejects, rows, review, withdraw, export-dataset."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.text import Text

from lab_pipeline.cli.options import AsJson, Author, HomeOption, LeafArgument, Reason, complete_leaf, open_home
from lab_pipeline.cli.terminal import facts, path, show, table, word, working
from lab_pipeline.core.errors import LabError

if TYPE_CHECKING:
    from lab_pipeline.core.home import Home
    from lab_pipeline.taxonomy.reviews import Decision

_SHOWN = 20
_EXAMPLES = 3
LeavesArgument = Annotated[
    str, typer.Argument(metavar="[LEAF]", help="Key of a leaf or a branch; default: all leaves", autocompletion=complete_leaf)
]
Grep = Annotated[
    str, typer.Option("--grep", metavar="TEXT", help="Only rows whose question, answer or context holds this text, in any case")
]


def rejects(
    leaf: LeavesArgument = "",
    grep: Grep = "",
    rule: Annotated[str, typer.Option(help="Only rows that this rule or judge rejected, as the counts name it")] = "",
    limit: Annotated[int | None, typer.Option(min=0, help=f"Most rows to show; default: {_SHOWN}, with --json all")] = None,
    if_: Annotated[
        str | None,
        typer.Option("--if", metavar="RULE=VALUE", help="Tell which stored rows another threshold would keep or reject"),
    ] = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Count the rows that were rejected or left out of a data set, and show them with stage, rule, reason and texts."""
    opened, leaf = open_home(home), leaf.strip("/")
    if if_ is not None:
        _what_if(opened, leaf, if_, _EXAMPLES if limit is None else limit, as_json)
        return
    from lab_pipeline.reports import inspection
    from lab_pipeline.reports.search import Query

    most = limit if limit is not None or as_json else _SHOWN
    with working("Searching the rows"):
        found = inspection.described_rejects(opened, Query(leaf=leaf, text=grep, rule=rule), most)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    show(Text(found["leaf"] or "all leaves", "bold"), _funnel(found))
    for row in found["rows"]:
        _show_row(row)
    _say_rest(len(found["rows"]), found["total"], "--limit shows more, --grep and --rule choose among them")


def rows(
    leaf: LeavesArgument = "",
    sample: Annotated[int, typer.Option("--sample", "--limit", min=1, help="Number of rows to draw at random")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the draw")] = 0,
    grep: Grep = "",
    rule: Annotated[str, typer.Option(help="Only rows that a data set left out by this rule, such as held_out")] = "",
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Show a random sample of the rows that curation kept."""
    from lab_pipeline.reports import inspection
    from lab_pipeline.reports.search import Query

    opened = open_home(home)
    with working("Searching the rows"):
        found = inspection.sampled_rows(opened, Query(leaf=leaf.strip("/"), text=grep, rule=rule), sample, seed)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    kept = "rows that a data set left out" if rule else "kept rows"
    such = " with this text" if grep else ""
    show(Text(f"{found['leaf'] or 'all leaves'}: {len(found['rows'])} of {found['kept']:,} {kept}{such}", "bold"))
    for row in found["rows"]:
        _show_row(row)


def _funnel(found: Mapping[str, Any]) -> Any:
    counted: list[tuple[Any, str]] = [(count, stage) for stage, count in found["funnel"].items()]
    counted += [("", found["shortfall"])] if found["shortfall"] else []
    counted += [(count, f"of them left out of a data set, {where}") for where, count in found["excluded"].items()]
    counted += [("off", f"{rule}: {why}") for rule, why in found["rules_off"].items()]
    return table(
        ["rows", "stage or rule"],
        [(f"{count:>8,}" if isinstance(count, int) else f"{count:>8}", what) for count, what in counted],
    )


def _show_row(row: Mapping[str, Any]) -> None:
    from lab_pipeline.reports.inspection import row_facts

    fate = Text(f"{row['stage']}, {row['rule']}: {row['reason']}", "yellow") if "rule" in row else Text("")
    show("", *([word(fate.plain, "yellow")] if fate.plain else []), facts(row_facts(row)))


def _say_rest(shown: int, total: int, how: str) -> None:
    if shown < total:
        show("", f"{total - shown:,} more; {how}.")


def _what_if(home: Home, leaf: str, change: str, examples: int, as_json: bool) -> None:
    """Tell what another threshold would change, with examples of the rows that it would bring and cost."""
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.reports.inspection import described
    from lab_pipeline.reports.thresholds import known_thresholds, what_if

    settings = load_settings(home.settings_file)
    name, given, value = change.rpartition("=")
    if not given:
        known = ", ".join(f"'{name}={value}'" for name, value in known_thresholds(home, settings, leaf).items())
        raise LabError(f"--if: expected RULE=VALUE; now it is: {known or 'no rule with a threshold'}")
    with working("Curating the stored rows"):
        found = what_if(home, settings, leaf, (name.strip(), value.strip()))
    gained = [described(row, {}) for row in found.gained[:examples]]
    lost = [{**described(row, {}), "rule": row["rule"], "reason": row["reason"]} for row in found.lost[:examples]]
    if as_json:
        counts = {**vars(found), "present": sorted(found.present), "gained": len(found.gained), "lost": len(found.lost)}
        typer.echo(json.dumps({**counts, "kept_examples": gained, "rejected_examples": lost}, indent=2, ensure_ascii=False))
        return
    whose = "1 leaf" if found.leaves == 1 else f"{found.leaves:,} leaves"
    show(
        Text(f"{found.threshold}: {found.value} in place of {' or '.join(sorted(found.present))}", "bold"),
        f"{found.kept_then:,} of {found.rows:,} rows of {whose} would be kept; now {found.kept_now:,} are.",
        f"{len(found.gained):,} more rows would be kept, {len(found.lost):,} would be rejected.",
    )
    for title, described_rows in (("would be kept", gained), ("would be rejected", lost)):
        for row in described_rows:
            _show_row({**row, "stage": title} if "rule" in row else row)
    _say_rest(len(gained) + len(lost), len(found.gained) + len(found.lost), "--limit shows more")
    show("", "Nothing was changed. To use this value, edit flow.yaml of a flow of your own (docs/flows-and-curation.md).")


def review(
    leaf: LeafArgument,
    author: Author,
    reason: Annotated[str, typer.Option(help="Your reason, kept for ever; in a terminal you are asked for one per row")] = "",
    ban: Annotated[list[str] | None, typer.Option(help="Id of a row that must never be used; repeatable")] = None,
    pin: Annotated[list[str] | None, typer.Option(help="Id of a row to keep although a rule rejects it; repeatable")] = None,
    undo: Annotated[list[str] | None, typer.Option(help="Id of a row whose review is taken back; repeatable")] = None,
    home: HomeOption = None,
) -> None:
    """Ban or pin rows of a leaf for ever, or undo this. Without ids, review row by row in the terminal, the kept rows first."""
    from lab_pipeline.reports import inspection

    opened, leaf = open_home(home), leaf.rstrip("/")
    decisions: dict[Decision, list[str] | None] = {"ban": ban, "pin": pin, "undo": undo}
    count = 0
    if any(decisions.values()):
        for decision, ids in decisions.items():
            for recorded in inspection.review_rows(opened, leaf, decision, ids or [], author, reason):
                typer.echo(f"{recorded.row} {recorded}")
                count += 1
    elif not sys.stdin.isatty():
        raise LabError("reviewing row by row needs a terminal; else give --ban ID or --pin ID, with --reason")
    else:
        count = inspection.converse(opened, leaf, author, typer.prompt, typer.echo)
    if count:
        typer.echo("The next retune curates the leaf again, without a teacher call.")


def withdraw(
    leaf: LeafArgument,
    author: Author,
    reason: Reason,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier withdrawal back")] = False,
    home: HomeOption = None,
) -> None:
    """Take a leaf out of all later data sets and models. The cards of the champions trained on it say so."""
    opened, leaf = open_home(home), leaf.rstrip("/")
    from lab_pipeline.reports import lineage

    lineage.withdraw(opened, leaf, author, reason, undo)
    typer.echo(lineage.as_text("leaf", lineage.leaf_lineage(opened, leaf)))
    typer.echo("The next retune will use it again." if undo else "The next retune will leave it out.")


def export_dataset(
    to: Annotated[Path, typer.Option(help="New folder to write to")],
    phase: Annotated[Literal["knowledge", "skills"] | None, typer.Option(help="Default: both")] = None,
    home: HomeOption = None,
) -> None:
    """Export the training and validation rows of one phase or both, with a data-set card, in the formats of InstructLab's
    trainers and the Hugging Face hub; for knowledge, also multiple-choice questions for lm-eval.
    """
    opened = open_home(home)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.datasets.dataset import Phase
    from lab_pipeline.datasets.export import export_datasets

    phases = [phase] if phase else list(get_args(Phase))
    with working("Writing the data sets"):
        files = export_datasets(opened, phases, to, load_settings(opened.settings_file))
    for file in files:
        show(path(to / file))
