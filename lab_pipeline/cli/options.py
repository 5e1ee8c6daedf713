"""Declare the options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from lab_pipeline.core.home import Home, default_home
from lab_pipeline.runtime.launcher import prepare

HomeOption = Annotated[Path | None, typer.Option(help="The home; default: LAB_HOME, else data/lab of the project")]
Author = Annotated[str, typer.Option(help="Your name; it is kept for ever")]
Reason = Annotated[str, typer.Option(help="Your reason; it is kept for ever")]
LeafArgument = Annotated[str, typer.Argument(help="Key of the leaf: its folder in the taxonomy")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


def open_home(home: Path | None) -> Home:
    """Open an existing home; without `home`, the one that `LAB_HOME` names, else `data/lab` of the project.

    The environment of this process is set for Dagster.

    Raises:
        LabError: there is no such home, or its settings are wrong.
    """
    return prepare(home or default_home(), None)
