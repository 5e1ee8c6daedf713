"""Commands on models: models, promote, rollback, lineage, effect of a leaf, gc, estimate, train-plan, chat, compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lab_pipeline.cli.options import (
    AsJson,
    Author,
    HomeOption,
    LeafArgument,
    ModelOption,
    Reason,
    complete_lineage,
    complete_model,
    open_home,
)
from lab_pipeline.cli.terminal import path, show, table, when, word, working
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import number, printable
from lab_pipeline.core.home import Home

if TYPE_CHECKING:
    from lab_pipeline.registry.champion import Champion, Move, Signed


def models(home: HomeOption = None, as_json: AsJson = False) -> None:
    """List all evaluated models, the last one first, with verdict, scores and folder, and how the champion changed."""
    opened = open_home(home)
    from lab_pipeline.reports.models import known_models

    found, moves = known_models(opened)
    if as_json:
        typer.echo(json.dumps({"models": found, "history": moves}, indent=2, ensure_ascii=False))
        return
    if not found and not moves:
        show("No model yet: run `lab-pipeline retune` to make one.")
        return
    show(
        table(
            ["model", "standing", "evaluated", "verdict", "right", "loss", "general"],
            [
                (
                    path(each["folder"], each["model"]) if each["folder"] else each["model"],
                    each["standing"],
                    when(each["evaluated_at"]),
                    each["outcome"],
                    each["right"],
                    number(each["loss"]),
                    number(each["general_loss"]),
                )
                for each in found
            ],
        ),
        "",
        *(path(each["folder"]) for each in found if each["folder"]),
    )
    if moves:
        by = [(when(move["promoted_at"]), move["event"], move["id"], *_signed(move)) for move in moves]
        show("", table(["champion since", "by", "model", "signed", "why"], by))


def _signed(move: Move) -> tuple[str, str]:
    """Return by whom and why the champion was changed; the gate's reason is its verdict, which stands with the model."""
    return (move["author"], move["reason"]) if move["author"] else ("the gate", "by its verdict")


def promote(
    candidate: Annotated[str, typer.Argument(help="Id of an evaluated candidate", autocompletion=complete_model)],
    author: Author,
    reason: Reason,
    home: HomeOption = None,
) -> None:
    """Promote a candidate that the gate rejected. History, lineage and model card keep your name and reason."""
    opened = open_home(home)
    from lab_pipeline.registry import champion
    from lab_pipeline.reports.lineage import evaluation_of

    signed = champion.Signed(author, reason)
    with working("Comparing the files with those that were measured"):
        promoted = champion.promote(opened, evaluation_of(opened, candidate), signed)
    _announce(opened, promoted, signed)


def rollback(
    author: Author,
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option(help="Id of an earlier champion; default: the one before the current one", autocompletion=complete_model),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Make an earlier champion the champion again. The model that it replaces is not promoted again by itself."""
    opened = open_home(home)
    from lab_pipeline.registry import champion

    signed = champion.Signed(author, reason)
    with working("Comparing the files with those that were measured"):
        back = champion.rollback(opened, signed, to)
    _announce(opened, back, signed)


def _announce(home: Home, champion: Champion, signed: Signed) -> None:
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.registry.publish import publish
    from lab_pipeline.reports.notifications import moved_by_hand, notify

    show(Text.assemble("Champion: ", path(champion.model)))
    settings = load_settings(home.settings_file)
    if published := publish(settings, champion):
        typer.echo(f"Published: {published}")
    notify(settings, moved_by_hand(champion, signed), typer.echo)


def lineage(
    what: Annotated[
        str, typer.Argument(help="'champion' or a model's id, a leaf's key, or 'row'", autocompletion=complete_lineage)
    ],
    row: Annotated[str | None, typer.Argument(help="After 'row': the row's id, or its first characters")] = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model was trained on, which models were trained on a leaf, or where a training row comes from."""
    opened = open_home(home)
    from lab_pipeline.reports import lineage as reports
    from lab_pipeline.taxonomy.find import BRANCHES

    if (what == "row") != (row is not None):
        raise LabError("expected one of: lineage champion, lineage MODEL_ID, lineage LEAF, lineage row ROW_ID")
    answer: Mapping[str, object]
    with working("Searching the home"):
        if row is not None:
            kind, answer = "row", reports.row_lineage(opened, row)
        elif what.split("/")[0] in BRANCHES:
            kind, answer = "leaf", reports.leaf_lineage(opened, what.rstrip("/"))
        else:
            kind, answer = "model", reports.model_lineage(opened, what)
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False) if as_json else reports.as_text(kind, answer))


