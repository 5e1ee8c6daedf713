"""Split a leaf's judged rows into kept and rejected rows, with the reason of every rejection."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lab_pipeline.core.rows import CuratedRow, JudgedRow, RejectedRow
from lab_pipeline.curation.duplicates import Duplicates, asked_question
from lab_pipeline.curation.profile import Profile
from lab_pipeline.curation.rules import LeafRules, rules_of
from lab_pipeline.flows.flow import Flow, Judge
from lab_pipeline.taxonomy.reviews import Review, review_of, row_text

BANNED = "banned"
"""Name under which the funnel counts the rows that people banned."""

Curated = tuple[list[CuratedRow], list[RejectedRow]]


@dataclass(frozen=True)
class Curation:
    """How one leaf's rows are curated: by its flow's judges and rules, and by people's reviews, which overrule both."""

    leaf: Profile
    flow: Flow
    reviews: Sequence[Review] = ()

    @cached_property
    def rules(self) -> LeafRules:
        return rules_of(self.leaf, self.flow)

    def split(self, rows: Sequence[JudgedRow]) -> Curated:
        """Split the rows into (kept, rejected). Every row is in one of the two, in the order of `rows`.

        A row is rejected by a gating judge, by a rule, or as `duplicate` of a row that is kept; it gets the columns `rule` and
        `reason`. All rows get the column `advice`. Banned rows are rejected, and so are rows that ask and answer the same as a
        banned row, since people saw only one of them. Pinned rows are kept if they are complete, and of rows that ask the same,
        the pinned one. Checks on whole data sets hold for pinned rows too.
        """
        reviewed = {row["id"]: review for row in rows if (review := review_of(self.reviews, row["id"], row_text(row)))}
        banned = {row for row, review in reviewed.items() if review.decision == "ban"}
        pinned = {row["id"] for row in rows if row["id"] in reviewed.keys() - banned and not row["fault"]}
        repeats_go = any(rule.rule == "duplicate" for rule in self.rules.on)
        bans, earlier = Duplicates(), Duplicates()
        for each in rows:
            if each["id"] in banned and not each["fault"]:
                bans.add(asked_question(each))
        kept: list[CuratedRow] = []
        rejected: list[RejectedRow] = []
        for judged in sorted(rows, key=lambda row: row["id"] not in pinned):  # so that others repeat the pinned row
            rejection, advice = self._verdict(judged)
            row: CuratedRow = {**judged, "advice": advice}
            if row["id"] in pinned:
                rejection = None
            elif row["id"] in banned:
                rejection = BANNED, str(reviewed[row["id"]])
            question = None if rejection else asked_question(row)
            if question and row["id"] not in pinned:
                if (same := bans.find(question)) and same.answer == question.answer:
                    rejection = BANNED, f"says the same as row {same.id}, {reviewed[same.id]}"
                elif same := earlier.find(question):
                    rejection = "duplicate", f"asks the same as row {same.id}"
            if rejection:
                rule, reason = rejection
                rejected.append({**row, "rule": rule, "reason": reason})
                continue
            kept.append(row)
            if question and (repeats_go or row["id"] in pinned):
                earlier.add(question)
        place = {row["id"]: number for number, row in enumerate(rows)}
        return sorted(kept, key=lambda row: place[row["id"]]), sorted(rejected, key=lambda row: place[row["id"]])

    def _verdict(self, row: JudgedRow) -> tuple[tuple[str, str] | None, list[str]]:
        """Return the (rule, reason) of the first judge or rule that rejects a row, None if all pass, and the rules' advice."""
        # Early judges come first: rows that they stopped lack later columns, so the rules would call them incomplete.
        if rejection := _rejection_by_judge(row, self.flow.judges(early=True)):
            return rejection, []
        rejection, advice = self.rules.broken(row, self.leaf)
        return rejection or _rejection_by_judge(row, self.flow.judges(early=False)), advice


def _rejection_by_judge(row: JudgedRow, judges: Sequence[Judge]) -> tuple[str, str] | None:
    scores = {score["judge"]: score["score"] for score in row["scores"]}
    for judge in judges:
        if judge.gates and judge.name in scores:
            score = scores[judge.name]
            if score is None:
                return f"judge {judge.name} unreadable", "the judge's verdict could not be read"
            if score < judge.minimum:
                return f"judge {judge.name}", f"score {score:.2f} is below {judge.minimum:.2f}"
    return None


def funnel(generated: int, kept: int, rejected: Sequence[RejectedRow]) -> dict[str, int]:
    """Return the number of rows `generated`, rejected by each rule (the most frequent one first), and `kept`.

    The number generated is the sum of all the others.
    """
    counts = Counter(row["rule"] for row in rejected)
    return {"generated": generated, **dict(counts.most_common()), "kept": kept}
