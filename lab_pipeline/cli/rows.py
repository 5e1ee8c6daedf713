"""Commands on rows and leaves: rejects, rows, review, withdraw, export-dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from lab_pipeline.cli.options import AsJson, Author, HomeOption, LeafArgument, Reason, open_home
from lab_pipeline.core.errors import LabError

if TYPE_CHECKING:
    from lab_pipeline.taxonomy.reviews import Decision


def rejects(leaf: LeafArgument, home: HomeOption = None, as_json: AsJson = False) -> None:
    """Show a leaf's funnel, and each row that was rejected or left out of a data set, with stage, rule, reason and texts."""
    from lab_pipeline.reports import inspection

    opened = open_home(home)
    described = inspection.described_rejects(inspection.leaf_rows(opened, leaf.rstrip("/")))
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False) if as_json else inspection.rejects_text(described))


def rows(
    leaf: LeafArgument,
    sample: Annotated[int, typer.Option(min=1, help="Number of rows to draw at random")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the draw")] = 0,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Show a random sample of the rows of a leaf that curation kept."""
    from lab_pipeline.reports import inspection

    opened = open_home(home)
    described = inspection.sampled_rows(inspection.leaf_rows(opened, leaf.rstrip("/")), sample, seed)
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False) if as_json else inspection.rows_text(described))


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
    for file in export_datasets(opened, phases, to, load_settings(opened.settings_file)):
        typer.echo(str(to / file))
