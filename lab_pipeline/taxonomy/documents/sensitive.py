"""Secrets and personal data in documents, found before the text goes to a teacher on somebody else's machine.

Secrets are the business of detect-secrets: its detectors of token formats. Those that measure entropy are left out, for in
prose they find nothing but words; and its search for keywords, which takes minutes on a line of a few thousand characters made
for that, is replaced by a bounded one for quoted passwords. Telephone numbers are found by phonenumbers, where they are
international (+41 ...); the rest by patterns, and python-stdnum says which numbers can be one. Names and addresses are not
looked for: that takes a model, and finds every person that an encyclopedia is about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from stdnum import iban, luhn
from stdnum.us import ssn

from lab_pipeline.config.settings import EndpointTeacherSettings, Settings
from lab_pipeline.taxonomy.documents.repository import Document
from lab_pipeline.taxonomy.leaf import Problem

ALLOWED = "pragma: allowlist secret"
"""A line that holds this, as in detect-secrets, is passed over."""

_DETECTORS = (
    "ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector DiscordBotTokenDetector GitHubTokenDetector "
    "GitLabTokenDetector JwtTokenDetector MailchimpDetector NpmDetector OpenAIDetector PrivateKeyDetector "
    "PypiTokenDetector SendGridDetector SlackDetector SquareOAuthDetector StripeDetector TelegramBotTokenDetector "
    "TwilioKeyDetector"
).split()

_PIECE, _OVERLAP = 2000, 400
"""Characters: some detectors take quadratic time, so they see a very long line piece by piece."""

_EXAMPLES = re.compile(r"[@.](?:example\.(?:com|net|org)|example|invalid|localhost|test)$", re.IGNORECASE)
"""Domains that nobody can have (RFC 2606)."""

_LOCAL_NAMES = (".local", ".internal", ".localhost", ".svc")


@dataclass(frozen=True)
class SensitiveMatch:
    """Something in a text that should perhaps not leave the house; never the thing itself."""

    line: int
    kind: str


def find_sensitive(text: str) -> list[SensitiveMatch]:
    """What looks like a secret or like personal data, by line, each kind once a line."""
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if ALLOWED not in line}
    found = {*_secrets(lines), *_telephone_numbers(lines)}
    for number, line in lines.items():
        for kind, pattern, is_one in _PATTERNS if re.search(r"[@\d\"']", line) else ():
            if any(is_one(match.group()) for match in pattern.finditer(line)):
                found.add(SensitiveMatch(number, kind))
    return sorted(found, key=lambda each: (each.line, each.kind))


def sensitive_problems(document: Document, refused: list[str]) -> Iterator[Problem]:
    """One problem for each kind of finding in a document, at its first line: an error if `refused` hosts would get it."""
    lines: dict[str, list[int]] = {}
    for finding in find_sensitive(document.text):
        lines.setdefault(finding.kind, []).append(finding.line)
    for kind, found in lines.items():
        more = f" (and {len(found) - 1} more such lines)" if len(found) > 1 else ""
        fate = (
            f", which must not go to {', '.join(refused)} (documents.sensitive): take it out, or mark the line with '{ALLOWED}'"
            if refused
            else ""
        )
        severity: Literal["error", "warning"] = "error" if refused else "warning"
        yield Problem(document.path, found[0], severity, f"there seems to be {kind}{more}{fate}")


def foreign_hosts(settings: Settings) -> list[str]:
    """Hosts of teacher and judge that are neither this machine nor in its network, as far as their names say."""
    asked = [model for model in (settings.teacher, settings.judge) if isinstance(model, EndpointTeacherSettings)]
    hosts = {urlsplit(model.url).hostname or model.url for model in asked}
    return sorted(host for host in hosts if not _is_near(host))


def refused_hosts(settings: Settings) -> list[str]:
    """Hosts that documents with findings must not go to; none while the policy is to warn."""
    return foreign_hosts(settings) if settings.documents.sensitive == "refuse" else []


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.casefold().endswith((*_LOCAL_NAMES, ".svc.cluster.local"))


def _secrets(lines: dict[int, str]) -> Iterator[SensitiveMatch]:
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    with transient_settings({"plugins_used": [{"name": name} for name in _DETECTORS]}):
        for number, line in lines.items():
            for start in range(0, max(len(line), 1), _PIECE - _OVERLAP):
                yield from (
                    SensitiveMatch(number, f"a secret ({found.type})") for found in scan_line(line[start : start + _PIECE])
                )


def _telephone_numbers(lines: dict[int, str]) -> Iterator[SensitiveMatch]:
    from phonenumbers import PhoneNumberMatcher

    for number, line in lines.items():
        if "+" in line and PhoneNumberMatcher(line, None).has_next():
            yield SensitiveMatch(number, "a telephone number")


def _is_real_address(address: str) -> bool:
    return not _EXAMPLES.search(address)


def _is_card(number: str) -> bool:
    return luhn.is_valid(number.replace(" ", "").replace("-", ""))


def _begins_with_iban(words: str) -> bool:
    """Whether the first words are an account's number; the match may go on into what follows it, such as `BIC`."""
    groups = words.split(" ")
    return any(iban.is_valid("".join(groups[: end + 1])) for end in range(len(groups)))


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    (
        "a secret (quoted beside a keyword)",
        re.compile(
            r"(?:api[_-]?key|passw(?:or)?d|secret|token)[\w-]{0,30}[\"']?\s{0,3}(?:[:=]|:=|=>)\s{0,3}([\"'])(?![<{$%])[^\s\"']{6,200}\1",
            re.IGNORECASE,
        ),
        bool,
    ),
    (
        "an e-mail address",  # neither the user of a URL nor git@host:path
        re.compile(r"(?:(?<=mailto:)|(?<![\w.+:/-]))[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b(?!:\S)"),
        _is_real_address,
    ),
    (
        "a payment card's number",
        re.compile(r"(?<![\w.-])(?:[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w-]|\.\d)"),
        _is_card,
    ),
    (
        "a bank account's number (IBAN)",
        re.compile(r"\b[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _begins_with_iban,
    ),
    (
        "a social security number (US)",
        re.compile(r"(?<![\w-])\d{3}-\d\d-\d{4}(?![\w-])"),
        ssn.is_valid,
    ),
)
