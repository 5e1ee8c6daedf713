"""Read the works and licences that a leaf's `attribution.txt` states."""

from __future__ import annotations

import re

_WORK = {
    "title": re.compile(r"^\W*title of (?:the )?work\s*:\s*(.*\S)", re.IGNORECASE),
    "link": re.compile(r"^\W*link to (?:the )?work\s*:\s*(.*\S)", re.IGNORECASE),
    "licence": re.compile(r"^\W*licen[sc]e(?: of (?:the )?work)?\s*:\s*(.*\S)", re.IGNORECASE),
    "creators": re.compile(r"^\W*creator names\s*:\s*(.*\S)", re.IGNORECASE),
}
"""Pattern of the line that states each field of a work in InstructLab's `attribution.txt`."""

_SPDX = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "cc zero": "CC0-1.0",
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "cc0 1.0 universal": "CC0-1.0",
    "cdla permissive 2.0": "CDLA-Permissive-2.0",
    "mit": "MIT",
    "mpl 2.0": "MPL-2.0",
    "odc by 1.0": "ODC-By-1.0",
}
"""SPDX ids by the licence's lower-case name without `_FILLERS`. Names that leave the version open are not in it."""
_FILLERS = {"the", "license", "version", "v", "public"}

_CREATIVE_COMMONS = {
    "creative commons": "cc",
    r"non[ -]?commercial": "nc",
    r"share[ -]?alike": "sa",
    r"no[ -]?deriv(?:ative)?s?(?: works)?": "nd",
    "attribution": "by",
    r"international|unported": "",
}
_NON_COMMERCIAL = re.compile(r"\bnc\b|non[ -]?commercial", re.IGNORECASE)


def works(attribution: str | None) -> list[dict[str, str]]:
    """Return the works that the text of an `attribution.txt` names, in its order; an empty list for None.

    Each has the keys `title`, `link`, `licence` (as an SPDX id if known) and `creators`, without those that are not stated.
    """
    found: list[dict[str, str]] = []
    for line in (attribution or "").splitlines():
        for name, pattern in _WORK.items():
            if match := pattern.match(line):
                if not found or name in found[-1]:
                    found.append({})
                found[-1][name] = spdx(match.group(1)) if name == "licence" else match.group(1)
    return found


def licences(attribution: str | None) -> list[str]:
    """Return the licences that an `attribution.txt` states, as SPDX ids where known, each once, sorted."""
    return sorted({work["licence"] for work in works(attribution) if "licence" in work})


def non_commercial_lines(attribution: str) -> list[tuple[int, str]]:
    """Return (1-based line, licence) for each stated licence that does not allow commercial use."""
    stated = ((line, licences(text)) for line, text in enumerate(attribution.splitlines(), 1))
    return [(line, licence) for line, found in stated for licence in found if is_non_commercial(licence)]


def is_non_commercial(licence: str) -> bool:
    return bool(_NON_COMMERCIAL.search(licence))


def spdx(licence: str) -> str:
    """Return the SPDX id of a licence such as `CC BY-SA 4.0` or `Apache License, Version 2.0`; an unknown one as stated."""
    words = re.findall(r"[a-z0-9]+(?:\.[0-9]+)*", licence.casefold().replace("licence", "license"))
    plain = " ".join(word.removeprefix("v") if word[1:2].isdigit() else word for word in words if word not in _FILLERS)
    if plain in _SPDX:
        return _SPDX[plain]
    for pattern, short in _CREATIVE_COMMONS.items():
        plain = re.sub(pattern, short, plain)
    parts = plain.split()
    if parts[:2] != ["cc", "by"] or not all(re.fullmatch(r"nc|sa|nd|[1-4]\.0", part) for part in parts[2:]):
        return licence
    return "-".join(part.upper() for part in parts)
