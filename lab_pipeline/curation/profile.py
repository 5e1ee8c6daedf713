"""Profile a leaf: what its seeds and documents tell about how its rows should look."""

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
    """What rules see of a row, or of a seed that is checked like a row."""

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
"""Characters of the runs that texts are compared by; see `similarity`."""
_ENOUGH_SIMILARITY = 0.07
"""No row needs more similarity to the seeds than this: seeds on different subjects have 0.06 to 0.07, but seeds may also be
one sentence with different names."""
_OTHER_SEEDS = 2
"""With fewer other seeds than this, their similarity tells nothing. Upstream's minimum of five seeds, of which one is held
out, leaves three others."""
_SIMILARITY_OF_FEW = 0.04
"""Then used as the least similarity of seeds: in leaves of two seeds it rejects none of 248 rows, and two thirds of the rows of
other leaves and of the general questions."""


@dataclass(frozen=True)
class Profile:
    """What rules know of a leaf."""

    language: str | None
    """Language of its seeds (English name), else of all its texts; None if that is unclear."""
    scripts: set[str]
    """Scripts of its seeds, passages and descriptions."""
    subject: frozenset[str]
    """Stems of the content words of its descriptions, which questions may name even if a passage does not."""
    topics: frozenset[str]
    """Stems of the content words of its seeds, passages and descriptions."""
    words: frozenset[str]
    """All words of its seeds, passages and descriptions, in lower case."""
    lengths: dict[str, tuple[int, int]]
    """Words of its shortest and longest seed, by column (`question`, `answer`); without seeds, bounds without effect."""
    end_marks: bool
    """Whether any seed's answer ends in a punctuation mark; if none does, no row's answer needs one."""
    style: dict[str, float]
    """The mean vector of its seeds; see `similarity`."""
    least_similarity: float
    """Similarity of the least similar seed to the others."""


def profile(source: FrozenLeaf) -> Profile:
    """Build the profile of a leaf from its frozen source."""
    material = "\n".join(_texts(source))
    seeds = [f"{seed['question']} {seed['answer']}" for seed in source["seeds"]]
    style = _mean([_vector(seed) for seed in seeds])
    others = len(seeds) - 1
    to_others = [_SIMILARITY_OF_FEW]
    if others >= _OTHER_SEEDS:  # the mean over all seeds holds each seed's similarity to itself, which is 1
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
    """Return the mean cosine similarity of a text to a leaf's seeds, over runs of five characters.

    Runs of five, function words included, separate tasks better than content words or shorter runs: area under the curve 0.99
    (content words: 0.91), each seed of six skill leaves against the other leaves' seeds and general questions.
    """
    return sum(weight * style.get(run, 0.0) for run, weight in _vector(text).items())


def _vector(text: str) -> dict[str, float]:
    """Count a text's runs of characters, with logarithmic weights, as a vector of length 1."""
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
    """Yield every text in a frozen source."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
