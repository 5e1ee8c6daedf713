"""The verdicts that curation gives on a fixed set of rows, and the curation version that gave them.

`python -m lab_pipeline_tests.curation.verdicts` records them anew, once `CURATION_VERSION` was raised.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import read_json
from lab_pipeline.curation.curate import Curation
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.rules import CHECKS
from lab_pipeline.curation.version import CURATION_VERSION
from lab_pipeline.flows.flow import load_flow
from lab_pipeline.taxonomy.snapshot import take_snapshot
from lab_pipeline_tests.builders import settings_for
from lab_pipeline_tests.curation.planted import planted
from lab_pipeline_tests.curation.planted_good import ROOT

RECORD = Path(__file__).with_name("verdicts.jsonl")
"""First line: `version`, and names of the `rules`. Then a row each, with the rule that rejects it under the simple and the
strong flow, or 'kept'."""


def recorded() -> tuple[int, list[str], list[dict[str, Any]]]:
    """(curation version, names of the rules, rows with their verdicts) as they were recorded."""
    head, *rows = map(json.loads, RECORD.read_text(encoding="utf-8").splitlines())
    return head["version"], head["rules"], rows


def judged(rows: list[dict[str, Any]], sources: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with the verdicts of today's rules."""
    verdicts: dict[tuple[str, str], str] = {}
    for leaf, source in sources.items():
        for flow in (f"simple_{source['kind']}", source["kind"]):
            known, loaded = profile(source), load_flow(flow, source["kind"])
            split = Curation(known, loaded).split
            kept, rejected = split([row for row in rows if row["leaf"] == leaf])
            verdicts |= {(row["id"], flow.partition("_")[0]): "kept" for row in kept}
            verdicts |= {(row["id"], flow.partition("_")[0]): row["rule"] for row in rejected}
    return [
        {
            **row,
            "simple": verdicts[row["id"], "simple"],
            "strong": next(rule for (name, flow), rule in verdicts.items() if name == row["id"] and flow != "simple"),
        }
        for row in rows
    ]


def changes() -> list[str]:
    """What is another one now: the rules and their order, and the verdicts on the recorded rows."""
    _, rules, rows = recorded()
    others = [f"rules: {' '.join(rules)}, now {' '.join(_names())}"] if rules != _names() else []
    return others + [
        f"{before['leaf']}: {before['question']!r} -> {before['answer']!r}: {flow}: {before[flow]}, now {now[flow]}"
        for before, now in zip(rows, judged(rows, sample_sources()[0]), strict=True)
        for flow in ("simple", "strong")
        if before[flow] != now[flow]
    ]


def _names() -> list[str]:
    return [*CHECKS]


def sample_sources() -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """(frozen sources, held-out questions) of the sample taxonomy's leaves."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.open(Path(folder))
        snapshot = take_snapshot(home, settings_for(ROOT / "data" / "taxonomy"))
        sources = {leaf: read_json(home.leaf_source(source)) for leaf, source in snapshot.usable.items()}
        return sources, {row["leaf"]: row["heldout_questions"] for row in snapshot.rows}


def record() -> None:
    if RECORD.exists() and recorded()[0] == CURATION_VERSION and (changed := changes()):
        sys.exit("raise CURATION_VERSION in lab_pipeline/curation/version.py first:\n" + "\n".join(changed))
    sources, heldout = sample_sources()
    good, bad = planted(sources, heldout)
    columns = ("id", "leaf", "kind", "context", "question", "answer", "support", "fault", "scores")
    rows = judged([{name: row[name] for name in columns} for row in good + bad], sources)
    lines = [{"version": CURATION_VERSION, "rules": _names()}, *rows]
    RECORD.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    record()
