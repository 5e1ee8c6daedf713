"""Profile a leaf: derive from its seeds, passages and descriptions how its rows should look."""

import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from lab_pipeline.core.rows import FrozenLeaf
from lab_pipeline.text.language import main_language, scripts
from lab_pipeline.text.words import all_words, content_words


class Row(TypedDict):
    """The columns that rules read, of a generated row or of a seed that is checked like one."""

    kind: str
    context: str | None
    question: str
    answer: str
    support: str | None
    fault: str | None
    grounding: float | None


Reason = str | None
"""Why a rule rejects a row; None if it does not."""

_RUN = 5
"""Length, in characters, of the runs by which `similarity` compares texts."""
_ENOUGH_SIMILARITY = 0.07
"""Upper limit of `Profile.least_similarity`. Seeds on different subjects have a similarity of 0.06 to 0.07. Seeds may also be
one sentence with different names, but rows need not be as similar as that."""
_OTHER_SEEDS = 2
"""Measure how similar a leaf's seeds are only if each has at least this many others. Upstream's minimum of five seeds, of which
one is held out, leaves each seed three others."""
_SIMILARITY_OF_FEW = 0.04
"""Assumed similarity of the least similar seed in leaves with too few seeds to measure it. With two seeds it rejects none of
248 own rows, but two thirds of other leaves' rows and general questions."""


@dataclass(frozen=True)
class Profile:
    """What rules know of a leaf. Its texts are those of its frozen source: seeds, passages and descriptions."""

    language: str | None
    """English name of the language of its seeds or, if that is unclear, of all its texts; None if that is unclear too."""
    scripts: set[str]
    """Scripts of its texts."""
    subject: frozenset[str]
    """Stems of the content words of task, domain and outline, which questions may name even if their passage does not."""
    topics: frozenset[str]
    """Stems of the content words of its texts."""
    words: frozenset[str]
    """All words of its texts, in lower case."""
    lengths: dict[str, tuple[int, int]]
    """Number of words of the shortest and longest text of its seeds, by column (`question`, `answer`). Without seeds, the
    minimum is huge and the maximum 0, so that no range is widened."""
    end_marks: bool
    """Whether any seed's answer ends in a punctuation mark; if none does, no row's answer needs one."""
    style: dict[str, float]
    """The mean vector of its seeds; see `similarity`."""
    least_similarity: float
    """The lowest mean similarity of a seed to the other seeds, `_SIMILARITY_OF_FEW` if there are too few; at most
    `_ENOUGH_SIMILARITY`."""


def profile(source: FrozenLeaf) -> Profile:
    """Build the profile of a leaf from its frozen source."""
    material = "\n".join(_texts(source))
    seeds = [f"{seed['question']} {seed['answer']}" for seed in source["seeds"]]
    style = _mean([_vector(seed) for seed in seeds])
    others = len(seeds) - 1
    to_others = [_SIMILARITY_OF_FEW]
    if others >= _OTHER_SEEDS:  # `style` has the seed itself, with similarity 1: take it out
        to_others = [(len(seeds) * similarity(seed, style) - 1) / others for seed in seeds]
    return Profile(
        language=main_language(seeds) or main_language([material]),
        scripts=scripts(material),
        subject=frozenset(content_words(f"{source['task']} {source['domain']} {source['outline']}")),
        topics=frozenset(content_words(material)),
        words=frozenset(re.findall(r"\w+", material.casefold())),
        lengths={column: _lengths([seed[column] for seed in source["seeds"]]) for column in ("question", "answer")},
        end_marks=any(not seed["answer"].strip()[-1:].isalnum() for seed in source["seeds"]),
        style=style,
        least_similarity=min(*to_others, _ENOUGH_SIMILARITY),
    )


def similarity(text: str, style: dict[str, float]) -> float:
    """Return the mean cosine similarity of a text to a leaf's seeds, whose mean vector is `style`, by runs of five characters.

    Such runs, function words included, separate tasks better than content words or shorter runs do. Between the seeds of six
    skill leaves and other leaves' seeds and general questions, the area under the ROC curve is 0.99 (content words: 0.91).
    """
    return sum(weight * style.get(run, 0.0) for run, weight in _vector(text).items())


def _vector(text: str) -> dict[str, float]:
    """Return a vector of length 1 that weighs each run of characters in a text by one plus the logarithm of its count."""
    plain = " ".join(["", *re.findall(r"\w+", text.casefold()), ""])
    counts = Counter(plain[start : start + _RUN] for start in range(len(plain) - _RUN + 1))
    weights = {run: 1 + math.log(count) for run, count in counts.items()}
    length = math.hypot(*weights.values()) or 1.0
    return {run: weight / length for run, weight in weights.items()}


def _mean(vectors: Sequence[dict[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for vector in vectors:
        for run, weight in vector.items():
            sums[run] += weight / len(vectors)
    return dict(sums)


def _lengths(texts: Sequence[str]) -> tuple[int, int]:
    counts = [len(all_words(text)) for text in texts]
    return min(counts, default=sys.maxsize), max(counts, default=0)


def _texts(value: object) -> Iterator[str]:
    """Yield every string in a frozen source: texts, but also keys and hashes, which do no harm here."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
