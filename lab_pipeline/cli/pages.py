"""The command pages: the pages on which people read and review a home, alone or beside the Dagster UI."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipeline.cli.options import HomeOption, open_home
from lab_pipeline.core.processes import die_with_parent, python_module

if TYPE_CHECKING:
    from lab_pipeline.core.home import Home


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


def start_beside_ui(home: Home, port: int) -> str:
    """Start the pages in a process that ends with this one, and return their address.

    Raises:
        LabError: The port is in use, or the settings do not allow the pages to start.
    """
    from lab_pipeline.config.settings import load_settings
    from lab_pipeline.pages.access import Access
    from lab_pipeline.pages.server import address_of, listen

    settings = load_settings(home.settings_file).pages
    Access.of(settings, "127.0.0.1")  # says what is wrong before the UI hides it among its messages
    listen("127.0.0.1", port).close()
    command = python_module("lab_pipeline.cli.app", "pages", "--home", str(home.root), "--port", str(port))
    subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    return settings.url or address_of("127.0.0.1", port)
