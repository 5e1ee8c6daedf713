"""`lab-pipeline`: the pipeline from a terminal, on the same definitions and history as the Dagster UI."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import number
from lab_pipeline.core.git import is_remote
from lab_pipeline.core.home import PROJECT, default_home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.core.processes import python_module
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY, home_of, prepare

if TYPE_CHECKING:
    from lab_pipeline.taxonomy.reviews import Decision

app = typer.Typer(
    help="Keep a language model in step with a taxonomy, by the LAB method.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

HomeOption = Annotated[Path | None, typer.Option(help="The home; default LAB_HOME, else data/lab of the project")]
Author = Annotated[str, typer.Option(help="Your name, kept for ever")]
Reason = Annotated[str, typer.Option(help="Why, kept for ever")]
LeafArgument = Annotated[str, typer.Argument(help="Key of the leaf: its folder in the taxonomy")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs")]


@app.command()
def retune(
    taxonomy: Annotated[
        str | None, typer.Option(help="Folder, git repository or URL of the taxonomy; default: the home's own, else the sample")
    ] = None,
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag or full commit id to read; default: a folder as it stands, a URL's HEAD")
    ] = None,
    home: HomeOption = None,
    summary: Annotated[Path | None, typer.Option(help="Write the summary as JSON to this file")] = None,
) -> None:
    """From taxonomy to champion: refresh the leaves that changed, tune, evaluate, promote if better."""
    _only_local()
    if ref and not taxonomy:
        raise LabError("--ref goes with --taxonomy; an existing home keeps its ref in settings.yaml (taxonomy.ref)")
    if taxonomy and not is_remote(taxonomy) and not (Path(taxonomy).exists() if ref else Path(taxonomy).is_dir()):
        raise LabError(
            f"{taxonomy}: no such folder; give the folder that holds knowledge/ and compositional_skills/, "
            "or with --ref a git repository or bundle"
        )
    root = home or (home_of(taxonomy) if taxonomy else default_home())
    if taxonomy is None and not (root / "settings.yaml").exists():
        taxonomy = str(SAMPLE_TAXONOMY)
    opened = prepare(root, taxonomy, ref)
    started = time.monotonic()

    def say(text: str) -> None:
        typer.echo(f"{time.monotonic() - started:6.0f} s  {text}")

    say(f"home: {opened.root}")
    from lab_pipeline.runtime.command import retune as run_retune

    result = run_retune(opened, say)
    if summary:
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    typer.echo(summary_text(result))


@app.command()
def status(home: HomeOption = None, as_json: AsJson = False) -> None:
    """How the leaves stand, what the last candidate scored, and which model is the champion."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.reports.status import status_report

    report = status_report(opened)
    typer.echo(json.dumps(report, indent=2) if as_json else summary_text(report))


@app.command()
def doctor(home: HomeOption = None) -> None:
    """Check everything that a run needs, and say how to mend what is missing."""
    from lab_pipeline.reports.doctor import examine

    findings = examine(home or default_home())
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.passed else 'MEND'}  {finding.name}: {finding.message}")
    raise typer.Exit(0 if all(finding.passed for finding in findings) else 1)


