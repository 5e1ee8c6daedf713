"""Decide who may use the pages, and by which names: people of this machine, holders of a login token, or users of a proxy."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from starlette.requests import HTTPConnection

from lab_pipeline.config.settings import PagesSettings
from lab_pipeline.core.errors import LabError

_LEAST_CHARACTERS = 20


@dataclass(frozen=True)
class Access:
    """Who may use the pages. Without `tokens` and `user_header`, it is whoever can reach a port of this machine."""

    hosts: frozenset[str]
    """Host names by which requests may call the server; any other is that of a page that means to read this one."""
    origins: frozenset[str] = frozenset()
    """Origins from which requests may write, beside the host that they call: the proxy's."""
    prefix: str = ""
    """Path of the pages on the proxy, which takes it off, such as '/lab'."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Name of a person by login token."""
    user_header: str | None = None
    """Header in which a proxy names the person."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Signs logins and forms; a restart of the server ends all logins."""

    @classmethod
    def of(cls, settings: PagesSettings, host: str) -> Access:
        """Return the access that the settings give to a server that listens on `host`.

        Raises:
            LabError: `host` can be reached from other machines, but no login is set up; or the tokens are wrong.
        """
        tokens = _tokens(settings.tokens_env)
        url = urlsplit(settings.url or "")
        names = {"127.0.0.1", "localhost", "[::1]"} if _is_loopback(host) else set()
        if not _is_loopback(host):
            if not tokens:
                raise LabError(
                    f"--host {host} can be reached from other machines, so each person needs a login token: set "
                    "pages.tokens_env in settings.yaml to the name of a variable that holds NAME:TOKEN for each"
                )
            if not url.hostname:
                raise LabError(f"--host {host}: set pages.url in settings.yaml to the address that people type")
            if settings.user_header:
                raise LabError(
                    f"--host {host}: pages.user_header is believed only of a proxy on this machine; "
                    "listen on 127.0.0.1, or unset it"
                )
        return cls(
            hosts=frozenset(names | ({url.hostname} if url.hostname else set())),
            origins=frozenset({f"{url.scheme}://{url.netloc}".lower()} if url.hostname else ()),
            prefix=url.path.rstrip("/"),
            tokens=tokens,
            user_header=settings.user_header,
        )

    def user(self, request: HTTPConnection) -> str | None:
        """Return the name of the person who makes a request; None if nobody has logged in."""
        if self.user_header:
            return (request.headers.get(self.user_header) or "").strip() or None
        if self.tokens:
            name, _, signature = request.cookies.get(self.cookie, "").rpartition(".")
            known = name and _same(signature, self._signed(f"login {name}"))
            return unquote(name) if known else None
        return getpass.getuser()

    @property
    def cookie(self) -> str:
        """Name of the login's cookie; the servers of one host share its cookies, whatever their port."""
        return f"lab_{hashlib.sha256(self.secret).hexdigest()[:8]}"

    def login(self, token: str) -> str | None:
        """Return the cookie's value for the holder of a token; None if nobody has this token."""
        found = [name for known, name in self.tokens.items() if _same(known, token)]
        name = quote(found[0]) if found else ""
        return f"{name}.{self._signed(f'login {name}')}" if found else None

    def form_token(self, user: str) -> str:
        """Return the token that each form of this person holds, so that no other site can send one in their name."""
        return self._signed(f"form {user}")

    def is_form_of(self, user: str, token: str) -> bool:
        """Tell whether a form's token is this person's."""
        return _same(token, self.form_token(user))

    def may_write(self, host: str, origin: str) -> bool:
        """Tell whether a request to `host` may write if it comes from a page of `origin`."""
        return origin.lower() in self.origins or (urlsplit(origin).netloc or None) == host

    def _signed(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    """Compare two secrets in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tokens(variable: str | None) -> dict[str, str]:
    """Read names by token from an environment variable: NAME:TOKEN, separated by white space.

    Raises:
        LabError: The variable is not set, or an entry has no name or a token of less than `_LEAST_CHARACTERS`.
    """
    if variable is None:
        return {}
    entries = os.environ.get(variable, "").split()
    if not entries:
        raise LabError(f"pages.tokens_env: the environment variable {variable} is not set; put NAME:TOKEN into it")
    tokens = {}
    for number, entry in enumerate(entries, 1):
        name, _, token = entry.partition(":")
        if not name or len(token) < _LEAST_CHARACTERS:
            raise LabError(f"{variable}, entry {number}: expected NAME:TOKEN with {_LEAST_CHARACTERS} characters or more")
        tokens[token] = name
    return tokens
