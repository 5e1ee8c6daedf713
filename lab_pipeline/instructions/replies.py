"""Parse a teacher's replies: one text, or several labelled items in the formats that models commonly use."""

import re
from functools import cache

from lab_pipeline.flows.flow import Stage
from lab_pipeline.teacher.protocol import Reply

Item = tuple[dict[str, str], str | None]
"""The columns that were read from one item of a reply, and the item's fault; None if it is complete."""

_RULE = re.compile(r"\n\s*([-*_=])\1{2,}\s*$")
"""A horizontal rule at the end of an item."""


def read_reply(stage: Stage, reply: Reply) -> list[Item]:
    """Return the items of a reply, at least one. An item that is empty, incomplete or cut off has a fault.

    A reply to a stage without labels is one item, as is an empty reply, or one in which no label was found.
    """
    if reply.no_answer:
        return [({}, reply.no_answer)]
    text = reply.text.strip()
    cut_off = f"cut off at {stage.max_tokens} tokens" if reply.finish == "length" else None
    if not stage.labelled:
        if stage.first_line and "\n" in text:
            text, cut_off = text.split("\n", 1)[0].strip(), None
        fault = cut_off if text else "empty"
        return [({stage.output: text}, fault and f"{stage.output} {fault}")]
    items = _items(text, stage.columns)
    if not items:
        return [({stage.columns[-1]: text}, f"no {' and '.join(stage.columns)} found")]
    faults = [next((f"{column} missing" for column in stage.columns if not item.get(column)), None) for item in items]
    if cut_off:
        faults[-1] = f"{stage.columns[-1]} {cut_off}"
    return list(zip(items, faults, strict=True))


def _items(text: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Split a text at its labels into items, which map columns to texts; return an empty list if it has no label.

    The first column's label begins a new item, as does a label that the item has already. Text before all labels is dropped.
    """
    for labels in ({column: column for column in columns}, {column[0]: column for column in columns}):  # else Q: and A:
        found = list(_label(tuple(labels)).finditer(text))
        if not found:
            continue
        items: list[dict[str, str]] = []
        ends = [*(match.start() for match in found[1:]), len(text)]
        for match, end in zip(found, ends, strict=True):
            column = labels[match.group(1).casefold()]
            if not items or column in items[-1] or column == columns[0]:
                items.append({})
            items[-1][column] = _RULE.sub("", text[match.end() : end].rstrip()).strip()
        return items
    return []


def cut_at_labels(text: str, labels: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the text before those of its later lines that begin with a label, and the texts after these labels, in order.

    A label in the first line belongs to the text.
    """
    found = [match for match in _label(labels).finditer(text) if match.start()]
    ends = [*(match.start() for match in found), len(text)]
    after = [text[match.end() : end].strip() for match, end in zip(found, ends[1:], strict=True)]
    return text[: ends[0]].strip(), after


@cache
def _label(words: tuple[str, ...]) -> re.Pattern[str]:
    """Build the pattern of a label at a line's beginning: 'Question:', '**Question 2:**', '3. [QUESTION]', '### Answer'."""
    before = r"^[ \t>#*_(\[-]*(?:\d{1,3}[.)][ \t]*)?[*_\[]*"
    number = r"(?:[ \t]*#?\d{1,3})?"
    after = r"[ \t]*(?:[*_]*[:\]][:*_]*|[*_]+[ \t]*$|[ \t]*$)"
    return re.compile(rf"{before}({'|'.join(words)}){number}{after}", re.IGNORECASE | re.MULTILINE)