@app.command()
def ui(home: HomeOption = None, port: Annotated[int, typer.Option(help="Port on 127.0.0.1")] = 3000) -> None:
    """Open the Dagster UI with its daemon, on this machine only."""
    _only_local()
    root = home or default_home()
    opened = prepare(root, None if (root / "settings.yaml").exists() else SAMPLE_TAXONOMY)
    typer.echo(f"home: {opened.root}\nUI:   http://127.0.0.1:{port}")
    os.chdir(PROJECT)
    os.environ["PYTHONSAFEPATH"] = "1"  # what -P says, for the processes that Dagster starts in turn
    os.execv(sys.executable, python_module("dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)))


@app.command()
def promote(
    candidate: Annotated[str, typer.Argument(help="Id of an evaluated candidate")],
    author: Author,
    reason: Reason,
    home: HomeOption = None,
) -> None:
    """Make a candidate the champion that the gate rejected, on a person's word; history, lineage and card name it."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.registry import champion
    from lab_pipeline.reports.lineage import evaluation_of
    from lab_pipeline.reports.notifications import moved_by_hand, notify

    signed = champion.Signed(author, reason)
    promoted = champion.promote(opened, evaluation_of(opened, candidate), signed)
    typer.echo(f"Champion: {promoted.model}")
    notify(load_settings(opened.settings_file), moved_by_hand(promoted, signed), typer.echo)


@app.command()
def rollback(
    author: Author,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="Id of an earlier champion; default: the one before the current one")] = None,
    home: HomeOption = None,
) -> None:
    """Make an earlier champion the champion again. The one rolled back is not promoted again by itself."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.registry import champion
    from lab_pipeline.reports.notifications import moved_by_hand, notify

    signed = champion.Signed(author, reason)
    current = champion.rollback(opened, signed, to)
    typer.echo(f"Champion: {current.model}")
    notify(load_settings(opened.settings_file), moved_by_hand(current, signed), typer.echo)


@app.command()
def lineage(
    what: Annotated[str, typer.Argument(help="'champion' or a model's id, a leaf's key, or 'row'")],
    row: Annotated[str | None, typer.Argument(help="After 'row': its id in a data set or leaf, or the id's beginning")] = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """What a model was taught by, which models hold a leaf, or where a training row comes from."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.reports import lineage as questions
    from lab_pipeline.taxonomy.leaf import BRANCHES

    if (what == "row") != (row is not None):
        raise LabError("expected one of: lineage champion, lineage MODEL_ID, lineage LEAF, lineage row ROW_ID")
    answer: Mapping[str, object]
    if row is not None:
        kind, answer = "row", questions.row_lineage(opened, row)
    elif what.split("/")[0] in BRANCHES:
        kind, answer = "leaf", questions.leaf_lineage(opened, what.rstrip("/"))
    else:
        kind, answer = "model", questions.model_lineage(opened, what)
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False) if as_json else questions.as_text(kind, answer))


@app.command()
def withdraw(
    leaf: LeafArgument,
    author: Author,
    reason: Reason,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier withdrawal back")] = False,
    home: HomeOption = None,
) -> None:
    """Take a leaf out of all later data sets and models; the models that hold it say so."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.reports import lineage as questions

    questions.withdraw(opened, leaf.rstrip("/"), author, reason, undo)
    typer.echo(questions.as_text("leaf", questions.leaf_lineage(opened, leaf.rstrip("/"))))
    typer.echo("The next retune will use it again." if undo else "The next retune will leave it out.")


@app.command()
def rejects(leaf: LeafArgument, home: HomeOption = None, as_json: AsJson = False) -> None:
    """What became of a leaf's rows, and each rejected one with stage, rule, scores and text."""
    from lab_pipeline.reports import inspection

    opened = prepare(home or default_home(), None)
    described = inspection.described_rejects(inspection.leaf_rows(opened, leaf.rstrip("/")))
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False) if as_json else inspection.rejects_text(described))


@app.command()
def rows(
    leaf: LeafArgument,
    sample: Annotated[int, typer.Option(min=1, help="So many of them, drawn at random")] = 20,
    seed: Annotated[int, typer.Option(help="Another seed draws others")] = 0,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """A sample of the rows that curation kept of a leaf."""
    from lab_pipeline.reports import inspection

    opened = prepare(home or default_home(), None)
    described = inspection.sampled_rows(inspection.leaf_rows(opened, leaf.rstrip("/")), sample, seed)
    typer.echo(json.dumps(described, indent=2, ensure_ascii=False) if as_json else inspection.rows_text(described))


@app.command()
def review(
    leaf: LeafArgument,
    author: Author,
    reason: Annotated[str, typer.Option(help="Why, kept for ever; in a terminal it is asked for each row")] = "",
    ban: Annotated[list[str] | None, typer.Option(help="Id of a row that shall never come in; may be repeated")] = None,
    pin: Annotated[list[str] | None, typer.Option(help="Id of a row that stays whatever the rules say")] = None,
    undo: Annotated[list[str] | None, typer.Option(help="Id of a row whose review is taken back")] = None,
    home: HomeOption = None,
) -> None:
    """Ban or pin rows for ever. Without ids, in a terminal: row by row, the kept ones first."""
    from lab_pipeline.reports import inspection

    opened, leaf = prepare(home or default_home(), None), leaf.rstrip("/")
    asked: dict[Decision, list[str] | None] = {"ban": ban, "pin": pin, "undo": undo}
    decided = 0
    if any(asked.values()):
        for decision, names in asked.items():
            for said in inspection.review_rows(opened, leaf, decision, names or [], author, reason):
                typer.echo(f"{said.row} {said}")
                decided += 1
    elif not sys.stdin.isatty():
        raise LabError("reviewing row by row needs a terminal; else give --ban ID or --pin ID, with --reason")
    else:
        decided = inspection.converse(opened, leaf, author, typer.prompt, typer.echo)
    if decided:
        typer.echo("The next retune curates the leaf anew, without a teacher call.")


@app.command("export-dataset")
def export_dataset(
    to: Annotated[Path, typer.Option(help="Folder to be made")],
    phase: Annotated[Literal["knowledge", "skills"] | None, typer.Option(help="Default: both")] = None,
    home: HomeOption = None,
) -> None:
    """Write the training data, multiple-choice questions for lm-eval and a data-set card, as other tools read them."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.datasets.dataset import Phase
    from lab_pipeline.datasets.export import export_datasets

    phases = [phase] if phase else list(get_args(Phase))
    for file in export_datasets(opened, phases, to, load_settings(opened.settings_file)):
        typer.echo(str(to / file))


@app.command()
def gc(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Champions to keep, the current one included; default: all there ever were")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it, they are only listed")] = False,
    home: HomeOption = None,
) -> None:
    """List, and with --delete remove, weights of candidates that did not win and states of abandoned trainings."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.reports.cleanup import clean_up, dispensable, freed_bytes

    folders = dispensable(opened, keep)
    freed = freed_bytes(folders)
    if delete:
        folders = clean_up(opened, keep)
    for folder in folders:
        typer.echo(str(folder))
    mib = f"{freed / 2**20:,.1f} MiB ({freed:,} bytes) in {len(folders)} folders"
    typer.echo(f"Removed {mib}." if delete else f"To be freed: {mib}. Nothing was removed; add --delete.")


def _only_local() -> None:
    if deployment() == "k8s":
        raise LabError("LAB_DEPLOYMENT=k8s: jobs are launched in the cluster's Dagster UI; unset it to run on this machine")


def summary_text(result: dict[str, Any]) -> str:
    """The summary as a person wants to read it."""
    leaves = result["leaves"]
    width = max((len(leaf) for leaf in leaves), default=0)
    lines = ["", "leaf".ljust(width) + "  status       kept of generated  flow"]
    for leaf, about in leaves.items():
        kept = f"{about['kept']:>4} of {about['generated']}"
        lines.append(f"{leaf.ljust(width)}  {about['status']:<11}  {kept:<17}  {about['flow'] or ''}".rstrip())
        lines += [f"    {problem}" for problem in about["problems"]]
    lines.append("")
    if result.get("nothing_changed"):
        lines.append("Nothing changed since the last evaluated candidate.")
    heldout, general = result["heldout"], result["general"]
    if heldout and heldout["questions"]:
        low, high = heldout["interval"] or (float("-inf"), float("inf"))
        lines += [
            f"Held-out questions ({heldout['questions']}): base {heldout['base']:.3f}, candidate {heldout['candidate']:.3f} "
            f"nats per answer token (difference {heldout['difference']:+.3f}, interval {low:+.3f} to {high:+.3f})",
            f"General questions ({general['questions']}): "
            f"base {number(general['base'])}, candidate {number(general['candidate'])}",
        ]
    if result["reason"]:
        lines.append(f"{'Promoted' if result['promoted'] else 'Not promoted'}: {result['reason']}")
    if result["report"]:
        lines.append(f"Report: {Path(result['report']).with_suffix('.html')}")
    if result["champion"]:
        lines.append(f"Champion: {result['champion']['folder']}")
    lines.append(f"UI: make ui, or: lab-pipeline ui --home {result['home']}")
    return "\n".join(lines)


@app.command()
def chat(
    model: Annotated[str, typer.Option(help="champion, base, or the id of an earlier champion or a candidate")] = "champion",
    home: HomeOption = None,
) -> None:
    """Talk with a model; /exit or Ctrl-D ends, Ctrl-C stops an answer. From a pipe, each line is a question."""
    opened = prepare(home or default_home(), None)
    from lab_pipeline.cli.chat import Conversation, find_model
    from lab_pipeline.cli.chat import chat as talk

    talk(Conversation(find_model(opened, model)))


@app.command()
def compare(question: str, home: HomeOption = None) -> None:
    """Ask base model, champion and last candidate the same question, and show their answers side by side."""
    opened = prepare(home or default_home(), None)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lab_pipeline.cli.chat import compare as ask_all

    answers = ask_all(opened, question)
    table = Table(expand=True)
    for said in answers:
        table.add_column(Text(said), ratio=1, overflow="fold")
    table.add_row(*(Text(answer) for answer in answers.values()))
    Console().print(table)


def main() -> None:
    """Entry point: what a person can mend is shown as one message, with exit code 1."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted; what was finished is kept, and the next retune goes on from here", err=True)
        sys.exit(130)
    except Exception as error:
        errors_as_failures = as_lab_error(error)
        if errors_as_failures is None:
            raise
        typer.echo(f"error: {errors_as_failures}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
