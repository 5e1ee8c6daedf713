"""The champion: the promoted model. An alias names it, moved in one step and only by a verdict that allows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab_pipeline.errors import LabError
from lab_pipeline.evaluation.report import number
from lab_pipeline.registry.candidate import load_candidate
from lab_pipeline.storage import Home, append_line, folder_digest, read_json, read_lines, write_json, write_text


class PromotionRefused(LabError):
    """The candidate may not become champion; the message says why."""


@dataclass(frozen=True)
class Champion:
    id: str
    model: Path
    digest: str
    promoted_at: str
    catalog: dict[str, str]
    """Content hash of each leaf that the model was trained on, by key."""


def current_champion(home: Home) -> Champion | None:
    """The model that the alias names, None before the first promotion."""
    alias = home.champions / "champion.json"
    if not alias.exists():
        return None
    named = read_json(alias)
    return Champion(named["id"], Path(named["model"]), named["digest"], named["promoted_at"], named["catalog"])


def promote(home: Home, evaluation: dict[str, Any]) -> Champion:
    """Make the evaluated candidate the champion, if the verdict in its evaluation says so. Idempotent.

    Raises:
        PromotionRefused: the verdict is against it, or its files are not the ones that were measured.
    """
    verdict = evaluation["verdict"]
    if not verdict["promoted"]:
        raise PromotionRefused(f"{verdict['outcome']}: {verdict['reason']}")
    home.champions.mkdir(parents=True, exist_ok=True)
    with FileLock(home.champions / "lock"):
        champion = current_champion(home)
        if champion and champion.id == evaluation["candidate"]:
            return champion
        if champion and champion.id != evaluation["reference"]:
            raise PromotionRefused(
                f"the candidate was measured against {evaluation['reference']}, but the champion is {champion.id} by now; "
                "materialize evaluation_report again"
            )
        candidate = load_candidate(home, evaluation["candidate"])
        found = folder_digest(candidate.model)
        if found != evaluation["digest"]:
            raise PromotionRefused(f"{candidate.model}: files changed since they were measured ({found})")
        entry = {
            "id": candidate.id,
            "model": str(candidate.model),
            "digest": candidate.digest,
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "catalog": evaluation["catalog"],
            "reason": verdict["reason"],
            "before": champion.id if champion else None,
        }
        folder = candidate.model.parent
        write_json(folder / "lineage.json", _lineage(evaluation))
        write_text(folder / "MODEL_CARD.md", model_card(evaluation))
        append_line(home.champions / "history.jsonl", entry)
        write_json(home.champions / "champion.json", entry)
    champion = current_champion(home)
    assert champion
    return champion


def history(home: Home) -> list[dict[str, Any]]:
    """All promotions, oldest first."""
    return read_lines(home.champions / "history.jsonl")


def _lineage(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {key: evaluation[key] for key in ("candidate", "digest", "base_model", "datasets", "leaves", "recipe", "seed")}


def model_card(evaluation: dict[str, Any]) -> str:
    """Markdown that tells a stranger what the model is, what it was taught by, and how it was measured."""
    leaves = "\n".join(
        f"| `{leaf['leaf']}` | {leaf['kind']} | {leaf['contributor']} | {leaf['rows']} | {leaf['document_commit'] or '-'} |"
        for leaf in evaluation["leaves"]
    )
    heldout = evaluation["heldout"]
    return f"""# {evaluation["candidate"]}

Tuned from **{evaluation["base_model"]}** by the LAB method (two-phase QLoRA) on the leaves below.

| leaf | kind | contributor | rows | document commit |
|---|---|---|---|---|
{leaves}

Taxonomy commit: `{evaluation["taxonomy_commit"] or "not under version control"}`. Weights: `{evaluation["digest"]}`.

Held-out questions, nats per answer token: base {number(heldout["base"])}, this model {number(heldout["candidate"])}.
General questions: base {number(evaluation["general"]["base"])}, this model {number(evaluation["general"]["candidate"])}.
Promoted because {evaluation["verdict"]["reason"]}.
"""
