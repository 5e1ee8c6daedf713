"""Command that takes a champion elsewhere: export-model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lab_pipeline.cli.options import HomeOption, open_home


def export_model(
    to: Annotated[Path, typer.Option(help="New or empty folder to write to")],
    format: Annotated[
        Literal["hf", "gguf", "oci"],
        typer.Option(help="hf: a folder for the Hugging Face hub; gguf: a file for llama.cpp; oci: an OCI image layout"),
    ] = "hf",
    model: Annotated[str, typer.Option(help="'champion', or the id of a present or past champion")] = "champion",
    llama_cpp: Annotated[
        Path | None, typer.Option(help="llama.cpp folder or source archive to convert by; default: a pinned one, by pip")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Push it to OWNER/NAME on the hub, or an OCI image to REGISTRY/NAME[:TAG]; default: no")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Export the champion, with card, lineage and licence, so that it opens elsewhere; with --push, upload it as well."""
    opened = open_home(home)
    from lab_pipeline.registry import export
    from lab_pipeline.registry import push as pushing

    if push:
        pushing.require_repository(push, format == "oci")
    champion = export.export_model(opened, model, to, format, llama_cpp)
    for path in sorted(to.rglob("*")):
        if path.is_file():
            typer.echo(str(path))
    if push and format == "oci":
        typer.echo(f"Pushed: {pushing.push_to_registry(to, push)}")
    elif push:
        typer.echo(f"Pushed: {pushing.push_to_hub(to, push, champion.id)}")
