"""Declare the options and arguments that several commands share, and complete leaves and models in a shell."""

from pathlib import Path
from typing import Annotated

import typer

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home, default_home
from lab_pipeline.runtime.launcher import prepare


def complete_leaf(context: typer.Context, incomplete: str) -> list[str]:
    """Return the keys of leaves that begin as typed."""
    from lab_pipeline.reports.lineage import known_leaves

    try:
        return [leaf for leaf in sorted(known_leaves(_home_named(context))) if leaf.startswith(incomplete)]
    except (LabError, OSError):  # a shell is given nothing rather than a message amid the line
        return []


def complete_model(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of models that begin as typed."""
    from lab_pipeline.evaluation.history import evaluations
    from lab_pipeline.reports.lineage import standings

    home = _home_named(context)
    try:
        names = ["champion", "base", *{**standings(home), **evaluations(home)}]
    except (LabError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_lineage(context: typer.Context, incomplete: str) -> list[str]:
    """Return what the lineage can be asked of: models, leaves, or a row."""
    rows = ["row"] if "row".startswith(incomplete) else []
    return [*complete_model(context, incomplete), *complete_leaf(context, incomplete), *rows]


def _home_named(context: typer.Context) -> Home:
    return Home(Path(context.params.get("home") or default_home()))


HomeOption = Annotated[Path | None, typer.Option(help="The home; default: LAB_HOME, else data/lab of the project")]
Author = Annotated[str, typer.Option(help="Your name; it is kept for ever")]
Reason = Annotated[str, typer.Option(help="Your reason; it is kept for ever")]
LeafArgument = Annotated[str, typer.Argument(help="Key of the leaf: its folder in the taxonomy", autocompletion=complete_leaf)]
ModelOption = Annotated[
    str, typer.Option(help="'champion', 'base', or the id of a champion or candidate", autocompletion=complete_model)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


def open_home(home: Path | None) -> Home:
    """Open an existing home; without `home`, the one that `LAB_HOME` names, else `data/lab` of the project.

    The environment of this process is set for Dagster.

    Raises:
        LabError: there is no such home, or its settings are wrong.
    """
    return prepare(home or default_home(), None)
