"""Detect secrets and personal data in documents, before these go to a teacher or judge on a host outside your network.

Secrets are found by the token detectors of detect-secrets. Its entropy detectors are left out, because in prose they only
match words. Its keyword detector takes minutes on crafted long lines, so a bounded pattern for quoted passwords replaces it.
International telephone numbers (+41 ...) are found by phonenumbers, other numbers by patterns with the checksums of
python-stdnum. Names and addresses are not detected: that takes a model, and would match every person in an encyclopedia.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from stdnum import iban, luhn
from stdnum.us import ssn

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings
from lab_pipeline.taxonomy.documents.blocks import collapsed
from lab_pipeline.taxonomy.documents.reading import Document
from lab_pipeline.taxonomy.problem import Problem

ALLOWED = "pragma: allowlist secret"
"""Lines that contain this text are not searched, as in detect-secrets."""

_DETECTORS = (
    "ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector DiscordBotTokenDetector GitHubTokenDetector "
    "GitLabTokenDetector JwtTokenDetector MailchimpDetector NpmDetector OpenAIDetector PrivateKeyDetector "
    "PypiTokenDetector SendGridDetector SlackDetector SquareOAuthDetector StripeDetector TelegramBotTokenDetector "
    "TwilioKeyDetector"
).split()

_PIECE, _OVERLAP = 2000, 400
"""Long texts are searched in pieces of `_PIECE` characters that overlap by `_OVERLAP`: some detectors take quadratic time."""

_EXAMPLES = re.compile(r"[@.](?:example\.(?:com|net|org)|example|invalid|localhost|test)$", re.IGNORECASE)
"""Ends of e-mail addresses in domains reserved for examples (RFC 2606): these addresses are nobody's, and are not found."""


_UNSEEN = re.compile(r"[\xad\u034f\u061c\u115f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
"""Characters without a shape of their own: soft hyphens, zero-width blanks and joiners, marks of direction and of variants."""
_HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-")


@dataclass(frozen=True)
class SensitiveMatch:
    """Source line (1-based), place and kind of a suspected secret or personal datum; the matched text is never kept."""

    line: int
    place: str
    kind: str


def find_sensitive(document: Document) -> list[SensitiveMatch]:
    """Return all that looks like a secret or personal data in what the teacher would be sent: the texts of a document's blocks.

    Each kind is returned at most once for a line, sorted by line. What stands on a line with the mark `ALLOWED` is skipped; of
    what the source writes otherwise, such as a number over two lines, no line of its block may have the mark.
    """
    from detect_secrets.settings import transient_settings

    found = set()
    ends = [*(block.line for block in document.blocks[1:]), len(document.lines) + 1]
    with transient_settings({"plugins_used": [{"name": name} for name in _DETECTORS]}):
        for block, end in zip(document.blocks, ends, strict=False):
            source = [_plain(each) for each in document.lines[block.line - 1 : max(end - 1, block.line)]]
            for kind, value in _sensitive_texts(collapsed(_plain(block.text))):
                line = next((number for number, each in enumerate(source) if value in each), None)
                if not any(ALLOWED in each for each in (source if line is None else [source[line]])):
                    found.add(SensitiveMatch(block.line + (line or 0), block.place, kind))
    return sorted(found, key=lambda each: (each.line, each.place, each.kind))


def _plain(text: str) -> str:
    """Return a text without characters that nobody sees, such as soft hyphens, and with plain digits, blanks, and hyphens."""
    return text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).translate(_HYPHENS)


def sensitive_problems(document: Document, refused: list[str]) -> Iterator[Problem]:
    """Yield one problem for each kind of secret or personal data in a document, at the first line that has it.

    Args:
        refused: The `refused_hosts`: if there are any, the problems are errors that name them, otherwise warnings.
    """
    matches: dict[str, list[SensitiveMatch]] = {}
    for match in find_sensitive(document):
        matches.setdefault(match.kind, []).append(match)
    for kind, found in matches.items():
        more = f" (and {len(found) - 1} more such lines)" if len(found) > 1 else ""
        message = f"there seems to be {kind}{f' on {found[0].place}' if found[0].place else ''}{more}"
        if refused:
            message += f", which must not go to {', '.join(refused)} (documents.sensitive): "
            message += f"take it out, or mark the line with '{ALLOWED}'"
        yield Problem(document.path, found[0].line, "error" if refused else "warning", message, rule="sensitive-data")


def _sensitive_texts(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, matched text) of all that looks like a secret or personal data in a text of one line."""
    from phonenumbers import PhoneNumberMatcher

    yield from _secrets(text)
    if "+" in text:
        yield from (("a telephone number", match.raw_string) for match in PhoneNumberMatcher(text, None))
    if re.search(r"[@\d\"']", text):
        for kind, pattern, is_valid in _PATTERNS:
            yield from ((kind, match.group()) for match in pattern.finditer(text) if is_valid(match.group()))


def refused_hosts(settings: Settings) -> list[str]:
    """List the hosts to which documents with secrets or personal data must not go, sorted.

    These are the hosts of teacher and judge endpoints that, by name or address, are neither this machine nor in its network.
    There are none if `documents.sensitive` is 'warn'.
    """
    if settings.documents.sensitive == "warn":
        return []
    endpoints = [model for model in (settings.teacher, settings.judge) if isinstance(model, EndpointTeacherSettings)]
    hosts = {urlsplit(model.url).hostname or model.url for model in endpoints}
    return sorted(host for host in hosts if not _is_near(host))


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.casefold().endswith((".local", ".internal", ".localhost", ".svc"))


def _secrets(text: str) -> Iterator[tuple[str, str]]:
    from detect_secrets.core.scan import scan_line

    for start in range(0, max(len(text), 1), _PIECE - _OVERLAP):
        for found in scan_line(text[start : start + _PIECE]):
            yield f"a secret ({found.type})", found.secret_value or ""


def _begins_with_iban(words: str) -> bool:
    """Tell whether a pattern's match begins with a valid IBAN; the match may go on with another word, such as `BIC`."""
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
        "an e-mail address",  # but neither the user in a URL nor git@host:path
        re.compile(
            r"(?:(?<=mailto:)|(?<=[Mm]ail:)|(?<=[^ -~]:)|(?<![\w.+:/-]))"
            r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b(?!:\S)"
        ),
        lambda address: not _EXAMPLES.search(address),
    ),
    (
        "a payment card's number",
        re.compile(r"(?<![\w.-])(?:[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w-]|\.\d)"),
        lambda number: luhn.is_valid(re.sub("[ -]", "", number)),
    ),
    (
        "a bank account's number (IBAN)",
        re.compile(r"\b[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _begins_with_iban,
    ),
    ("a social security number (US)", re.compile(r"(?<![\w-])\d{3}-\d\d-\d{4}(?![\w-])"), ssn.is_valid),
)
