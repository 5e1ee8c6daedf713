"""Split a leaf's judged rows into kept and rejected rows, with the reason of every rejection."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab_pipeline.core.rows import CuratedRow, JudgedRow, RejectedRow
from lab_pipeline.curation.duplicates import Duplicates
from lab_pipeline.curation.profile import Profile
from lab_pipeline.curation.rules import LeafRules
from lab_pipeline.flows.flow import Flow, Judge


@dataclass(frozen=True)
class Curation:
    """How the rows of one leaf are curated: by its flow's judges and by those of the flow's rules that hold for the leaf."""

    leaf: Profile
    rules: LeafRules
    flow: Flow

    def split(self, rows: Sequence[JudgedRow]) -> tuple[list[CuratedRow], list[RejectedRow]]:
        """Split the rows into (kept, rejected). Every row is in one of the two, in the order of `rows`.

        A row is rejected by a gating judge, by a rule, or as `duplicate` of an earlier row that was kept; it gets the columns
        `rule` and `reason`. All rows get the column `advice`.
        """
        kept: list[CuratedRow] = []
        rejected: list[RejectedRow] = []
        earlier = Duplicates()
        repeats_go = any(rule.rule == "duplicate" for rule in self.rules.on)
        for judged in rows:
            rejection, advice = self._verdict(judged)
            row: CuratedRow = {**judged, "advice": advice}
            if rejection is None and repeats_go and (repeated := earlier.find(row)):
                rejection = "duplicate", f"asks the same as row {repeated}"
            if rejection:
                rule, reason = rejection
                rejected.append({**row, "rule": rule, "reason": reason})
            else:
                earlier.add(row)
                kept.append(row)
        return kept, rejected

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
