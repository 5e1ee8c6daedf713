"""Measuring a candidate against base model and champion, and writing down the verdict.

The verdict travels in the evaluation's data: whoever promotes reads it there, however the promotion was started.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_pipeline.datasets.catalog import Catalog
from lab_pipeline.datasets.general import GeneralSets
from lab_pipeline.evaluation.gate import Comparison, Losses, compare, decide
from lab_pipeline.evaluation.likelihood import answer_losses
from lab_pipeline.evaluation.report import report_markdown
from lab_pipeline.progress import Say
from lab_pipeline.registry.base_model import BaseModel
from lab_pipeline.registry.candidate import Candidate
from lab_pipeline.registry.champion import Champion, current_champion
from lab_pipeline.settings import Settings
from lab_pipeline.storage import Home, digest, read_json, write_json, write_text
from lab_pipeline.taxonomy.snapshot import Snapshot
from lab_pipeline.training.recipe import Recipe

BASE = "base"
GENERAL = "general"


def retune_inputs(
    catalog: Catalog, heldout_digest: str, general: GeneralSets, base_identity: str, recipe: Recipe, settings: Settings
) -> str:
    """Fingerprint of all that a retune's outcome depends on: data, base model, recipe, seed and policy."""
    return digest(
        [
            catalog.contents,
            heldout_digest,
            general.replay,
            base_identity,
            recipe.model_dump(),
            settings.seed,
            settings.gate.model_dump(),
        ]
    )


def last_evaluation(home: Home) -> dict[str, Any] | None:
    """The evaluation of the last candidate, None before the first."""
    path = home.evaluations / "last.json"
    return read_json(path) if path.exists() else None


def nothing_changed(home: Home, inputs: str) -> bool:
    """Was a candidate of these very inputs evaluated last, and its verdict carried out?"""
    last = last_evaluation(home)
    if last is None or last["inputs"] != inputs:
        return False
    champion = current_champion(home)
    return not last["verdict"]["promoted"] or (champion is not None and champion.id == last["candidate"])


def evaluate(
    home: Home,
    settings: Settings,
    inputs: str,
    base: BaseModel,
    candidate: Candidate,
    catalog: Catalog,
    snapshot: Snapshot,
    heldout: dict[str, Any],
    provenance: dict[str, Any],
    say: Say,
) -> dict[str, Any]:
    """Score candidate, base and champion on the same questions, decide, and store evaluation and report.

    An evaluation of the same inputs and candidate is returned as it is stored. `provenance` (data sets, recipe, costs) is
    kept beside the scores, for the model's lineage.
    """
    champion = current_champion(home)
    last = last_evaluation(home)
    if last and last["inputs"] == inputs and last["candidate"] == candidate.id:
        if not last["verdict"]["promoted"] or last["reference"] == (champion.id if champion else BASE):
            return last
        if champion and champion.id == candidate.id:
            return last
    questions = {**heldout["leaves"], GENERAL: heldout["general"]}
    scores = {
        BASE: _scores(home, base.folder, base.digest, heldout["digest"], questions, say),
        "candidate": _scores(home, candidate.model, candidate.digest, heldout["digest"], questions, say),
    }
    if champion:
        scores["champion"] = _scores(home, champion.model, champion.digest, heldout["digest"], questions, say)
    reference = "champion" if champion else BASE
    changed = _changed_leaves(catalog, champion)
    pairs: Losses = {leaf: list(zip(scores["candidate"][leaf], scores[reference][leaf], strict=True)) for leaf in questions}
    verdict = decide(
        changed={leaf: pairs[leaf] for leaf in heldout["leaves"] if leaf in changed},
        unchanged={leaf: pairs[leaf] for leaf in heldout["leaves"] if leaf not in changed},
        general=pairs[GENERAL],
        identical=champion is not None and champion.digest == candidate.digest,
        policy=settings.gate,
    )
    rows = {row["leaf"]: row for row in snapshot.rows}
    evaluation = {
        "inputs": inputs,
        "candidate": candidate.id,
        "digest": candidate.digest,
        "reference": champion.id if champion else BASE,
        "base_model": base.identity,
        "taxonomy_commit": snapshot.taxonomy_commit,
        "snapshot": snapshot.id,
        "catalog": catalog.contents,
        "changed": sorted(changed),
        "verdict": asdict(verdict),
        "heldout": {
            **_measured({leaf: heldout["leaves"][leaf] for leaf in heldout["leaves"]}, scores, settings),
            "leaves": {leaf: _measured({leaf: heldout["leaves"][leaf]}, scores, settings) for leaf in heldout["leaves"]},
        },
        "general": _measured({GENERAL: heldout["general"]}, scores, settings),
        "leaves": [
            {
                **{key: entry[key] for key in ("leaf", "kind", "rows", "state", "curated", "source")},
                **{key: rows[entry["leaf"]][key] for key in ("contributor", "document_commit", "documents", "attribution")},
            }
            for entry in catalog.in_use
        ],
        **provenance,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    stored = home.evaluations / f"{digest([inputs, candidate.id, evaluation['reference']])}"
    evaluation["report"] = str(stored / "report.md")
    write_text(stored / "report.md", report_markdown(evaluation))
    write_json(stored / "evaluation.json", evaluation)
    write_json(home.evaluations / "last.json", evaluation)
    return evaluation


def _changed_leaves(catalog: Catalog, champion: Champion | None) -> set[str]:
    """Leaves whose rows the reference was not trained on. Where none changed nor left, the recipe or the base model did,
    and all leaves count."""
    now = catalog.contents
    before = champion.catalog if champion else {}
    changed = {leaf for leaf, content in now.items() if before.get(leaf) != content}
    removed = before.keys() - now.keys()
    return changed if changed or removed else set(now)


def _scores(
    home: Home, model: Path, model_digest: str, heldout_digest: str, questions: dict[str, list[dict[str, Any]]], say: Say
) -> dict[str, list[float]]:
    """Loss of every question by leaf; a model is scored once on one set of questions."""
    path = home.evaluations / "scores" / f"{model_digest}-{heldout_digest}.json"
    if not path.exists():
        flat = [question for leaf in questions for question in questions[leaf]]
        say(f"scoring {model.name} ({model_digest}) on {len(flat)} questions")
        losses = iter(answer_losses(model, flat, say))
        write_json(path, {leaf: [next(losses) for _ in questions[leaf]] for leaf in questions})
    return read_json(path)


def _measured(questions: dict[str, list[Any]], scores: dict[str, dict[str, list[float]]], settings: Settings) -> dict[str, Any]:
    """Means of all models over the questions of some leaves, and the candidate's difference from the base model."""
    pairs = {leaf: list(zip(scores["candidate"][leaf], scores[BASE][leaf], strict=True)) for leaf in questions}
    compared: Comparison | None = compare(pairs, settings.gate.confidence)
    champion = [loss for leaf in questions for loss in scores.get("champion", {}).get(leaf, [])]
    return {
        "base": compared.reference if compared else None,
        "champion": sum(champion) / len(champion) if champion else None,
        "candidate": compared.candidate if compared else None,
        "difference": compared.difference if compared else None,
        "interval": list(compared.interval) if compared and compared.interval else None,
        "questions": compared.questions if compared else 0,
    }
