"""Guard the pages: check host, login and origin of each request, and forbid in each response what a page never needs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab_pipeline.pages.access import Access
from lab_pipeline.pages.links import page

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and run: files of this server, nothing inline and nothing from elsewhere."""
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
"""The same for an evaluation's report, one file with its own styles: it may run and load nothing at all."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, a form's Origin would be null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(?::\d+)?")
"""Name or address of a host, an IPv6 address in brackets, and its port."""
_MOST_BYTES = 4 << 20
_OPEN = ("/login", "/static/")
_READS = ("GET", "HEAD")

Form = Mapping[str, str]


class Guard:
    """ASGI middleware that lets a request through only if host, login and origin are right; `state.user` names the person."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; there are no web sockets
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        refused = self._refused(request)
        await (refused or self.app)(scope, receive, guarded)

    def _refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        name = _HOST.fullmatch(host.lower())
        if name is None or name[1] not in self.access.hosts:
            known = ", ".join(sorted(self.access.hosts))
            return PlainTextResponse(f"unknown host; call these pages by {known}, or set pages.url in settings.yaml", 421)
        if request.method not in _READS and not self.access.may_write(host, request.headers.get("origin", "")):
            return PlainTextResponse("only a form of these pages may write; reload the page", 403)
        user = self.access.user(request)
        request.state.user = user
        if user or request.url.path.startswith(_OPEN):
            return None
        if self.access.user_header:
            return PlainTextResponse(f"the proxy named no user in {self.access.user_header}", 403)
        if request.method in _READS:
            wanted = request.url.path.lstrip("/") + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(self.access.prefix + page("login", to=wanted), 303)
        return PlainTextResponse("log in first", 401)


def posted(handle: Callable[[Request, Form], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a function that handles a sent form, which must hold the person's form token."""

    async def endpoint(request: Request) -> Response:
        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > _MOST_BYTES:
                raise HTTPException(413, f"more than {_MOST_BYTES >> 20} MiB; a leaf is much shorter")
        form = dict(parse_qsl(raw.decode("utf-8", errors="replace"), keep_blank_values=True, max_num_fields=100))
        if not request.app.state.access.is_form_of(request.state.user or "", form.get("token", "")):
            raise HTTPException(403, "the form is from before the server's start, or from elsewhere; reload the page")
        return await run_in_threadpool(handle, request, form)

    return endpoint
