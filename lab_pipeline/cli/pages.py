"""The command pages: the pages on which people read and review a home, alone or beside the Dagster UI."""

from __future__ import annotations

from typing import Annotated

import typer

from lab_pipeline.cli.options import HomeOption, open_home


def pages(
    home: HomeOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs login tokens")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port")] = 3001,
) -> None:
    """Serve the pages on which people read and review rows, leaves and models in a browser, and write leaves."""
    opened = open_home(home)
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.pages.server import address_of, serve

    settings = load_settings(opened.settings_file).pages
    typer.echo(f"home:  {opened.root}\npages: {settings.url or address_of(host, port)}")
    serve(opened, settings, host, port)
