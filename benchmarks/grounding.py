"""How well do rules and a grounding score tell supported answers from unsupported ones, and at which thresholds?

On the hand-labelled answers of `grounding.yaml`, with the sentence as their source and with its whole paragraph. Precision and
recall are of the unsupported: of the answers rejected, how many were unsupported; of the unsupported, how many were rejected.

    python -P benchmarks/grounding.py HOME [SCORES.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from lab_pipeline.config.settings import PACKAGED
from lab_pipeline.core.home import Home
from lab_pipeline.curation.grounding import grounding_scores
from lab_pipeline.curation.profile import profile
from lab_pipeline.curation.support import answer_support, contradiction, unsupported_fact
from lab_pipeline.flows.flow import Rules
from lab_pipeline.models.base_model import fetch_model

TAXONOMY = Path(__file__).parents[1] / "data" / "taxonomy"
THRESHOLDS = {"lexical support": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "grounding": (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)}
SUPPORT, GROUNDING = 0.9, 0.25
"""Thresholds of the tables by kind."""
NO_SOURCE: dict[str, Any] = {"seeds": [], "task": "", "domain": "", "outline": ""}


def labelled() -> list[dict[str, Any]]:
    """One row per answer and source: `label` is 'supported', or in which way it is not."""
    rows = []
    for leaf, facts in yaml.safe_load((Path(__file__).parent / "grounding.yaml").read_text(encoding="utf-8")).items():
        document = next((TAXONOMY / "documents" / leaf.rpartition("/")[2]).glob("*.md")).read_text(encoding="utf-8")
        for fact in facts:
            paragraph = next(each for each in document.split("\n\n") if fact["sentence"] in each)
            sources = {"sentence": fact["sentence"], "paragraph": paragraph}
            for kind, answer in {"supported": fact["supported"], **fact["unsupported"]}.items():
                rows += [
                    {
                        "id": f"{len(rows)}-{name}",
                        "source": name,
                        "label": kind,
                        "kind": "knowledge",
                        "question": fact["question"],
                        "answer": answer,
                        "support": text,
                        "fault": None,
                    }
                    for name, text in sources.items()
                ]
    return rows


def curve(rows: list[dict[str, Any]], column: str) -> list[tuple[float, float, float]]:
    """(threshold, precision, recall) of rejecting what lies below each threshold."""
    points = []
    for threshold in THRESHOLDS[column]:
        rejected = [row["label"] != "supported" for row in rows if row[column] < threshold]
        wrong = sum(row["label"] != "supported" for row in rows)
        points.append((threshold, sum(rejected) / len(rejected) if rejected else 1.0, sum(rejected) / wrong))
    return points


def area(rows: list[dict[str, Any]], column: str) -> float:
    """Area under the ROC curve: how probably a supported answer scores above an unsupported one."""
    good = [row[column] for row in rows if row["label"] == "supported"]
    bad = [row[column] for row in rows if row["label"] != "supported"]
    return sum((one > other) + 0.5 * (one == other) for one in good for other in bad) / (len(good) * len(bad))


def rejected_by_kind(rows: list[dict[str, Any]], kinds: list[str], rejects: Callable[[dict[str, Any]], bool]) -> Iterator[str]:
    for kind in kinds:
        verdicts = [rejects(row) for row in rows if row["label"] == kind]
        yield f"{sum(verdicts)} of {len(verdicts)}"


def main(home: Path, scores_file: Path | None) -> None:
    rows = labelled()
    if scores_file and scores_file.exists():
        scores = json.loads(scores_file.read_text())
    else:
        scores = grounding_scores(fetch_model(Home.open(home), PACKAGED).folder, rows, print)
        if scores_file:
            scores_file.write_text(json.dumps(scores))
    leaf, rules = profile(NO_SOURCE), Rules()
    for row in rows:
        row["grounding"] = scores[row["id"]]
        row["lexical support"] = answer_support(row)
        row["facts"] = bool(unsupported_fact(row, rules, leaf) or contradiction(row, rules, leaf))
    result: dict[str, Any] = {"answers": len(rows) // 2}
    for source in ("sentence", "paragraph"):
        part = [row for row in rows if row["source"] == source]
        print(f"\n## source: {source}")
        for column in THRESHOLDS:
            result[f"{source}_{column.replace(' ', '_')}_area"] = round(area(part, column), 3)
            print(f"\n{column}: area {area(part, column):.3f}\n\n| threshold | precision | recall |\n|---|---|---|")
            for threshold, precision, recall in curve(part, column):
                print(f"| {threshold} | {precision:.2f} | {recall:.2f} |")
        rejects = {
            "facts": lambda row: row["facts"],
            "support": lambda row: row["lexical support"] < SUPPORT,
            "grounding": lambda row: row["grounding"] < GROUNDING,
            "facts or support": lambda row: row["facts"] or row["lexical support"] < SUPPORT,
            "all": lambda row: row["facts"] or row["lexical support"] < SUPPORT or row["grounding"] < GROUNDING,
        }
        kinds = sorted({row["label"] for row in part})
        print(f"\n| rejected by | {' | '.join(kinds)} |\n|---{'|---' * len(kinds)}|")
        for name, rejecting in rejects.items():
            print(f"| {name} | {' | '.join(rejected_by_kind(part, kinds, rejecting))} |")
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
