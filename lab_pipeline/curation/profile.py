"""What a leaf's own seeds and documents say of how its rows should be."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab_pipeline.text.language import main_language, scripts
from lab_pipeline.text.words import all_words, content_words

Row = dict[str, Any]
Reason = str | None
"""What a rule found wrong with a row, None if nothing."""

_RUN = 5
_ENOUGH_SIMILARITY = 0.07
"""Seeds on different matters have 0.06 to 0.07; where all seeds are one sentence with other names, rows need not be."""
_OTHER_SEEDS = 2
"""With fewer other seeds than this, how like one another a leaf's seeds are says nothing; upstream's minimum of five, of which
one is held out, leaves three."""
_SIMILARITY_OF_FEW = 0.04
"""Stands in for the similarity of the least similar seed then: in leaves of two seeds it loses none of 248 rows, and finds two
thirds of other leaves' rows and general questions."""


@dataclass(frozen=True)
class Profile:
    """A leaf as the rules see it."""

    language: str | None
    """Language of its seeds (English name), of all its texts where they are few, None if that is unclear."""
    scripts: set[str]
    """Scripts of its seeds, passages and descriptions."""
    subject: frozenset[str]
    """Stems of the content words of its description: what its questions may name though a passage does not."""
    topics: frozenset[str]
    """Stems of the content words of its seeds, passages and descriptions."""
    words: frozenset[str]
    """All words of the same, lower-case."""
    lengths: dict[str, tuple[int, int]]
    """Words of its seeds' shortest and longest `question` and `answer`; bounds that bind nothing where it has no seeds."""
    end_marks: bool
    """Whether any seed's answer ends in a mark; where none does, no row's need end."""
    style: dict[str, float]
    """How its seeds read on average: see `similarity`."""
    least_similarity: float
    """Likeness of the seed that is least like the others."""


def profile(source: dict[str, Any]) -> Profile:
    """The profile of a leaf from its frozen source."""
    material = "\n".join(_texts(source))
    seeds = [f"{seed['question']} {seed['answer']}" for seed in source["seeds"]]
    style = _mean([_shape(seed) for seed in seeds])
    others = len(seeds) - 1
    few = others < _OTHER_SEEDS
    alone = [_SIMILARITY_OF_FEW] if few else [(len(seeds) * similarity(seed, style) - 1) / others for seed in seeds]
    return Profile(
        language=main_language(seeds) or main_language([material]),
        scripts=scripts(material),
        subject=frozenset(content_words(f"{source['task']} {source['domain']} {source['outline']}")),
        topics=frozenset(content_words(material)),
        words=frozenset(re.findall(r"\w+", material.casefold())),
        lengths={column: _lengths([seed[column] for seed in source["seeds"]]) for column in ("question", "answer")},
        end_marks=any(not seed["answer"].strip()[-1:].isalnum() for seed in source["seeds"]),
        style=style,
        least_similarity=min(*alone, _ENOUGH_SIMILARITY),
    )


def similarity(text: str, style: dict[str, float]) -> float:
    """Mean cosine similarity of a text to a leaf's seeds, over runs of five characters.

    Runs of five tell tasks apart better than content words or shorter runs do, function words included: area under the curve
    0.99 (content words: 0.91), each seed of six skill leaves against the others' seeds and general questions.
    """
    return sum(weight * style.get(run, 0.0) for run, weight in _shape(text).items())


def _shape(text: str) -> dict[str, float]:
    """A text's runs of characters, each weighted by the logarithm of its count, as a vector of length 1."""
    even = " ".join(["", *re.findall(r"\w+", text.casefold()), ""])
    counts = Counter(even[start : start + _RUN] for start in range(len(even) - _RUN + 1))
    weights = {run: 1 + math.log(count) for run, count in counts.items()}
    length = math.hypot(*weights.values()) or 1.0
    return {run: weight / length for run, weight in weights.items()}


def _mean(shapes: list[dict[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for shape in shapes:
        for run, weight in shape.items():
            sums[run] += weight / len(shapes)
    return dict(sums)


def _lengths(texts: list[str]) -> tuple[int, int]:
    counts = [len(all_words(text)) for text in texts]
    return min(counts, default=sys.maxsize), max(counts, default=0)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a frozen source."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
