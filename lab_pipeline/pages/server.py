"""Serve the pages until the process is ended."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.links import record_address


def serve(home: Home, settings: PagesSettings, host: str, port: int) -> None:
    """Serve the pages of a home until SIGINT or SIGTERM, and record where, for links to them.

    Raises:
        LabError: The port is in use, or the settings do not allow to listen on this host.
    """
    import uvicorn

    from lab_pipeline.pages.app import build_app

    app = build_app(home, Access.of(settings, host))
    config = uvicorn.Config(app, log_level="warning", server_header=False, proxy_headers=False)
    listener = listen(host, port)
    record_address(home, address_of(host, port))
    uvicorn.Server(config).run(sockets=[listener])


def address_of(host: str, port: int) -> str:
    """Return the address of a server, in which an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that listens on a port.

    Raises:
        LabError: The port is in use, or there is no such host here; the message offers `option` to choose another port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        trouble = f"port {port} of {host}: {os.strerror(error.errno or 0)}{_holder(port)}"
        raise LabError(f"{trouble}; choose another one with {option}") from None
    return found


def _holder(port: int) -> str:
    """Return ' by the home PATH' if a process that serves a home listens on the port, else ''."""
    import psutil

    with suppress(psutil.Error):  # another user's process, or one that has just ended
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) and each.pid:
                home = psutil.Process(each.pid).environ().get("LAB_HOME")
                return f" by the home {home}" if home else ""
    return ""
