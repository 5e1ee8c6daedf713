"""Find the passage that a row was written from, in the document around it as it was read."""

from __future__ import annotations

from dataclasses import dataclass

from lab_pipeline.core.home import Home
from lab_pipeline.core.rows import CuratedRow, FrozenLeaf
from lab_pipeline.core.storage import read_json
from lab_pipeline.instructions.plan import leaf_state
from lab_pipeline.taxonomy.documents.passages import passages_of

_AROUND = 1500
"""Characters of the document that are shown before and after the passage."""


@dataclass(frozen=True)
class Excerpt:
    """A passage with what stands around it. `before` and `after` are '' in homes of releases that froze no document."""

    document: str
    commit: str
    heading: str
    place: str
    """Where people find it in the file, such as 'slide 2'; '' if the format has no such places."""
    reader: str
    start: int
    end: int
    cut_before: bool
    """Whether the document begins before `before`; `cut_after` likewise."""
    before: str
    passage: tuple[str, str, str]
    """The passage, split into what stands before the row's support, the support, and the rest; the support is all of it, or a
    sentence."""
    after: str
    cut_after: bool


def excerpt_of(home: Home, row: CuratedRow) -> Excerpt | None:
    """Return the excerpt that a row was written from; None for skills, and if the frozen leaf is no longer in the home."""
    state = leaf_state(home, row["leaf"])
    if state is None or row["document"] is None or not home.leaf_source(state.source).exists():
        return None
    source: FrozenLeaf = read_json(home.leaf_source(state.source))
    passage = next(passages_of(row, source), None)
    if passage is None:
        return None
    document = next((each for each in source.get("documents", []) if each["path"] == passage["document"]), None)
    text = document["text"] if document else ""
    start, end = passage["start"], passage["end"]
    inside = passage["text"]
    first, support, rest = inside.partition(row["support"] or inside)
    return Excerpt(
        document=passage["document"],
        commit=passage["commit"],
        heading=passage["heading"],
        place=passage.get("place", ""),
        reader=document["reader"] if document else "",
        start=start,
        end=end,
        cut_before=bool(text) and start > _AROUND,
        before=text[max(0, start - _AROUND) : start],
        passage=(first, support, rest),
        after=text[end : end + _AROUND] if text else "",
        cut_after=len(text) > end + _AROUND,
    )
