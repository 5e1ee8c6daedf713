"""Run `lab-pipeline`: the pipeline from a terminal, on the same definitions and history as the Dagster UI.

Commands on models and rows are in modules of their own. Each command imports what it needs inside, so that all start fast.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lab_pipeline.cli import changes, models, pages, rows, shipping
from lab_pipeline.cli.options import AsJson, HomeOption, open_home
from lab_pipeline.cli.terminal import show, teller, word, working
from lab_pipeline.cli.validate import validate
from lab_pipeline.config.deployment import deployment
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.formats import duration
from lab_pipeline.core.git import is_remote
from lab_pipeline.core.home import default_home
from lab_pipeline.core.machine import as_lab_error
from lab_pipeline.runtime.launcher import SAMPLE_TAXONOMY, home_of, prepare

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_RUN, _ROWS, _MODELS, _TAXONOMY = "Run", "Rows and leaves", "Models", "A taxonomy before it is committed"


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lab-pipeline {version('lab-pipeline')}")
        raise typer.Exit


@app.callback()
def options(
    say_version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Keep a language model in step with a taxonomy, by the LAB method."""


@app.command(rich_help_panel=_RUN)
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

    say = teller(lambda: f"{duration(time.monotonic() - started):>10}  ")
    say(f"home: {opened.root}")
    from lab_pipeline.runtime.command import retune as run_retune

    result = run_retune(opened, say)
    if summary:
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    from lab_pipeline.cli.summary import show_summary

    show_summary(result)


@app.command(rich_help_panel=_RUN)
def status(home: HomeOption = None, as_json: AsJson = False) -> None:
    """Show the status of the leaves, the scores of the last candidate, and the champion."""
    opened = open_home(home)
    from lab_pipeline.cli.summary import show_summary
    from lab_pipeline.reports.status import status_report

    with working("Reading the home"):
        report = status_report(opened)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    show_summary(report)
    if report["behind"]:
        show(f"{len(report['behind'])} leaves are behind; `lab-pipeline retune` refreshes them.")
    for name, message in report["wrong"].items():
        _show_finding(name, message, passed=False)


@app.command(rich_help_panel=_RUN)
def doctor(home: HomeOption = None) -> None:
    """Check everything that a run needs, and say how to fix what is missing. The exit code is 1 if anything is."""
    from lab_pipeline.reports.doctor import examine

    all_passed = True
    with working("Checking what a run needs"):
        for finding in examine(home or default_home()):
            all_passed &= finding.passed
            _show_finding(finding.name, finding.message, finding.passed)
    raise typer.Exit(0 if all_passed else 1)


def _show_finding(name: str, message: str, passed: bool) -> None:
    show(Text.assemble(word("ok" if passed else "FIX"), "   " if passed else "  ", word(f"{name}: {message}")))


@app.command(rich_help_panel=_RUN)
def preflight(
    pods: Annotated[int, typer.Option(min=1, help="How many pods check together, by their JOB_COMPLETION_INDEX")] = 1,
) -> None:
    """Check on a cluster what its runs need, and say how to fix what is missing. The exit code is 1 if anything is."""
    from lab_pipeline.runtime.preflight import preflight as examine

    all_passed = True
    for finding in examine(default_home(), int(os.environ.get("JOB_COMPLETION_INDEX", "0")), pods):
        all_passed &= finding.passed
        _show_finding(finding.name, finding.message, finding.passed)
    raise typer.Exit(0 if all_passed else 1)


@app.command(rich_help_panel=_RUN)
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


_COMMANDS = {
    _ROWS: (rows.rows, rows.rejects, rows.review, rows.withdraw, rows.export_dataset, models.effect),
    _MODELS: (
        models.models,
        models.chat,
        models.compare,
        models.promote,
        models.rollback,
        models.lineage,
        models.gc,
        shipping.export_model,
    ),
    _RUN: (models.estimate, models.train_plan, pages.pages),
    _TAXONOMY: (validate, changes.diff, changes.preview),
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line. An error that a person can fix is shown as one message, with exit code 1; Ctrl-C exits with 130."""
    try:
        app()
    except KeyboardInterrupt:
        show("interrupted; finished work is kept, and the next retune goes on from here", stderr=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("lab_pipeline"):
            raise
        _show_error(f"{error.name} is missing: pip install 'lab-pipeline[pipeline]' (validate needs less)")
        sys.exit(1)
    except Exception as error:
        fixable = as_lab_error(error)
        if fixable is None:
            raise
        _show_error(str(fixable))
        sys.exit(1)


def _show_error(message: str) -> None:
    show(Text.assemble(word("error"), ": ", word(message)), stderr=True)


def _require_local() -> None:
    if deployment() == "k8s":
        raise LabError("LAB_DEPLOYMENT=k8s: jobs are launched in the cluster's Dagster UI; unset it to run on this machine")


if __name__ == "__main__":
    main()
