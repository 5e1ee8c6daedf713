"""Good rows and bad ones on the sample taxonomy, each labelled with its kind: what the rules must part without a judge."""

from __future__ import annotations

import random

from lab_pipeline_tests.curation.planted_bad import bad_rows
from lab_pipeline_tests.curation.planted_good import Row, good_rows, labelled, planted_row

EACH = 20
"""Bad rows of each kind."""


def planted(sources: dict[str, Row], heldout: dict[str, list[Row]]) -> tuple[list[Row], list[Row]]:
    """(good, bad) rows of the sample taxonomy's leaves, from their frozen sources; bad ones have `planted`, their kind."""
    good = [{**row, "id": f"good-{number}"} for number, row in enumerate(good_rows(sources))]
    choice = random.Random(7)
    bad = []
    for kind, rows in bad_rows(sources, heldout, good, choice).items():
        assert len(rows) >= EACH, (kind, len(rows))
        bad += [{**row, "planted": kind} for row in choice.sample(rows, EACH)]
    return good, [{**row, "id": f"bad-{number}"} for number, row in enumerate(bad)]


def asked_of_sentences(sources: dict[str, Row]) -> tuple[list[Row], list[Row]]:
    """(answered, unanswered) rows whose answer is a sentence: the one that tells the fact, or one on another of the leaf."""
    facts = [(leaf, fact["question"], fact["sentence"]) for leaf, fact, _ in labelled(sources)]
    rows: tuple[list[Row], list[Row]] = [], []
    for leaf, question, told in facts:
        for sentence in dict.fromkeys(sentence for other, _, sentence in facts if other == leaf):
            row = planted_row(leaf, "knowledge", question, sentence, sentence)
            rows[sentence != told].append(row)
    return rows
