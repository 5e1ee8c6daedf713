"""Measuring a candidate against base model and champion, and writing down the verdict.

The verdict travels in the evaluation's data: whoever promotes reads it there, however the promotion was started.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_pipeline.config.recipe import Recipe
from lab_pipeline.config.settings import Settings
from lab_pipeline.core.home import Home
from lab_pipeline.core.progress import Say
from lab_pipeline.core.storage import digest, read_json, write_json
from lab_pipeline.datasets.catalog import Catalog, frozen_leaf
from lab_pipeline.datasets.custom import custom_contents
from lab_pipeline.datasets.general import GeneralSets
from lab_pipeline.datasets.multiple_choice import draw_distractors
from lab_pipeline.evaluation.choices import Rank, answer_ranks, summarised
from lab_pipeline.evaluation.details import write_report
from lab_pipeline.evaluation.gate import Comparison, Losses, compare, decide
from lab_pipeline.evaluation.judged import deciding_interval, judge_models, judging_inputs, unanswered
from lab_pipeline.models.base_model import BaseModel
from lab_pipeline.models.likelihood import answer_losses
from lab_pipeline.models.packing import MEASURE
from lab_pipeline.registry.candidate import Candidate
from lab_pipeline.registry.champion import Champion, current_champion, history
from lab_pipeline.taxonomy.snapshot import Snapshot

BASE = "base"
GENERAL = "general"


def retune_inputs(
    catalog: Catalog, heldout_digest: str, general: GeneralSets, base_identity: str, recipe: Recipe, settings: Settings
) -> str:
    """Fingerprint of all that a retune's outcome depends on: data, base model, recipe, seed, policy, judge and measure.

    Raises:
        CustomDataError: a data set that the settings name cannot be read.
    """
    return digest(
        [
            catalog.contents,
            heldout_digest,
            general.replay,
            base_identity,
            recipe.model_dump(),
            settings.seed,
            settings.gate.model_dump(),
            *judging_inputs(settings),
            MEASURE,
            custom_contents(settings.mixing.knowledge),
            custom_contents(settings.mixing.skills),
        ]
    )


def last_evaluation(home: Home) -> dict[str, Any] | None:
    """The evaluation of the last candidate, None before the first."""
    path = home.evaluations / "last.json"
    if not path.exists():
        return None
    last = read_json(path)
    folder = Path(last["report"]).parent.name  # the home may have been moved since
    return {**last, "report": str(home.evaluations / folder / "report.md")}


def nothing_changed(home: Home, inputs: str) -> bool:
    """Was a candidate of these very inputs evaluated last, and its verdict carried out?

    A rejection is, while what it was measured against is the champion, or the candidate itself by a person's word.
    """
    last = last_evaluation(home)
    if last is None or last["inputs"] != inputs:
        return False
    if last["verdict"]["promoted"]:
        return any((move["id"], move["catalog"]) == (last["candidate"], last["catalog"]) for move in history(home))
    return _reference(current_champion(home)) in (last["reference"], last["candidate"])


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

    An evaluation of the same inputs and candidate is returned as it is stored, unless its judge did not answer. `provenance`
    (data sets, recipe, costs) is kept beside the scores, for the model's lineage.
    """
    champion = current_champion(home)
    last = last_evaluation(home)
    if last and last["inputs"] == inputs and last["candidate"] == candidate.id:
        stands = last["reference"] == _reference(champion) and not unanswered(last)
        if stands or (champion and champion.id == candidate.id):
            return last
    questions = {**heldout["leaves"], GENERAL: heldout["general"]}
    distractors = _distractors(home, catalog, heldout["leaves"], settings.seed)
    models = {BASE: (base.folder, base.digest), "candidate": (candidate.model, candidate.digest)}
    if champion:
        models["champion"] = (champion.model, champion.digest)
    scores = {name: _scores(home, name, *model, heldout["digest"], questions, say) for name, model in models.items()}
    ranks = {name: _ranks(home, *model, heldout["leaves"], distractors, say) for name, model in models.items()}
    for leaf in set(settings.gate.allowed_regressions) - questions.keys():
        say(f"settings.yaml: gate.allowed_regressions names {leaf}, which is no leaf in use")
    reference = "champion" if champion else BASE
    stored = home.evaluations / digest([inputs, candidate.id, _reference(champion)])
    judged = judge_models(home, settings, models, reference, heldout["leaves"], stored, say)
    changed = _changed_leaves(catalog, champion)
    pairs: Losses = {leaf: list(zip(scores["candidate"][leaf], scores[reference][leaf], strict=True)) for leaf in questions}
    verdict = decide(
        changed={leaf: pairs[leaf] for leaf in heldout["leaves"] if leaf in changed},
        unchanged={leaf: pairs[leaf] for leaf in heldout["leaves"] if leaf not in changed},
        general=pairs[GENERAL],
        identical=champion is not None and champion.digest == candidate.digest,
        policy=settings.gate,
        judged=deciding_interval(judged, settings.gate),
    )
    rows = {row["leaf"]: row for row in snapshot.rows}
    evaluation = {
        "inputs": inputs,
        "candidate": candidate.id,
        "digest": candidate.digest,
        "reference": _reference(champion),
        "base_model": base.identity,
        "taxonomy_commit": snapshot.taxonomy_commit,
        "snapshot": snapshot.id,
        "catalog": catalog.contents,
        "changed": sorted(changed),
        "verdict": asdict(verdict),
        "heldout": {
            **_measured(heldout["leaves"], scores, settings),
            "ranks": _ranked(heldout["leaves"], ranks),
            "leaves": {
                leaf: {**_measured({leaf: asked}, scores, settings), "ranks": _ranked({leaf: asked}, ranks)}
                for leaf, asked in heldout["leaves"].items()
            },
        },
        "judged": judged,
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
    evaluation["report"] = str(stored / "report.md")
    folders = {name: folder for name, (folder, _) in models.items()}
    write_report(home, evaluation, heldout, scores, folders, settings.gate.confidence, say)
    write_json(stored / "evaluation.json", evaluation)
    write_json(home.evaluations / "last.json", evaluation)
    return read_json(home.evaluations / "last.json")


def _reference(champion: Champion | None) -> str:
    """Id of what a candidate is measured against."""
    return champion.id if champion else BASE


def _changed_leaves(catalog: Catalog, champion: Champion | None) -> set[str]:
    """Leaves whose rows the reference was not trained on. Where none changed nor left, the recipe or the base model did,
    and all leaves count."""
    now = catalog.contents
    before = champion.catalog if champion else {}
    changed = {leaf for leaf, content in now.items() if before.get(leaf) != content}
    removed = before.keys() - now.keys()
    return changed if changed or removed else set(now)


def _scores(
    home: Home,
    role: str,
    model: Path,
    model_digest: str,
    heldout_digest: str,
    questions: dict[str, list[dict[str, Any]]],
    say: Say,
) -> dict[str, list[float]]:
    """Loss of every question by leaf; a model is scored once on one set of questions."""
    path = home.evaluations / "scores" / f"{model_digest}-{digest([MEASURE, heldout_digest])}.json"
    if not path.exists():
        flat = [question for leaf in questions for question in questions[leaf]]
        say(f"scoring {role} ({model_digest}) on {len(flat)} questions")
        losses = iter(answer_losses(model, flat, say))
        write_json(path, {leaf: [next(losses) for _ in questions[leaf]] for leaf in questions})
    return read_json(path)


def _distractors(
    home: Home, catalog: Catalog, questions: dict[str, list[dict[str, Any]]], seed: int
) -> dict[str, list[list[str]]]:
    """What each question's reference is ranked among, by leaf: the leaf's other answers, of seeds held out and used."""
    drawn = {}
    for entry in catalog.in_use:
        leaf = entry["leaf"]
        used = frozen_leaf(home, entry)["seeds"]
        answers = [question["answer"] for question in (*questions[leaf], *used)]
        drawn[leaf] = [draw_distractors(question, answers, seed) for question in questions[leaf]]
    return drawn


def _ranks(
    home: Home,
    model: Path,
    model_digest: str,
    questions: dict[str, list[dict[str, Any]]],
    distractors: dict[str, list[list[str]]],
    say: Say,
) -> dict[str, list[Rank | None]]:
    """Rank of every question's reference by leaf; a model is asked once to choose among the same answers."""
    path = home.evaluations / "ranks" / f"{model_digest}-{digest([MEASURE, questions, distractors])}.json"
    if not path.exists():
        flat = [question for leaf in questions for question in questions[leaf]]
        ranks = iter(answer_ranks(model, flat, [others for leaf in questions for others in distractors[leaf]], say))
        write_json(path, {leaf: [next(ranks) for _ in questions[leaf]] for leaf in questions})
    return read_json(path)


def _ranked(questions: dict[str, list[Any]], ranks: dict[str, dict[str, list[Rank | None]]]) -> dict[str, Any]:
    """Accuracy and mean reciprocal rank of all models over some leaves; None for a model that is not there."""
    return {
        name: summarised([rank for leaf in questions for rank in ranks[name][leaf]]) if name in ranks else None
        for name in (BASE, "champion", "candidate")
    }


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