def effect(
    leaf: LeafArgument,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what a leaf brought: the questions that a model won and lost when the leaf was last changed."""
    opened = open_home(home)
    from lab_pipeline.reports.effect import effect_text, leaf_effect

    with working("Comparing evaluations"):
        found = leaf_effect(opened, leaf.strip("/"))
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else effect_text(found))


def gc(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Number of champions to keep, the current one included; default: all")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it, they are only listed")] = False,
    home: HomeOption = None,
) -> None:
    """List, or with --delete remove, weights of candidates, of champions beyond --keep, and states of abandoned trainings."""
    opened = open_home(home)
    from lab_pipeline.reports.cleanup import clean_up, dispensable, freed_bytes

    folders = dispensable(opened, keep)
    freed = freed_bytes(folders)
    if delete:
        folders = clean_up(opened, keep)
    for folder in folders:
        show(path(folder))
    size = f"{freed / 2**20:,.1f} MiB ({freed:,} bytes) in {len(folders)} folders"
    show(f"Removed {size}." if delete else f"To be freed: {size}. Nothing was removed; add --delete.")


def estimate(home: HomeOption = None, as_json: AsJson = False) -> None:
    """Estimate what a refresh of the stale leaves would take now: calls, tokens, money and time. No model is asked."""
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.reports import estimate as reports

    opened = open_home(home)
    with working("Rehearsing the refresh of the stale leaves"):
        expected = reports.estimate(opened, load_settings(opened.settings_file))
    typer.echo(json.dumps(reports.described(expected), indent=2) if as_json else reports.estimate_text(expected))


def train_plan(
    recipe: Annotated[str | None, typer.Option(help="A shipped recipe or a recipe file; default: as the settings say")] = None,
    home: HomeOption = None,
) -> None:
    """Show what the next training would take: recipe and why it was chosen, memory, steps, tokens and, if known, time."""
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.reports.train_plan import train_plan as planned

    opened = open_home(home)
    settings = load_settings(opened.settings_file)
    with working("Counting the tokens of a sample"):
        plan = planned(opened, settings.model_copy(update={"recipe": recipe}) if recipe else settings)
    show(plan)


def chat(
    model: ModelOption = "champion",
    home: HomeOption = None,
) -> None:
    """Chat with a model. /exit or Ctrl-D ends the chat, Ctrl-C stops an answer. From a pipe, each line is a question."""
    opened = open_home(home)
    from lab_pipeline.cli import chat

    with working(f"Loading {model}"):
        conversation = chat.Conversation(chat.find_model(opened, model))
    chat.chat(conversation)


def compare(question: str, home: HomeOption = None) -> None:
    """Ask base model, champion and last candidate the same question. The answers are shown as they are written, with the
    reference answer if it is a test question.
    """
    opened = open_home(home)
    from lab_pipeline.cli import chat

    names = chat.compared(opened)
    question = question.encode(errors="replace").decode()  # an argument may hold bytes that are no UTF-8
    show(Text.assemble(("question: ", "bold"), word(question)))
    if reference := chat.reference_answer(opened, question):
        show(Text.assemble(("reference: ", "bold"), word(reference)))
    for label, name in names.items():
        with working(f"Loading {label}"):
            conversation = chat.Conversation(chat.find_model(opened, name))
        show("", Text(label, "bold"))
        conversation.ask(question, lambda text: print(printable(text), end="", flush=True))
        print()
