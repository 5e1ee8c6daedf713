"""What is each rule of curation worth: which good rows does it lose, and which bad rows does it alone find?

Good rows are seed examples that people wrote. Each is checked as if a teacher had written it for a leaf that has only the other
seeds (at most eight seeds of a leaf, which more would not change). Bad rows are planted in the sample taxonomy: those of
`lab_pipeline_tests/curation/planted_bad.py`, loops, statements in place of questions, overlong answers, and questions beside
another sentence of the leaf than the one that answers them.

For the strong and for the simple flows, by rule:

- `lost_alone`: good rows that the rule rejects or, if it only advises, would note; `lost`: those that no earlier rule rejects.
- `only`: planted bad rows that are rejected, but would be kept without this rule.

`good` counts the good rows, `lost_share` gives the share that is rejected, duplicates included, by kind of leaf; `caught` the
share of each planted kind that is rejected. Seeds of the sample are few: give taxonomies of your own, or the public one.

    python -P benchmarks/rules.py [TAXONOMY ...]
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.duplicates import Duplicates, asked_question
from lab_pipeline.curation.profile import Profile, profile
from lab_pipeline.curation.rules import CHECKS, LeafRules, rules_of, seed_as_row
from lab_pipeline.flows.flow import Flow, load_flow
from lab_pipeline.taxonomy.leaf import read_leaf
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.curation.planted import asked_of_sentences
from lab_pipeline_tests.curation.planted_bad import bad_rows
from lab_pipeline_tests.curation.planted_good import ROOT, good_rows

SAMPLE = ROOT / "data" / "taxonomy"
SEEDS = 8
Row = dict[str, Any]


def main(taxonomies: list[Path]) -> None:
    good = [leaf for taxonomy in taxonomies for leaf in usable_leaves(taxonomy)]
    result = {}
    for style, prefix in (("strong", ""), ("simple", "simple_")):
        flows = {kind: load_flow(prefix + kind) for kind in ("knowledge", "grounded_skill", "freeform_skill")}
        rows, alone, lost = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
        for source in good:
            measure_good(source, flows[source["kind"]], rows, alone, lost)
        caught, only = measure_bad(flows)
        by_rule: Counter[str] = Counter()
        for (_, rule), count in lost.items():
            by_rule[rule] += count
        result[style] = {
            "good": dict(rows),
            "lost_share": {kind: round(sum(n for (of, _), n in lost.items() if of == kind) / rows[kind], 4) for kind in rows},
            "rules": {
                rule: {"lost_alone": alone[rule], "lost": by_rule[rule], "only": only[rule]} for rule in [*CHECKS, "duplicate"]
            },
            "caught": caught,
        }
        print(f"\n{style}: good rows {dict(rows)}, lost {result[style]['lost_share']}")
        print("| rule | good rows lost alone | after the others | bad rows that only it finds |\n|---|---|---|---|")
        for rule, row in result[style]["rules"].items():
            print(f"| `{rule}` | {row['lost_alone']} | {row['lost']} | {row['only']} |")
    print(json.dumps(result))


def usable_leaves(taxonomy: Path) -> Iterator[Row]:
    """The leaves of a taxonomy without errors, as frozen sources without passages; leaves with the same seeds count once."""
    known = set()
    for file in sorted(taxonomy.rglob("qna.yaml")):
        found = read_leaf(taxonomy, str(file.parent.relative_to(taxonomy)))
        leaf = found.leaf
        if leaf is None or any(problem.severity == "error" for problem in found.problems):
            continue
        seeds = [{"question": s.question, "answer": s.answer, "context": s.context, "asked": s.asked} for s in leaf.seeds]
        if (text := json.dumps(seeds)) in known:
            continue
        known.add(text)
        described = {"task": leaf.task_description or "", "domain": leaf.domain or "", "outline": leaf.document_outline or ""}
        yield {"leaf": leaf.key, "kind": leaf.kind, **described, "seeds": seeds, "passages": []}


def measure_good(source: Row, flow: Flow, rows: Counter[str], alone: Counter[str], lost: Counter[tuple[str, str]]) -> None:
    rest, repeats = Profile(source, ()), Duplicates()
    repeats_go = "duplicate" not in rules_of(Profile(source, source["seeds"], rest), flow).off
    for place, seed in enumerate(source["seeds"][:SEEDS]):
        others = Profile(source, [*source["seeds"][:place], *source["seeds"][place + 1 :]], rest)
        rules = rules_of(others, flow)
        row = seed_as_row(seed, place, source["kind"])
        rows[source["kind"]] += 1
        alone.update(rule.rule for rule in rules.on if rule.rule in CHECKS and CHECKS[rule.rule](row, others, rule))
        rejection, _ = rules.broken(row, others)
        question = asked_question(row)
        repeated = repeats_go and repeats.find(question)
        alone["duplicate"] += bool(repeated)
        if rejection or repeated:
            lost[source["kind"], rejection[0] if rejection else "duplicate"] += 1
        else:
            repeats.add(question)


def measure_bad(flows: dict[str, Flow]) -> tuple[dict[str, str], Counter[str]]:
    """Return the share of each planted kind that is caught, as a fraction, and by rule the rows that it alone finds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        snapshot = take_snapshot(home, settings_for(SAMPLE))
        sources = {leaf: read_json(home.leaf_source(frozen)) for leaf, frozen in snapshot.usable.items()}
        heldout = {row["leaf"]: row["heldout_questions"] for row in snapshot.rows}
    good = [{**row, "id": f"good-{number}"} for number, row in enumerate(good_rows(sources))]
    planted = bad_rows(sources, heldout, good, random.Random(7))
    del planted["contamination"]  # the data sets' leak detector finds these
    knowledge = [row for row in good if row["kind"] == "knowledge"]
    planted["loop"] = [{**row, "answer": f"{row['answer']} " + "It is said so again. " * 9} for row in good[::5]]
    planted["statement"] = [{**row, "question": row["answer"]} for row in knowledge]
    numbers = " ".join(map(str, range(2000)))
    planted["too_long"] = [{**row, "answer": f"{row['answer']} {numbers}"} for row in good[::5]]
    planted["other_sentence"] = asked_of_sentences(sources)[1]
    bad = [
        {**row, "planted": kind, "id": f"{kind}-{number}"} for kind, rows in planted.items() for number, row in enumerate(rows)
    ]
    verdicts: dict[str, set[str]] = defaultdict(set)
    for leaf, source in sources.items():
        known, flow = profile(source), flows[source["kind"]]
        rules = rules_of(known, flow)
        for row in bad:
            if row["leaf"] == leaf and row["planted"] != "duplicate":
                verdicts[row["id"]] = _broken(row, known, rules)
        repeats = [row for row in bad if row["leaf"] == leaf and row["planted"] == "duplicate"]
        _, rejected = Curation(known, flow).split([*(row for row in good if row["leaf"] == leaf), *repeats])
        for row in rejected:
            if row["id"] in {repeat["id"] for repeat in repeats}:
                verdicts[row["id"]].add(row["rule"])
    total, found = Counter(row["planted"] for row in bad), Counter(row["planted"] for row in bad if verdicts[row["id"]])
    only = Counter(next(iter(broken)) for broken in verdicts.values() if len(broken) == 1)
    return {kind: f"{found[kind]} of {number}" for kind, number in total.items()}, only


def _broken(row: Row, leaf: Profile, rules: LeafRules) -> set[str]:
    """Return all rules that reject a row; those for incomplete rows alone, since others expect texts."""
    broken: set[str] = set()
    for rule in rules.on:
        if rule.rule in CHECKS and not rule.advises and CHECKS[rule.rule](row, leaf, rule):
            broken.add(rule.rule)
            if rule.rule in ("no_reply", "incomplete"):
                break
    return broken


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or [SAMPLE])
