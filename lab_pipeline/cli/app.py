"""Run `lab-pipeline`: the pipeline from a terminal, on the same definitions and history as the Dagster UI.

Commands on models and rows are in modules of their own. Each command imports what it needs inside, so that all start fast.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lab_pipeline.cli import changes, models, pages, rows, shipping
from lab_pipeline.cli.options import AsJson, HomeOption, open_home
from lab_pipeline.cli.validate import validate
from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import number, printable
from lab_pipeline.core.git import is_remote
from lab_pipeline.core.home import default_home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY, home_of, prepare

app = typer.Typer(
    help="Keep a language model in step with a taxonomy, by the LAB method.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def retune(
    taxonomy: Annotated[
        str | None, typer.Option(help="Folder, git repository or URL of the taxonomy; default: the home's, else the sample")
    ] = None,
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag or full commit id; default: the files in a folder, HEAD of a URL")
    ] = None,
    home: HomeOption = None,
    summary: Annotated[Path | None, typer.Option(help="Write the summary as JSON to this file")] = None,
) -> None:
    """Go from taxonomy to champion: refresh changed leaves, train and evaluate a candidate, and promote it if it is better."""
    _require_local()
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
    """Show the status of the leaves, the scores of the last candidate, and the champion."""
    opened = open_home(home)
    from lab_pipeline.reports.status import status_report

    report = status_report(opened)
    typer.echo(json.dumps(report, indent=2) if as_json else summary_text(report))


@app.command()
def doctor(home: HomeOption = None) -> None:
    """Check everything that a run needs, and say how to fix what is missing. The exit code is 1 if anything is."""
    from lab_pipeline.reports.doctor import examine

    findings = examine(home or default_home())
    for finding in findings:
        typer.echo(finding)
    raise typer.Exit(0 if all(finding.passed for finding in findings) else 1)


@app.command()
def preflight(
    pods: Annotated[int, typer.Option(min=1, help="How many pods check together, by their JOB_COMPLETION_INDEX")] = 1,
) -> None:
    """Check on a cluster what its runs need, and say how to fix what is missing. The exit code is 1 if anything is."""
    from lab_pipeline.runtime.preflight import preflight as examine

    all_passed = True
    for finding in examine(default_home(), int(os.environ.get("JOB_COMPLETION_INDEX", "0")), pods):
        all_passed &= finding.passed
        typer.echo(finding)
    raise typer.Exit(0 if all_passed else 1)


@app.command()
def ui(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(min=1, max=65534, help="Port on 127.0.0.1")] = 3000,
    pages_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the pages; default: the next one")] = None,
) -> None:
    """Start the Dagster UI with its daemon, and the pages beside it, on this machine only."""
    _require_local()
    root = home or default_home()
    # only the default home is made on the spot: another one that is not there is a slip of the pen
    is_new = not (home or "LAB_HOME" in os.environ or (root / "settings.yaml").exists())
    opened = prepare(root, SAMPLE_TAXONOMY if is_new else None)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.runtime.ui import serve_ui

    serve_ui(opened, load_settings(opened.settings_file).pages, port, pages_port or port + 1, typer.echo)


on_rows = (rows.rejects, rows.rows, rows.review, rows.withdraw, rows.export_dataset)
on_models = (models.promote, models.rollback, models.lineage, models.effect, models.gc, models.chat, models.compare)
ships = (shipping.export_model,)
plans = (models.estimate, models.train_plan)
for command in (*on_rows, *plans, *on_models, *ships, changes.diff, changes.preview, pages.pages, validate):
    app.command()(command)


def main() -> None:
    """Run the command line. An error that a person can fix is shown as one message, with exit code 1; Ctrl-C exits with 130."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted; finished work is kept, and the next retune goes on from here", err=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("lab_pipeline"):
            raise
        typer.echo(f"error: {error.name} is missing: pip install 'lab-pipeline[pipeline]' (validate needs less)", err=True)
        sys.exit(1)
    except Exception as error:
        fixable = as_lab_error(error)
        if fixable is None:
            raise
        typer.echo(f"error: {fixable}", err=True)
        sys.exit(1)


def _require_local() -> None:
    if deployment() == "k8s":
        raise LabError("LAB_DEPLOYMENT=k8s: jobs are launched in the cluster's Dagster UI; unset it to run on this machine")


def summary_text(result: Mapping[str, Any]) -> str:
    """Format the summary of a retune, or the status of a home, as text for a terminal."""
    leaves = result["leaves"]
    width = max((len(leaf) for leaf in leaves), default=0)
    lines = ["", "leaf".ljust(width) + "  status       kept of generated  flow"]
    for leaf, row in leaves.items():
        kept = f"{row['kept']:>4} of {row['generated']}"
        lines.append(f"{leaf.ljust(width)}  {row['status']:<11}  {kept:<17}  {row['flow'] or ''}".rstrip())
        lines += [f"    {problem}" for problem in row["problems"]]
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
    if result["report"]:
        lines.append(f"Report: {Path(result['report']).with_suffix('.html')}")
    if result["champion"]:
        lines.append(f"Champion: {result['champion']['folder']}")
    lines.append(f"UI: make ui, or: lab-pipeline ui --home {result['home']}")
    if result["verdict"]:
        lines += ["", printable(f"What to do next: {result['next']}"), printable(result["verdict"])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
