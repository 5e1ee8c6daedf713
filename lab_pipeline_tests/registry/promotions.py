"""Evaluations and the files that they measured, without any model."""

from __future__ import annotations

from typing import Any

from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import folder_digest, write_json, write_text

LEAVES = ["knowledge/islands", "compositional_skills/notes"]
ATTRIBUTION = (
    "Title of work: The islands\nLink to work: https://example.org\nLicense of the work: CC-BY-4.0\nCreator names: Ann\n"
)


def evaluation(home: Home, candidate: str, reference: str = "base", promoted: bool = True) -> dict[str, Any]:
    """What an evaluation of a candidate would say; the evaluation, the candidate's files and its adapter are written."""
    folder = home.root / "candidates" / candidate
    write_text(folder / "model" / "model.safetensors", f"weights of {candidate}")
    write_text(folder / "model" / "config.json", "{}")
    digest = folder_digest(folder / "model")
    write_json(folder / "candidate.json", {"id": candidate, "digest": digest})
    adapter = home.checkpoints / candidate / "adapter"
    write_text(adapter / "adapter_model.safetensors", f"adapter of {candidate}")
    write_text(adapter / "README.md", "[More Information Needed]")
    write_json(adapter.parent / "meta.json", {"adapter_digest": "d"})
    measured = {"base": 2.0, "candidate": 1.5, "champion": None, "difference": -0.5, "interval": [-0.7, -0.3], "questions": 4}
    not_measured = dict.fromkeys(measured) | {"questions": 0}
    found = {
        "candidate": candidate,
        "digest": digest,
        "reference": reference,
        "base_model": "tiny",
        "taxonomy_commit": "c0ffee",
        "snapshot": "s",
        "catalog": dict.fromkeys(LEAVES, "rows"),
        "verdict": {"promoted": promoted, "outcome": "better" if promoted else "not better", "reason": "the numbers say so"},
        "heldout": {**measured, "leaves": {LEAVES[0]: measured, LEAVES[1]: not_measured}},
        "general": measured,
        "leaves": [
            {
                "leaf": leaf,
                "kind": "knowledge",
                "rows": 7,
                "state": "current",
                "curated": "c",
                "source": "s",
                "contributor": "anna",
                "documents": ["islands.md"],
                "document_commit": None,
                "attribution": ATTRIBUTION,
            }
            for leaf in LEAVES
        ],
        "datasets": {"knowledge": "k", "skills": "s"},
        "checkpoints": {"knowledge": "none", "skills": candidate},
        "chosen": {"skills": {"epoch": 2, "of": 3, "why": "it has the lowest loss"}},
        "recipe": {"lora": {"rank": 4}},
        "seed": 17,
        "evaluated_at": "2026-01-01T00:00:00+00:00",
        "report": str(home.evaluations / candidate / "report.md"),
    }
    write_json(home.evaluations / candidate / "evaluation.json", found)
    return found
