"""Load the phrases of `phrases.yaml`, by which the wording rules recognise markup, refusals and references to the source."""

import re
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("phrases.yaml")


@cache
def phrases(kind: str) -> re.Pattern[str]:
    """Return one pattern for all phrases of a kind, such as 'refusal', in all their languages."""
    written = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    alternatives = [f"(?:{phrase})" for language in written[kind].values() for phrase in language]
    pattern = "|".join(alternatives)
    for name, definition in reversed(written["definitions"].items()):  # a definition may use earlier ones
        pattern = pattern.replace(f"{{{name}}}", definition)
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)
