"""Commands on the changes of a taxonomy in git: diff, preview. They need no home."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lab_pipeline.cli.options import AsJson, HomeOption
from lab_pipeline.cli.terminal import show, word, working
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import default_home

if TYPE_CHECKING:
    from lab_pipeline.config.settings import Settings
    from lab_pipeline.taxonomy.changes import Changes

Base = Annotated[str, typer.Option(help="Branch, tag or commit, such as origin/main; its merge base with HEAD is compared")]
TaxonomyFolder = Annotated[Path, typer.Argument(metavar="[PATH]", help="Folder of the taxonomy, in a git work tree")]


def diff(base: Base, path: TaxonomyFolder = Path(), as_json: AsJson = False) -> None:
    """List the leaves that a work tree adds, modifies or removes, as a pull request would show them."""
    changes = _changes(path, base)
    if as_json:
        typer.echo(json.dumps(asdict(changes), indent=2, ensure_ascii=False))
        return
    for what in ("added", "modified", "removed"):
        for leaf in getattr(changes, what):
            show(Text.assemble(word(what), " " * (10 - len(what)), word(leaf)))


def preview(
    base: Base,
    path: TaxonomyFolder = Path(),
    sample: Annotated[int, typer.Option(min=0, help="Rows per leaf to generate and judge with the teacher")] = 0,
    home: HomeOption = None,
) -> None:
    """Write as Markdown, for a reviewer, what the changed leaves would teach. Settings are the home's, if there is one."""
    changes = _changes(path, base)
    from lab_pipeline.reports.preview import preview_text

    root = home or default_home()
    with working("Asking the teacher for a sample" if sample else "Reading the changed leaves"):
        text = preview_text(path.resolve(), changes, _settings(root, home is not None, path), sample)
    typer.echo(text)


def _changes(path: Path, base: str) -> Changes:
    """Find the changes; if git cannot tell, say why and exit with 2."""
    from lab_pipeline.taxonomy.changes import find_changes

    try:
        return find_changes(path.resolve(), base)
    except LabError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _settings(root: Path, named: bool, path: Path) -> Settings:
    """Load the settings of the home at `root`; without a home, unless it was named, return the defaults."""
    from lab_pipeline.config.settings import Settings, TaxonomySettings, load_settings

    if named or (root / "settings.yaml").exists():
        return load_settings(root / "settings.yaml")
    return Settings(taxonomy=TaxonomySettings(path=str(path.resolve())))
