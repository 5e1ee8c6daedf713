"""Find the phrases of `phrases.yaml`, by which the wording rules recognise markup, refusals and references to the source."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("phrases.yaml")


def find(kind: str, text: str) -> re.Match[str] | None:
    """Return the first phrase of a kind, such as 'refusal', in a text, in any of its languages; None if there is none."""
    return next(find_all(kind, text), None)


def find_all(kind: str, text: str) -> Iterator[re.Match[str]]:
    """Yield all phrases of a kind in a text."""
    pattern, triggers = compiled(kind)
    lower = text.lower()
    if not triggers or any(trigger in lower for trigger in triggers):
        yield from pattern.finditer(text)


@cache
def compiled(kind: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return one pattern for all phrases of a kind, and the triggers without which a text has none of them."""
    written = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    triggers = written[kind].pop("triggers", ())
    pattern = "|".join(f"(?:{phrase})" for language in written[kind].values() for phrase in language)
    for name, definition in reversed(written["definitions"].items()):  # a definition may use earlier ones
        pattern = pattern.replace(f"{{{name}}}", definition)
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE), tuple(triggers)
